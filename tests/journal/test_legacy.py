"""Journals of the older tool become journals of ours: the real ones, and such as nobody should have."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from chorus_upload.errors import JournalError
from chorus_upload.events import UpgradeRemark
from chorus_upload.journal import checking, commands
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.legacy import Generation, OldJournal, generation_of
from chorus_upload.journal.legacy_import import Placed, Terms, new_journal, take_over
from chorus_upload.journal.legacy_proof import Proof, prove
from chorus_upload.journal.legacy_rows import Unusable
from chorus_upload.layout import STANDARD_MODALITIES, Pattern, central_key, default_pattern
from chorus_upload.model import JournalingMode
from tests.randomness import examples

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
JOURNALS = ("journal-v1", "journal-v2", "journal-v2append")
PATTERNS = {name: Pattern.parse(default_pattern(name, omop_per_patient=False)) for name in STANDARD_MODALITIES}

OLD_ROWS = {
    Generation.V1: """
        SELECT FILE_ID AS id, FILEPATH AS path, MODALITY AS modality, PERSON_ID AS person, SRC_MODTIME_us AS mtime_us,
            SIZE AS size, MD5 AS md5, TIME_VALID_us AS valid_us, TIME_INVALID_us AS invalid_us,
            UPLOAD_DTSTR AS upload, VERSION AS version, STATE AS state, MD5_DURATION + UPLOAD_DURATION + VERIFY_DURATION
            AS seconds FROM journal ORDER BY FILE_ID
    """,
    Generation.V2: """
        SELECT FILE_ID AS id, SRC_PATH || '/' || FILENAME AS path, MODALITY AS modality, PERSON_ID AS person,
            SRC_MODTIME_us AS mtime_us, SIZE AS size, MD5 AS md5, TIME_VALID_us AS valid_us,
            TIME_INVALID_us AS invalid_us, UPLOAD_DT AS upload, VERSION AS version, NULL AS state, NULL AS seconds
        FROM journal_v2 JOIN srcpaths s ON s.id = SRC_PATH_ID JOIN modalities m ON m.id = MODALITY_ID
        JOIN versions v ON v.id = VERSION_ID LEFT JOIN uploads u ON u.id = UPLOAD_DT_ID ORDER BY FILE_ID
    """,
}

NEW_ROWS = """
    SELECT f.id, iif(k.path = '', f.name, k.path || '/' || f.name) AS path, m.name AS modality, f.patient, f.mtime_us,
        f.size, lower(hex(f.md5)) AS md5, f.change, i.label AS version, r.label AS retired_by, f.retirement,
        f.unsettled, f.fingerprint, s.label AS upload, d.key, d.evidence, d.etag, d.delivered_us, d.seconds
    FROM file f JOIN directory k ON k.id = f.directory_id JOIN modality m ON m.id = f.modality_id
    JOIN version i ON i.id = f.introduced_by LEFT JOIN version r ON r.id = f.retired_by
    LEFT JOIN delivery d ON d.file_id = f.id LEFT JOIN submission s ON s.id = d.submission_id ORDER BY f.id
"""

Rows = list[dict[str, Any]]


@dataclass
class Upgraded:
    """A journal that was taken over, and what was said of it."""

    rows: Rows
    proof: Proof
    remarks: tuple[UpgradeRemark, ...]
    unusable: list[Unusable] = field(default_factory=list)
    tables: dict[str, Rows] = field(default_factory=dict)
    history: list[tuple[str, dict[str, str], float | None]] = field(default_factory=list)

    def of(self, path: str) -> Rows:
        """The rows of one path, oldest first."""
        return [row for row in self.rows if row["path"] == path]


def ask(path: Path, statement: str) -> Rows:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(statement)]


def place(modality: str, path: str, version: str) -> Placed:
    parts = PATTERNS[modality].match(path)
    if parts is None:
        return Placed(None, None)
    return Placed(central_key(modality=modality, version=version, parts=parts, patient_first=True), parts.patient_id)


def upgraded(
    old: Path,
    *,
    mode: JournalingMode = JournalingMode.FULL,
    redact: Callable[[str], str] = str,
    meddle: str | None = None,
) -> Upgraded:
    """Take an old journal over; `meddle` is done to the new one before it is proven."""
    generation = generation_of(old)
    assert generation is not None
    unusable: list[Unusable] = []
    terms = Terms(destination="/central", mode=mode, place=place, redact=redact, on_unusable=unusable.append)
    target = old.with_name(f"{old.name}.new")
    with OldJournal.open(old, generation, known_as="the journal") as opened, new_journal(target) as journal:
        remarks = take_over(journal, opened, terms)
        if meddle is not None:
            with journal.transaction() as connection:
                connection.execute(text(meddle))
        proof = prove(journal, opened, omitted=len(unusable))
        history = [(each.command, json.loads(each.arguments), each.seconds) for each in commands.history(journal)]
    tables = {name: ask(target, f"SELECT * FROM {name} ORDER BY id") for name in ("version", "submission", "command")}  # noqa: S608
    Journal.examine(target, known_as="the new journal")
    return Upgraded(ask(target, NEW_ROWS), proof, remarks, unusable, tables, history)


@pytest.fixture(params=JOURNALS)
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A real journal of the older tool."""
    return copied(request.param, tmp_path)


