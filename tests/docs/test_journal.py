"""docs/journal.md knows every table, column and rule of the schema, and its questions have answers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Table

from chorus_upload.journal.diff import CLOCK_GRAIN_US
from chorus_upload.journal.schema import metadata
from chorus_upload.model import Change, Evidence, JournalingMode, Retirement
from tests.docs import shell, sites
from tests.docs.markdown import Block, blocks, code_words, read, section, sections
from tests.docs.shell import Step
from tests.trees import build

JOURNAL = read("docs/journal.md")
TABLES = list(metadata.tables.values())
QUESTIONS = [block for block in blocks(JOURNAL) if block.language == "sql"]


def documented_columns(table: str) -> list[str]:
    cells = (row[0] for row in section(JOURNAL, f"`{table}`").rows())
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_table_has_its_place() -> None:
    documented = [each.title.strip("`") for each in sections(JOURNAL) if each.title.startswith("`")]

    assert sorted(documented) == sorted([*metadata.tables, "alembic_version"])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_explained(table: Table) -> None:
    assert documented_columns(table.name) == [column.name for column in table.columns]


def test_every_word_that_a_column_may_hold_is_explained() -> None:
    words = code_words(JOURNAL)

    for enumeration in (Change, Evidence, JournalingMode, Retirement):
        assert {str(member) for member in enumeration} <= words


def test_the_clock_is_as_coarse_as_it_is_said_to_be() -> None:
    assert CLOCK_GRAIN_US == 2_000_000
    assert "at least two seconds older than the beginning of the scan" in section(JOURNAL, "How a change is found").text


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A journal of a site in which everything has happened that is asked about."""
    home = tmp_path_factory.mktemp("site")
    sites.local_site(home)
    tree = {f"OMOP/{name}.csv": f"{name}\n" for name in ("person", "note", "visit", "drug", "death", "cost")}
    build(home / "hospital", {**tree, "Metadata/README.md": "first\n", "P00001/Images/a.dcm": "a\n"})
    upload = "chorus-upload journal update && chorus-upload file upload"
    change = "mv hospital/OMOP/note.csv hospital/OMOP/notes.csv && echo more >> hospital/Metadata/README.md"
    later = "echo new > hospital/OMOP/new.csv && chorus-upload journal update"
    delete = "chorus-upload file mark-as-deleted --file OMOP/death.csv"
    shell.run([Step(step) for step in (upload, change, upload, later, delete)], cwd=home)
    with closing(sqlite3.connect(f"file:{home}/journal.db?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda block: str(block.text.splitlines()[0][:40]))
def test_questions_have_answers(question: Block, journal: sqlite3.Connection) -> None:
    for statement in question.text.strip().removesuffix(";").split(";\n"):
        rows = journal.execute(statement).fetchall()
        if statement == "PRAGMA integrity_check":
            assert [tuple(row) for row in rows] == [("ok",)]
        elif statement == "PRAGMA foreign_key_check" or "IS NULL\nUNION" in statement:
            assert rows == []
        else:
            assert rows, statement


def question(first_words: str, journal: sqlite3.Connection) -> list[sqlite3.Row]:
    (found,) = (block for block in QUESTIONS if block.text.startswith(first_words))
    return journal.execute(found.text).fetchall()


def test_the_life_of_a_file_is_told_from_the_beginning(journal: sqlite3.Connection) -> None:
    first, second = question("SELECT v.label AS introduced_by, f.change", journal)

    assert (first["change"], first["retirement"], first["evidence"]) == ("added", "modified", "readback")
    assert (second["change"], second["retirement"], second["evidence"]) == ("modified", None, "readback")
    assert first["retired_by"] == second["introduced_by"]


def test_what_is_pending_is_what_the_program_calls_so(journal: sqlite3.Connection) -> None:
    assert [tuple(row) for row in question("SELECT m.name AS modality, count(*) AS files, sum", journal)] == [
        ("OMOP", 1, 4)
    ]


def test_every_reason_for_leaving_is_found(journal: sqlite3.Connection) -> None:
    reasons = {row["path"]: row["retirement"] for row in question("SELECT w.label AS retired_by", journal)}

    assert reasons == {"Metadata/README.md": "modified", "OMOP/note.csv": "renamed", "OMOP/death.csv": "marked"}


def test_the_files_that_are_said_to_be_there_are_there(tmp_path: Path) -> None:
    sites.local_site(tmp_path)
    build(tmp_path / "hospital", {"Metadata/a.txt": "a"})
    shell.run([Step("chorus-upload journal update --version v1 && chorus-upload file upload")], cwd=tmp_path)
    shell.run([Step("chorus-upload journal checkout")], cwd=tmp_path)

    assert (tmp_path / "central" / "journal.db.locked").exists()
    assert (tmp_path / "journal.db.writer").exists()
    assert (tmp_path / "central" / "data" / "v1" / "journal.db").exists()
    with closing(sqlite3.connect(tmp_path / "central" / "data" / "v1" / "journal.db")) as copy:
        assert copy.execute("SELECT count(*) FROM custody").fetchone() == (0,)
