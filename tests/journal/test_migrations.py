"""The schema: the same whether it was made at once or by migrations, and strict by itself."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Connection

from chorus_upload.errors import JournalError, JournalLocked, JournalNotCheckedOut, SchemaTooNew
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.migrate import create_schema, known_revisions, migrate
from chorus_upload.journal.schema import SCHEMA_REVISION, metadata

FILLED = Path(__file__).parent / "filled.sql"
"""Rows for every table of the first schema, by hand: what a journal in the field may hold."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'journal.db'}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def rows_of(connection: Connection) -> dict[str, list[dict[str, object]]]:
    tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    return {
        table: [dict(row) for row in connection.execute(text(f'SELECT * FROM "{table}" ORDER BY 1')).mappings()]  # noqa: S608
        for table in sorted(tables)
    }


def cut_to(
    rows: dict[str, list[dict[str, object]]], model: dict[str, list[dict[str, object]]]
) -> dict[str, list[dict[str, object]]]:
    """The same rows with the columns that the model's have."""
    return {
        table: [{name: row[name] for name in had} for row, had in zip(rows[table], model[table], strict=True)]
        for table in model
    }


def fill(connection: Connection) -> None:
    for statement in FILLED.read_text().split(";\n"):
        if statement.strip():
            connection.execute(text(statement))


def schema_of(connection: Connection) -> dict[str, tuple[list[object], list[str]]]:
    """Of every table and index: the columns as they follow each other, and what is said of it, in any order."""
    made = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    return {
        name: (
            list(connection.execute(text(f"SELECT * FROM pragma_table_xinfo('{name}')")).all()),  # noqa: S608
            # A table that was made anew, and renamed, has its name in quotes.
            sorted(line.strip(" \t,").replace(f'"{name}"', name) for line in sql.splitlines()),
        )
        for name, sql in made
    }


def test_a_new_journal_has_the_schema_that_the_migrations_make(connection: Connection) -> None:
    create_schema(connection)
    made = create_engine("sqlite://")
    with made.connect() as migrated:
        migrate(migrated)

        assert schema_of(connection) == schema_of(migrated)
        assert len(schema_of(connection)) > len(metadata.tables)
        assert rows_of(connection) == rows_of(migrated)
        revision = text("SELECT version_num FROM alembic_version")
        assert connection.execute(revision).all() == migrated.execute(revision).all() == [(SCHEMA_REVISION,)]
    made.dispose()


def test_the_newest_revision_is_the_one_that_opening_expects() -> None:
    assert max(known_revisions()) == SCHEMA_REVISION


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(connection: Connection) -> None:
    migrate(connection)

    context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
    assert compare_metadata(context, metadata) == []
    checks = {name: len(table.constraints) for name, table in metadata.tables.items()}
    made = inspect(connection)
    for name in checks:
        expected = {c.name for c in metadata.tables[name].constraints if c.__class__.__name__ == "CheckConstraint"}
        assert {c["name"] for c in made.get_check_constraints(name)} == expected


@pytest.mark.parametrize("revision", sorted(known_revisions()))
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_every_revision_migrates_to_the_newest_and_keeps_what_it_holds(
    connection: Connection, revision: str, *, filled: bool
) -> None:
    migrate(connection, revision=revision)
    if filled:
        fill(connection)
    before = rows_of(connection)

    migrate(connection)

    assert cut_to(rows_of(connection), before) == before
    assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    assert filled == any(before.values())