def copied(name: str, directory: Path, *changes: str) -> Path:
    """A real journal, with something done to it."""
    path = directory / f"{name}.db"
    path.write_bytes((LEGACY / path.name).read_bytes())
    with closing(sqlite3.connect(path)) as database, database:
        for change in changes:
            database.execute(change)
    return path


def old_rows(path: Path) -> Rows:
    generation = generation_of(path)
    assert generation is not None
    return ask(path, OLD_ROWS[generation])


# --- what a site has ----------------------------------------------------------------------------------------------


def test_every_row_ends_in_the_new_journal(real: Path) -> None:
    """As the file of its first row; a row that only said "touched" has given its time to the row before it."""
    before = old_rows(real)

    after = {row["id"]: row for row in upgraded(real).rows}

    for row in before:
        if row["id"] in after:
            continue
        (kept,) = [each for each in after.values() if each["path"] == row["path"] and each["md5"] == row["md5"]]
        assert kept["mtime_us"] == row["mtime_us"]
        assert row["state"] in (None, "MOVED")
    assert len(after) < len(before)
    assert after.keys() <= {row["id"] for row in before}


def test_what_is_active_and_what_was_uploaded_stays_so(real: Path) -> None:
    before = [row for row in old_rows(real) if row["invalid_us"] is None]

    after = [row for row in upgraded(real).rows if row["retired_by"] is None]

    same = ("path", "modality", "mtime_us", "size", "md5", "version", "upload")
    assert {tuple(row[name] for name in same) for row in after} == {tuple(row[name] for name in same) for row in before}
    assert len(after) == len(before)
    assert {row["path"]: row["patient"] for row in after} == {
        row["path"]: None if row["person"] is None else str(row["person"]) for row in before
    }


def test_the_numbers_that_are_proven_are_those_of_the_old_journal(real: Path) -> None:
    before, proof = old_rows(real), upgraded(real).proof

    for part in proof.parts:
        rows = [row for row in before if (row["version"], row["modality"]) == (part.version, part.modality)]
        active = [row for row in rows if row["invalid_us"] is None]
        assert part.rows == len(rows)
        assert (part.active.files, part.active.bytes) == (len(active), sum(row["size"] for row in active))
        assert part.pending.files == sum(row["upload"] is None for row in active)
        assert part.uploaded == len({(row["path"], row["md5"]) for row in rows if row["upload"]})
    assert sum(part.rows for part in proof.parts) == len(before)
    assert (proof.submissions, proof.commands) == (2, 4)


def test_how_files_came_and_went(tmp_path: Path) -> None:
    journal = upgraded(copied("journal-v2", tmp_path))
    first, second = "20240101000000", "20240201000000"

    def life(path: str) -> list[tuple[str, str, str | None, str | None]]:
        return [(row["change"], row["version"], row["retirement"], row["retired_by"]) for row in journal.of(path)]

    assert life("OMOP/person.csv") == [("added", first, None, None)]
    assert life("1000101/Images/2/1000101_001.dcm") == [
        ("added", first, "modified", second),
        ("modified", second, None, None),
    ]
    assert life("1000101/Images/3/1000101_002.dcm") == [("added", first, "gone", second)]
    touched = journal.of("1000101/Images/3/1000101_000.dcm")
    assert life("1000101/Images/3/1000101_000.dcm") == [("added", first, None, None)]
    assert touched[0]["mtime_us"] == 1_706_745_600_000_000


def test_in_append_mode_only_a_person_retires_files(tmp_path: Path) -> None:
    old = copied(
        "journal-v2append", tmp_path, "UPDATE journal_v2 SET TIME_INVALID_us = 1795251854386197 WHERE FILE_ID = 2"
    )

    (row,) = upgraded(old, mode=JournalingMode.APPEND).of("OMOP/person.csv")

    assert (row["retirement"], row["retired_by"]) == ("marked", "20240201000000")


def test_uploads_become_submissions_whose_deliveries_nobody_has_proven(
    real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        journal = upgraded(real)
    finally:
        monkeypatch.undo()
        time.tzset()

    sent = [row for row in journal.rows if row["upload"]]
    assert {row["upload"] for row in sent} == {row["label"] for row in journal.tables["submission"]}
    assert {row["evidence"] for row in sent} == {"imported"}
    assert {row["etag"] for row in sent} == {None}
    for row in sent:
        # The label is local time: five hours behind UTC in November.
        moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(row["delivered_us"] / 1e6 - 5 * 3600))
        assert moment == row["upload"]
        assert row["key"] == f"{row['version']}/{row['path']}"
    assert all(row["completed_us"] for row in journal.tables["submission"])


def test_versions_keep_their_order_and_are_complete(tmp_path: Path) -> None:
    """Also one without rows, and one that a clock put before its predecessor."""
    old = copied(
        "journal-v2",
        tmp_path,
        "INSERT INTO versions VALUES (7, 'nothing-changed')",
        "INSERT INTO versions VALUES (8, 'a-clock-was-wrong')",
        "UPDATE journal_v2 SET VERSION_ID = 8, TIME_VALID_us = 1000 WHERE FILE_ID = 41",
    )

    versions = upgraded(old).tables["version"]

    assert [row["label"] for row in sorted(versions, key=lambda row: row["begun_us"])] == [
        "20240101000000",
        "20240201000000",
        "nothing-changed",
        "a-clock-was-wrong",
    ]
    assert all(row["completed_us"] >= row["begun_us"] for row in versions)
    assert {row["mode"] for row in versions} == {"full"}


def test_durations(tmp_path: Path) -> None:
    """v1 has three for each file: reading, sending and verifying. Together they are what a delivery took."""
    old = copied("journal-v1", tmp_path)
    before = {row["id"]: row["seconds"] for row in old_rows(old)}

    rows = upgraded(old).rows

    assert {row["id"]: row["seconds"] for row in rows} == {
        row["id"]: pytest.approx(before[row["id"]]) if row["upload"] else None for row in rows
    }
    assert [row["seconds"] for row in upgraded(copied("journal-v2", tmp_path)).rows if row["seconds"]] == []


def test_the_history(real: Path) -> None:
    journal = upgraded(real)

    generation = real.stem.removeprefix("journal-")
    assert [(name, arguments.get("version")) for name, arguments, _ in journal.history] == [
        ("journal update", "20240101000000"),
        ("file upload", None),
        ("journal update", "20240201000000"),
        ("file upload", None),
    ]
    _, arguments, seconds = journal.history[3]
    assert arguments["max-num-files"] == "6"
    assert arguments["destination"].startswith("az://legacy181136402/v")
    assert json.loads(arguments["sources"])["Images"] == "/mnt/data/site"
    assert seconds is not None
    begun = [row["begun_us"] for row in journal.tables["command"]]
    assert begun == sorted(begun)
    assert {row["tool_version"] for row in journal.tables["command"]} == {f"older ({generation[:2]})"}


def test_no_credential_of_the_history_is_taken_over(tmp_path: Path) -> None:
    old = copied(
        "journal-v2",
        tmp_path,
        "UPDATE command_history_v2"
        " SET PARAMS = '-v --azure-account-key c2VjcmV0 --max-num-files 6 --sas_token=sv=1&sig=x',"
        " DEST_PATH = 'az://c/p?sig=hidden' WHERE COMMAND_ID = 4",
    )

    _, arguments, _ = upgraded(old, redact=lambda text: text.replace("hidden", "***")).history[3]

    assert arguments["azure-account-key"] == arguments["sas-token"] == "***"
    assert arguments["max-num-files"] == "6"
    assert arguments["parameters"] == "-v"
    assert arguments["destination"] == "az://c/p?sig=***"