def pretend_a_newer_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one, to which a step leads that changes nothing else."""

    def migrate(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    monkeypatch.setattr("chorus_upload.journal.journal.SCHEMA_REVISION", "9999")
    monkeypatch.setattr("chorus_upload.journal.journal.migrate", migrate)


def test_a_journal_is_migrated_when_it_is_opened_after_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    Journal.create(path).close()
    original = path.read_bytes()
    pretend_a_newer_schema(monkeypatch)

    Journal.open(path).close()

    assert (tmp_path / f"journal.db.schema-{SCHEMA_REVISION}.backup").read_bytes() == original


def test_a_journal_to_whose_schema_no_steps_are_found_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    Journal.create(path).close()
    original = path.read_bytes()
    monkeypatch.setattr("chorus_upload.journal.journal.SCHEMA_REVISION", "9999")

    with pytest.raises(JournalError, match=r"the steps that lead .* to schema 9999 were not found"):
        Journal.open(path)

    assert path.read_bytes() == original


def test_the_backup_has_what_a_killed_process_had_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is in the write-ahead log, and not in the file yet. Like the journal, the backup is its owner's alone."""
    made, path = tmp_path / "made.db", tmp_path / "journal.db"
    Journal.create(made).close()
    with closing(sqlite3.connect(made)) as database:
        database.execute("INSERT INTO modality (name) VALUES ('Images')")
        database.commit()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{made}{suffix}", f"{path}{suffix}")
    assert path.with_name("journal.db-wal").stat().st_size
    pretend_a_newer_schema(monkeypatch)

    Journal.open(path).close()

    backup = tmp_path / f"journal.db.schema-{SCHEMA_REVISION}.backup"
    with closing(sqlite3.connect(f"{backup.as_uri()}?immutable=1", uri=True)) as database:
        assert database.execute("SELECT name FROM modality").fetchall() == [("Images",)]
    assert backup.stat().st_mode & 0o077 == 0


def test_the_schema_of_a_newer_tool_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.create(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()

    with pytest.raises(SchemaTooNew, match="9999") as refusal:
        Journal.open(path)

    assert "newer" in str(refusal.value.hint)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["journal-v1.db", "journal-v2.db", "journal-v2append.db"])
def test_a_journal_of_the_older_tool_is_recognised_and_left_alone(tmp_path: Path, name: str) -> None:
    old = Path(__file__).parent.parent / "data" / "legacy" / name
    path = shutil.copy(old, tmp_path / "journal.db")

    with pytest.raises(JournalError, match="older chorus-upload"):
        Journal.open(Path(path))

    assert Path(path).read_bytes() == old.read_bytes()


def test_what_is_no_journal_is_an_error_and_no_traceback_of_sqlite(tmp_path: Path) -> None:
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"this is not a database at all" * 100)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("CREATE TABLE cake (slice)")

    with pytest.raises(JournalError, match="not a journal"):
        Journal.open(noise)
    with pytest.raises(JournalError, match="not a journal"):
        Journal.open(other)
    with pytest.raises(JournalNotCheckedOut):
        Journal.open(tmp_path / "absent.db")


def test_a_second_writer_is_told_at_once_and_a_reader_is_welcome(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal.create(path):
        with pytest.raises(JournalLocked, match="in use by process"):
            Journal.open(path)
        with Journal.open(path, read_only=True) as reader:
            assert reader.problems() == []
    Journal.open(path).close()


BROKEN_RULES = {
    "two active rows of one path": (
        "INSERT INTO file (modality_id, directory_id, name, size, mtime_us, change, introduced_by)"
        " SELECT modality_id, directory_id, name, size, mtime_us, 'added', introduced_by FROM file WHERE id = 1"
    ),
    "a file of no version": "UPDATE file SET introduced_by = 999 WHERE id = 1",
    "half retired": "UPDATE file SET retired_by = 1 WHERE id = 1",
    "a name with a slash": "UPDATE file SET name = 'a/b' WHERE id = 1",
    "a negative size": "UPDATE file SET size = -1 WHERE id = 1",
    "a fingerprint of the wrong length": "UPDATE file SET fingerprint = x'00' WHERE id = 1",
    "renamed from nothing": "UPDATE file SET change = 'renamed' WHERE id = 1",
    "evidence that does not exist": "UPDATE delivery SET evidence = 'hope'",
    "a delivery of an unknown file": "UPDATE delivery SET file_id = 999",
    "a delivery without an MD5": "UPDATE delivery SET md5 = NULL",
    "a forgotten file with a delivery": "DELETE FROM file WHERE id = (SELECT file_id FROM delivery)",
    "two custodies": "INSERT INTO custody (id, cloud, state, implicit, since_us) VALUES (2, 'x', 'in', 0, 0)",
    "a lock on what is checked in": "UPDATE custody SET state = 'in'",
}


@pytest.mark.parametrize("statement", BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_the_database_itself_keeps_the_rules(tmp_path: Path, statement: str) -> None:
    with Journal.create(tmp_path / "journal.db") as journal:
        with journal.transaction() as connection:
            fill(connection)
        with pytest.raises(JournalError, match="rules"), journal.transaction() as connection:
            connection.execute(text(statement))
        with journal.transaction() as connection:
            assert connection.execute(text("SELECT count(*) FROM file")).scalar_one() == 3