def test_a_young_file_is_read_again(tmp_path: Path) -> None:
    """It was so young when the older tool read it that it may have changed under the same time."""
    old = copied("journal-v2", tmp_path, "UPDATE journal_v2 SET SRC_MODTIME_us = TIME_VALID_us - 1 WHERE FILE_ID = 2")

    rows = upgraded(old).rows

    assert [row["path"] for row in rows if row["unsettled"]] == ["OMOP/person.csv"]
    assert {row["fingerprint"] for row in rows} == {None}


# --- what has to be decided ---------------------------------------------------------------------------------------


def remarks_of(journal: Upgraded) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {remark.reason: (remark.count, remark.examples) for remark in journal.remarks}


def test_the_real_journals_leave_nothing_to_decide(real: Path) -> None:
    journal = upgraded(real)

    assert journal.remarks == ()
    assert journal.unusable == []


@pytest.mark.parametrize("name", JOURNALS[:2])
def test_of_two_active_rows_the_newer_stays_active(name: str, tmp_path: Path) -> None:
    table, md5 = ("journal", "FILEPATH = 'OMOP/person.csv'") if name == "journal-v1" else ("journal_v2", "FILE_ID = 2")
    columns = (
        "PERSON_ID, FILEPATH, MODALITY, VERSION, STATE, UPLOAD_DTSTR"
        if name == "journal-v1"
        else "PERSON_ID, SRC_PATH_ID, FILENAME, MODALITY_ID, VERSION_ID, UPLOAD_DT_ID"
    )
    old = copied(
        name,
        tmp_path,
        f"INSERT INTO {table} ({columns}, SRC_MODTIME_us, SIZE, MD5, TIME_VALID_us)"  # noqa: S608
        f" SELECT {columns}, SRC_MODTIME_us + 1, 99, '{'ab' * 16}', TIME_VALID_us + 5 FROM {table} WHERE {md5}",
    )

    journal = upgraded(old)

    older, newer = journal.of("OMOP/person.csv")
    assert (older["size"], older["retirement"], older["upload"] is not None) == (14, "modified", True)
    assert (newer["size"], newer["retired_by"], newer["change"]) == (99, None, "modified")
    assert remarks_of(journal) == {"a file was active twice: the older row is retired": (1, ("OMOP/person.csv",))}


def test_an_upload_without_an_md5_is_left_to_the_next_upload(tmp_path: Path) -> None:
    old = copied(
        "journal-v1",
        tmp_path,
        "UPDATE journal SET MD5 = NULL WHERE FILE_ID = 1",
        "UPDATE journal SET MD5 = '' WHERE FILE_ID = 2",
        "UPDATE journal SET MD5 = upper(MD5) WHERE FILE_ID = 3",
    )

    journal = upgraded(old)

    assert [(row["id"], row["upload"]) for row in journal.rows[:3]] == [(1, None), (2, None), (3, "20261121090407")]
    ((reason, found),) = remarks_of(journal).items()
    assert "has no MD5" in reason
    assert found == (2, ("OMOP/measurement.csv", "OMOP/visit_occurrence.csv"))


def test_an_uploaded_file_whose_path_matches_no_pattern_gets_a_key_that_is_called_a_guess(tmp_path: Path) -> None:
    old = copied("journal-v1", tmp_path, "UPDATE journal SET FILEPATH = 'cdm/person.csv' WHERE FILE_ID = 3")

    journal = upgraded(old)

    (row,) = journal.of("cdm/person.csv")
    assert row["key"] == "20240101000000/cdm/person.csv"
    ((reason, found),) = remarks_of(journal).items()
    assert "its key is a guess" in reason
    assert found == (1, ("cdm/person.csv",))


def test_dates_that_cannot_be_read_cost_nothing_else(tmp_path: Path) -> None:
    old = copied(
        "journal-v1",
        tmp_path,
        "UPDATE journal SET UPLOAD_DTSTR = 'last spring' WHERE UPLOAD_DTSTR = '20261121090407'",
        "UPDATE command_history SET DATETIME = 'soon' WHERE COMMAND_ID = 2",
    )

    journal = upgraded(old)

    assert journal.of("OMOP/person.csv")[0]["upload"] == "last spring"
    assert {row["label"]: row["begun_us"] for row in journal.tables["submission"]}["last spring"] > 0
    begun = [row["begun_us"] for row in journal.tables["command"]]
    assert begun[1] == begun[0]
    assert list(remarks_of(journal).values()) == [(1, ("last spring",)), (1, ("soon",))]


def test_rows_below_the_root_and_rows_of_several_modalities(tmp_path: Path) -> None:
    """A path may be active once in each modality."""
    old = copied(
        "journal-v2",
        tmp_path,
        "INSERT INTO srcpaths VALUES (90, '')",
        "UPDATE journal_v2 SET SRC_PATH_ID = 90, FILENAME = 'README.md' WHERE FILE_ID = 28",
        "UPDATE journal_v2 SET SRC_PATH_ID = 90, FILENAME = 'README.md' WHERE FILE_ID = 2",
    )

    rows = upgraded(old).of("README.md")

    assert [(row["modality"], row["retired_by"]) for row in rows] == [("OMOP", None), ("Metadata", None)]


def test_a_table_that_the_older_tool_had_itself_upgraded_counts_no_more(tmp_path: Path) -> None:
    old = copied(
        "journal-v2", tmp_path, "CREATE TABLE journal (FILE_ID INTEGER)", "INSERT INTO journal VALUES (1), (2)"
    )

    assert generation_of(old) is Generation.V2
    with OldJournal.open(old, Generation.V2, known_as="the journal") as opened:
        assert opened.count_of_other_generation() == 2
    assert len(upgraded(old).rows) == 37


UNUSABLE = {
    "its path is None": "FILEPATH = NULL",
    "its path is 'OMOP/'": "FILEPATH = 'OMOP/'",
    "its path is '/OMOP/person.csv', which leads out of the source": "FILEPATH = '/OMOP/person.csv'",
    "its path is 'OMOP/../person.csv', which leads out of the source": "FILEPATH = 'OMOP/../person.csv'",
    "its path is '..', which leads out of the source": "FILEPATH = '..'",
    "its path is '.', which leads out of the source": "FILEPATH = '.'",
    "its path is 'OMOP/a\\x00b'": "FILEPATH = 'OMOP/a' || char(0) || 'b'",
    "its version is '..'": "VERSION = '..'",
    "its version is 'a/b'": "VERSION = 'a/b'",
    "its modality is '..'": "MODALITY = '..'",
    "it has no modality": "MODALITY = ''",
    "it has no version": "VERSION = NULL",
    "its size is 'big'": "SIZE = 'big'",
    "its size is -1": "SIZE = -1",
    "its size is None": "SIZE = NULL",
    "its time is 'noon'": "SRC_MODTIME_us = 'noon'",
    "it does not say from when to when it was valid": "TIME_VALID_us = NULL",
    "its MD5 is 'none'": "MD5 = 'none'",
    "its state is 'LOST'": "STATE = 'LOST'",
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_a_row_that_makes_no_sense_is_handed_back(reason: str, tmp_path: Path) -> None:
    old = copied("journal-v1", tmp_path, f"UPDATE journal SET {UNUSABLE[reason]} WHERE FILE_ID = 3")  # noqa: S608

    journal = upgraded(old)

    assert [(row.id, row.reason) for row in journal.unusable] == [(3, reason)]
    assert 3 not in {row["id"] for row in journal.rows}
    assert len(journal.rows) == 35


@pytest.mark.parametrize("written", ["./{}", "{}", ".//{}", "././{}"])
@pytest.mark.parametrize("between", ["/", "//", "/./", "///"])
def test_a_path_that_is_written_otherwise_is_taken_for_the_plain_one(
    written: str, between: str, tmp_path: Path
) -> None:
    odd = written.format("OMOP/person.csv".replace("/", between))
    old = copied("journal-v1", tmp_path, f"UPDATE journal SET FILEPATH = '{odd}' WHERE FILEPATH = 'OMOP/person.csv'")  # noqa: S608
    (plain := tmp_path / "plain").mkdir()

    journal = upgraded(old)

    usual = upgraded(copied("journal-v1", plain))
    assert (journal.rows, journal.proof, journal.unusable) == (usual.rows, usual.proof, [])
    assert [remark.examples[0] for remark in journal.remarks] == ([] if odd == "OMOP/person.csv" else [odd])
    with Journal.open(old.with_name(f"{old.name}.new"), read_only=True) as new:
        assert [each for each in checking.findings(new) if each.is_broken] == []


def test_a_file_that_is_written_in_two_ways_is_one(tmp_path: Path) -> None:
    old = copied(
        "journal-v1",
        tmp_path,
        "UPDATE journal SET FILEPATH = './OMOP/person.csv' WHERE FILE_ID = 1",
        "UPDATE journal SET FILEPATH = 'OMOP/person.csv', MODALITY = 'OMOP' WHERE FILE_ID = 2",
    )

    journal = upgraded(old)

    assert sum(row["retired_by"] is None for row in journal.of("OMOP/person.csv")) == 1
    with Journal.open(old.with_name(f"{old.name}.new"), read_only=True) as new:
        assert [each for each in checking.findings(new) if each.is_broken] == []


def test_what_an_older_version_retired_is_retired_by_its_own(tmp_path: Path) -> None:
    """With the older tool an update could be made under the label of any version."""
    ((first,),) = {tuple(row.values()) for row in ask(LEGACY / "journal-v1.db", "SELECT VERSION FROM journal")}
    second = "20240301000000"
    columns = "PERSON_ID, FILEPATH, MODALITY, SRC_MODTIME_us, SIZE, MD5"
    copy = f"INSERT INTO journal ({columns}, TIME_VALID_us, TIME_INVALID_us, VERSION, STATE) SELECT PERSON_ID, 'OMOP/x'"
    old = copied(
        "journal-v1",
        tmp_path,
        f"{copy}, MODALITY, 5, 1, MD5, 9000, 9500, '{second}', 'OUTDATED' FROM journal WHERE FILE_ID = 1",
        f"{copy}, MODALITY, 5, 2, MD5, 9500, NULL, '{first}', 'ADDED' FROM journal WHERE FILE_ID = 1",
    )

    journal = upgraded(old)

    before, after = journal.of("OMOP/x")
    assert (before["version"], before["retired_by"], after["version"]) == (second, second, first)
    assert "a file was retired by a version older than its own" in journal.remarks[0].reason
    with Journal.open(old.with_name(f"{old.name}.new"), read_only=True) as new:
        assert [each for each in checking.findings(new) if each.is_broken] == []


def test_an_upload_that_is_still_to_come_has_the_time_of_what_it_sent(tmp_path: Path) -> None:
    old = copied("journal-v1", tmp_path, "UPDATE journal SET UPLOAD_DTSTR = '29990101000000' WHERE UPLOAD_DTSTR <> ''")

    journal = upgraded(old)

    assert "still to come" in journal.remarks[0].reason
    assert all(row["delivered_us"] < time.time() * 1e6 for row in journal.rows if row["upload"])
    with Journal.open(old.with_name(f"{old.name}.new"), read_only=True) as new:
        assert [each for each in checking.findings(new) if each.is_broken] == []


def test_a_version_that_no_folder_can_be_called_after_is_left_out_with_its_rows(tmp_path: Path) -> None:
    old = copied("journal-v2", tmp_path, "UPDATE versions SET VERSION = '../x' WHERE VERSION = '20240201000000'")

    journal = upgraded(old)

    assert {row.reason for row in journal.unusable} == {"its version is '../x'"}
    assert [row["label"] for row in journal.tables["version"]] == ["20240101000000"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("SRC_PATH_ID", "its path is None"),
        ("MODALITY_ID", "it has no modality"),
        ("VERSION_ID", "it has no version"),
        ("UPLOAD_DT_ID", "it does not say when it was uploaded"),
    ],
)
def test_a_row_that_refers_to_nothing_is_handed_back(column: str, reason: str, tmp_path: Path) -> None:
    """The older tool declared foreign keys, and never switched them on."""
    old = copied("journal-v2", tmp_path, f"UPDATE journal_v2 SET {column} = 999 WHERE FILE_ID = 3")  # noqa: S608

    assert [(row.id, row.reason) for row in upgraded(old).unusable] == [(3, reason)]


# --- what is no old journal ---------------------------------------------------------------------------------------


def test_only_journals_of_the_older_tool_are_called_so(tmp_path: Path) -> None:
    Journal.create(tmp_path / "ours.db").close()
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("journal, journal_v2\n" * 100)
    with closing(sqlite3.connect(tmp_path / "recipes.db")) as database:
        database.execute("CREATE TABLE recipe (name)")

    assert [generation_of(tmp_path / f"{name}.db") for name in ("ours", "empty", "text", "recipes", "absent")] == [
        None
    ] * 5
    assert [generation_of(LEGACY / f"{name}.db") for name in JOURNALS] == ["v1", "v2", "v2"]


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    old = copied("journal-v2", tmp_path)
    content = bytearray(old.read_bytes())
    content[16_384:40_960] = bytes(24_576)
    old.write_bytes(content)

    with pytest.raises(JournalError, match="damaged") as refusal:
        upgraded(old)

    assert "recovery.md" in str(refusal.value.hint)
    assert old.read_bytes() == content


def test_one_that_lacks_columns_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as database:
        database.execute("CREATE TABLE journal (FILE_ID INTEGER, FILEPATH TEXT)")

    with pytest.raises(JournalError, match="no such column"):
        upgraded(old)


def test_reading_leaves_no_trace(real: Path) -> None:
    before = real.read_bytes(), real.stat().st_mtime_ns

    upgraded(real)

    assert (real.read_bytes(), real.stat().st_mtime_ns) == before
    assert {path.name for path in real.parent.iterdir()} == {real.name, f"{real.name}.new"}


# --- the proof ----------------------------------------------------------------------------------------------------

MEDDLING = {
    "a file is lost": "DELETE FROM file WHERE id = 40",
    "a delivery is lost": "DELETE FROM delivery WHERE file_id = 1",
    "a file is retired": "UPDATE file SET retired_by = 1, retirement = 'gone' WHERE id = 1",
    "a file is in another version": "UPDATE file SET introduced_by = 2 WHERE id = 1",
    "a size is wrong": "UPDATE file SET size = size + 1 WHERE id = 1",
    "a time is wrong": "UPDATE file SET mtime_us = mtime_us + 1000000 WHERE id = 1",
    "an MD5 is lost": "UPDATE file SET md5 = NULL WHERE id = 40",
    "a version is lost": "UPDATE version SET label = 'x' WHERE id = 2",
    "a submission is lost": "UPDATE submission SET label = 'x' WHERE id = 2",
    "a command is lost": "DELETE FROM command WHERE id = 2",
    "a reference dangles": "UPDATE file SET directory_id = 999 WHERE id = 1",
}


@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING)
def test_whatever_is_not_as_it_was_is_found(meddle: str, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="not taken over as it is"):
        upgraded(copied("journal-v2", tmp_path), meddle=meddle)


# --- whatever the older tool may have written ---------------------------------------------------------------------


class OldTool:
    """What the older tool does to its two kinds of journals, as far as compat.md tells; and who is active now."""

    def __init__(self, directory: Path) -> None:
        self.paths = {generation: directory / f"{generation}.db" for generation in Generation}
        self._databases = {}
        for generation, path in self.paths.items():
            path.unlink(missing_ok=True)
            self._databases[generation] = sqlite3.connect(path)
            with closing(sqlite3.connect(LEGACY / f"journal-{generation}.db")) as real:
                for (statement,) in real.execute(
                    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
                ):
                    self._databases[generation].execute(statement)
        self.active: dict[str, tuple[int, int, int, str | None]] = {}
        """Row, content, time and upload by path."""
        self.v1, self.v2 = self._databases[Generation.V1], self._databases[Generation.V2]
        self._clock = count(1_700_000_000_000_000, 1_000_000)
        self._rows = count(1)

    def close(self) -> None:
        for database in self._databases.values():
            database.commit()
            database.close()

    def update(self, version: str, tree: dict[str, tuple[int, int]]) -> None:
        """`tree` has content and time of each file."""
        now = next(self._clock)
        for path in self.active.keys() - tree.keys():
            self._end(self.active.pop(path)[0], now, "DELETED")
        for path, (content, mtime) in tree.items():
            before = self.active.get(path)
            if before is None:
                self._begin(path, content, mtime, None, version, now, "ADDED")
            elif before[1] != content:
                self._end(before[0], now, "OUTDATED")
                self._begin(path, content, mtime, None, version, now, "UPDATED")
            elif before[2] != mtime:
                self._end(before[0], now, "OUTDATED")
                (first,) = self.v1.execute("SELECT VERSION FROM journal WHERE FILE_ID = ?", (before[0],)).fetchone()
                self._begin(path, content, mtime, before[3], first, now, "MOVED")

    def upload(self, label: str, paths: set[str]) -> None:
        for path in paths & self.active.keys():
            row, content, mtime, upload = self.active[path]
            if upload is None:
                self.active[path] = row, content, mtime, label
                self.v1.execute("UPDATE journal SET UPLOAD_DTSTR = ? WHERE FILE_ID = ?", (label, row))
                number = self._looked_up("uploads", "UPLOAD_DT", label)
                self.v2.execute("UPDATE journal_v2 SET UPLOAD_DT_ID = ? WHERE FILE_ID = ?", (number, row))

    def _begin(
        self, path: str, content: int, mtime: int, upload: str | None, version: str, now: int, state: str
    ) -> None:
        row = next(self._rows)
        self.active[path] = row, content, mtime, upload
        directory, _, name = path.rpartition("/")
        values = (mtime, 10 + content, f"{content:032x}", now)
        self.v1.execute(
            "INSERT INTO journal (FILE_ID, FILEPATH, MODALITY, SRC_MODTIME_us, SIZE, MD5, TIME_VALID_us,"
            " UPLOAD_DTSTR, VERSION, STATE) VALUES (?, ?, 'OMOP', ?, ?, ?, ?, ?, ?, ?)",
            (row, path, *values, upload, version, state),
        )
        self.v2.execute(
            "INSERT INTO journal_v2 (FILE_ID, SRC_PATH_ID, FILENAME, MODALITY_ID, SRC_MODTIME_us, SIZE, MD5,"
            " TIME_VALID_us, UPLOAD_DT_ID, VERSION_ID) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row,
                self._looked_up("srcpaths", "SRC_PATH", directory),
                name,
                self._looked_up("modalities", "MODALITY", "OMOP"),
                *values,
                None if upload is None else self._looked_up("uploads", "UPLOAD_DT", upload),
                self._looked_up("versions", "VERSION", version),
            ),
        )

    def _end(self, row: int, now: int, state: str) -> None:
        self.v1.execute("UPDATE journal SET TIME_INVALID_us = ?, STATE = ? WHERE FILE_ID = ?", (now, state, row))
        self.v2.execute("UPDATE journal_v2 SET TIME_INVALID_us = ? WHERE FILE_ID = ?", (now, row))

    def _looked_up(self, table: str, column: str, value: str) -> int:
        self.v2.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (value,))  # noqa: S608
        return int(self.v2.execute(f"SELECT id FROM {table} WHERE {column} = ?", (value,)).fetchone()[0])  # noqa: S608


PATHS = ("OMOP/a.csv", "OMOP/b.csv", "OMOP/deep/c.csv")
trees = st.dictionaries(st.sampled_from(PATHS), st.tuples(st.integers(0, 2), st.integers(0, 2)))
steps = st.one_of(trees, st.sets(st.sampled_from(PATHS)))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(steps, max_size=8), amending=st.booleans())
def test_any_story_is_taken_over_alike_from_both_kinds(tmp_path: Path, story: list[Any], *, amending: bool) -> None:
    tool = OldTool(tmp_path)
    for number, step in enumerate(story):
        if isinstance(step, dict):
            tool.update("1" if amending else str(number), step)
        else:
            tool.upload(f"2024010100000{number}", step)
    tool.close()

    journals = {generation: upgraded(path) for generation, path in tool.paths.items()}

    for journal in journals.values():
        active = {row["path"]: row for row in journal.rows if row["retired_by"] is None}
        assert {path: (row["size"], row["mtime_us"], row["upload"]) for path, row in active.items()} == {
            path: (10 + content, mtime, upload) for path, (_, content, mtime, upload) in tool.active.items()
        }
        assert journal.remarks == ()
    first, second = (journals[generation].rows for generation in Generation)
    assert first == second
    for rows in by_path(first):
        # A state is never followed by the same one, and one that follows at once was modified.
        for before, after in pairwise(rows):
            assert (after["change"] == "modified") == (before["retirement"] == "modified")
            if after["change"] == "modified":
                assert before["md5"] != after["md5"]


def by_path(rows: Rows) -> Iterator[Rows]:
    for path in PATHS:
        yield [row for row in rows if row["path"] == path]
