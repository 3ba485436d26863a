"""Comparing versions, following files and checking journals: held against plain dictionaries, and against damage."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from chorus_upload.events import Tally
from chorus_upload.journal import checking, deliveries, life, pruning, scans, submissions, versions
from chorus_upload.journal.checking import Finding
from chorus_upload.journal.comparing import Comparison, Difference, FileDifference
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Delivered, Evidence, Transfer
from tests.journal.test_observation import LONG_AGO, ME, NOW, PATHS, File, modality_of, update
from tests.randomness import examples

URL = "/central"
FILLED = Path(__file__).parent / "filled.sql"

Contents = dict[str, bytes]
"""A source: what each path holds."""

sources = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([b"", b"one", b"two", b"three"]))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "journal.db") as made:
        yield made


class Clock:
    """Gives every content of every path a time of its own, so that each change can be seen."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, bytes], int] = {}

    def files(self, source: Contents) -> dict[str, File]:
        return {
            path: File(content, self._times.setdefault((path, content), LONG_AGO + 1_000 * len(self._times)))
            for path, content in source.items()
        }


def take_down(journal: Journal, *history: Contents, complete: bool = True) -> None:
    """A version for each state of the source: v1, v2, …"""
    clock = Clock()
    for number, source in enumerate(history, 1):
        update(journal, clock.files(source), f"v{number}", complete=complete)


def deliver(journal: Journal) -> None:
    """Send all that is pending, as far as the journal is concerned."""
    submission = submissions.begin(journal, url=URL, label="s", who=ME)
    deliveries.plan(journal, url=URL, selection=Selection())
    for page in list(deliveries.planned(journal)):
        for file in page:
            transfer = Transfer(
                file.id, file.modality, file.path, f"{file.version}/{file.path}", file.size, file.mtime_us
            )
            fingerprint = file.fingerprint or b"\0" * 16
            done = Delivered(transfer, fingerprint, fingerprint, Evidence.SERVER, "etag", NOW, 0.0)
            deliveries.record(journal, submission, [done])
    submissions.complete(journal, submission)


def ids(journal: Journal) -> dict[str, int]:
    return {version.label: version.id for version in versions.ordered(journal)}


def compare(
    journal: Journal, before: str, after: str, modalities: list[str] | None = None
) -> tuple[list[FileDifference], dict[str, dict[Difference, Tally]]]:
    known = ids(journal)
    with Comparison(journal, before=known[before], after=known[after], modalities=modalities) as comparison:
        return list(comparison.files()), comparison.tallies()


def names(found: list[FileDifference], what: Difference) -> set[str]:
    return {each.path for each in found if each.what is what}


# --- comparing ---------------------------------------------------------------------------------------------------


@given(history=st.lists(sources, min_size=2, max_size=5), data=st.data())
@settings(max_examples=examples(75), deadline=None)
def test_any_two_versions_differ_as_the_source_did(history: list[Contents], data: st.DataObject) -> None:
    first, last = data.draw(st.lists(st.integers(0, len(history) - 1), min_size=2, max_size=2))
    before, after = history[first], history[last]
    with TemporaryDirectory() as directory, Journal.create(Path(directory) / "journal.db") as journal:
        take_down(journal, *history)
        found, tallies = compare(journal, f"v{first + 1}", f"v{last + 1}")
        back, _ = compare(journal, f"v{last + 1}", f"v{first + 1}")

    renamed = {each.former_path: each.path for each in found if each.what is Difference.RENAMED}
    assert names(found, Difference.MODIFIED) == {
        path for path in before.keys() & after.keys() if before[path] != after[path]
    }
    assert names(found, Difference.ADDED) == after.keys() - before.keys() - set(renamed.values())
    assert names(found, Difference.RETIRED) == before.keys() - after.keys() - set(renamed)
    for old, new in renamed.items():
        assert old is not None
        assert (before[old], modality_of(old)) == (after[new], modality_of(new))
        assert old not in after
        assert new not in before
    if abs(first - last) == 1:
        # Within one update, nothing that was renamed is missed.
        assert len(renamed) == pairs(before, after)
    assert {(each.former_path or "", each.path) for each in back if each.what is Difference.RENAMED} == {
        (new, old or "") for old, new in renamed.items()
    }
    assert Counter(each.what for each in back if each.what is not Difference.RENAMED) == Counter(
        {
            Difference.ADDED: len(names(found, Difference.RETIRED)),
            Difference.RETIRED: len(names(found, Difference.ADDED)),
            Difference.MODIFIED: len(names(found, Difference.MODIFIED)),
        }
    )
    assert {
        (modality, what): tally for modality, counted in tallies.items() for what, tally in counted.items()
    } == tallied(found)


def pairs(before: Contents, after: Contents) -> int:
    """How many files have only another name."""
    gone = Counter((modality_of(path), before[path]) for path in before.keys() - after.keys())
    new = Counter((modality_of(path), after[path]) for path in after.keys() - before.keys())
    return (gone & new).total()


def tallied(found: list[FileDifference]) -> dict[tuple[str, Difference], Tally]:
    tallies: dict[tuple[str, Difference], Tally] = {}
    for each in found:
        size = each.former_size if each.size is None else each.size
        key = each.modality, each.what
        tallies[key] = tallies.get(key, Tally()) + Tally(1, size or 0)
    return tallies


def test_a_file_that_was_renamed_over_and_over_is_one_file(journal: Journal) -> None:
    take_down(journal, {"1/Images/a": b"one"}, {"1/Images/b": b"one"}, {"1/Images/c": b"one"}, {"2/Images/a": b"one"})

    ((only,), _) = compare(journal, "v1", "v4")

    assert (only.what, only.former_path, only.path) == (Difference.RENAMED, "1/Images/a", "2/Images/a")
    assert (only.version, only.former_size, only.size) == ("v4", 3, 3)


def test_what_was_renamed_and_then_changed_is_another_file(journal: Journal) -> None:
    take_down(journal, {"1/Images/a": b"one"}, {"1/Images/b": b"one"}, {"1/Images/b": b"two"})

    found, _ = compare(journal, "v1", "v3")

    assert [(each.what, each.path) for each in found] == [
        (Difference.RETIRED, "1/Images/a"),
        (Difference.ADDED, "1/Images/b"),
    ]


def test_what_came_back_as_it_was_does_not_differ(journal: Journal) -> None:
    take_down(journal, {"OMOP/x": b"one"}, {}, {"OMOP/x": b"one"})

    assert compare(journal, "v1", "v3") == ([], {})
    assert len(compare(journal, "v1", "v2")[0]) == len(compare(journal, "v2", "v3")[0]) == 1


def test_only_the_modalities_that_were_asked_for(journal: Journal) -> None:
    take_down(journal, {}, {"OMOP/x": b"one", "1/Images/a": b"one"})

    found, tallies = compare(journal, "v1", "v2", ["OMOP"])

    assert names(found, Difference.ADDED) == {"OMOP/x"}
    assert tallies == {"OMOP": {Difference.ADDED: Tally(1, 3)}}


def test_in_append_mode_nothing_is_retired_by_its_absence(journal: Journal) -> None:
    take_down(journal, {"OMOP/x": b"one"}, {"1/Images/a": b"one"}, complete=False)

    found, _ = compare(journal, "v1", "v2")

    assert [(each.what, each.path) for each in found] == [(Difference.ADDED, "1/Images/a")]


def test_a_version_that_was_added_to_later_has_what_was_recorded_last(journal: Journal) -> None:
    clock = Clock()
    for label, source in (("v1", {"OMOP/x": b"one"}), ("v2", {}), ("v1", {"OMOP/x": b"two"})):
        update(journal, clock.files(source), label)

    # It was gone at v2, and is back in v1: the folder of v1 is where its new content goes.
    found, _ = compare(journal, "v1", "v2")

    assert found == []


# --- following one file ------------------------------------------------------------------------------------------


def told(journal: Journal, path: str, modality: str = "Images") -> list[str]:
    return [f"{state.version} {state.change} {state.path}" for state in life.states(journal, path, modality=modality)]


def test_a_life_is_told_under_every_name(journal: Journal) -> None:
    take_down(
        journal,
        {"1/Images/a": b"one"},
        {"1/Images/a": b"two"},
        {"1/Images/b": b"two"},
        {"1/Images/b": b"three"},
        {"2/Images/a": b"three"},
    )

    whole = [
        "v1 added 1/Images/a",
        "v2 modified 1/Images/a",
        "v3 renamed 1/Images/b",
        "v4 modified 1/Images/b",
        "v5 renamed 2/Images/a",
    ]
    for name in ("1/Images/a", "1/Images/b", "2/Images/a"):
        assert told(journal, name) == whole
    third = life.states(journal, "1/Images/b", modality="Images")[2]
    assert (third.renamed_from, third.renamed_to, third.retired_by, str(third.retirement)) == (
        "1/Images/a",
        None,
        "v4",
        "modified",
    )


def test_another_file_of_the_same_name_has_its_own_life(journal: Journal) -> None:
    take_down(
        journal,
        {"1/Images/a": b"one"},
        {"1/Images/b": b"one", "1/Images/a": b"two"},
        {"1/Images/b": b"one"},
        {"1/Images/b": b"one", "1/Images/a": b"three"},
    )

    # In the second version `a` holds other content, so it was modified, and `b` came beside it.
    assert told(journal, "1/Images/a") == ["v1 added 1/Images/a", "v2 modified 1/Images/a", "v4 added 1/Images/a"]
    assert told(journal, "1/Images/b") == ["v2 added 1/Images/b"]


def test_each_delivery_is_told_with_its_proof(journal: Journal) -> None:
    take_down(journal, {"OMOP/x": b"one"})
    deliver(journal)

    (state,) = life.states(journal, "OMOP/x", modality="OMOP")

    (proof,) = state.deliveries
    assert (proof.destination, proof.key, proof.submission, proof.evidence) == (URL, "v1/OMOP/x", "s", Evidence.SERVER)
    assert (proof.user, proof.host, proof.md5, proof.etag) == ("me", "here", xxhash.xxh3_128_digest(b"one"), "etag")


def test_names_that_are_like_it(journal: Journal) -> None:
    take_down(journal, {"1/Images/scan-001.dcm": b"", "1/Images/other": b"", "2/Images/Report.pdf": b""})

    assert life.names_like(journal, "1/Images/scan-01.dcm") == ["1/Images/scan-001.dcm"]
    assert life.names_like(journal, "Images/report.pdf") == ["2/Images/Report.pdf"]
    assert life.names_like(journal, "nowhere/nothing") == []


# --- checking ----------------------------------------------------------------------------------------------------


def test_a_sound_journal_gives_no_reason_for_concern(journal: Journal) -> None:
    take_down(journal, {"1/Images/a": b"one", "OMOP/x": b"two"}, {"1/Images/b": b"one", "OMOP/x": b"three"})
    deliver(journal)

    assert list(checking.findings(journal)) == []
    assert checking.contents(journal) == checking.Contents(versions=2, files=4, deliveries=2)


_DELIVERY = "destination_id, submission_id, key, zeroblob(16), evidence, etag, delivered_us, seconds FROM delivery"
KEY_OF_ANOTHER = f"UPDATE file SET md5 = zeroblob(16) WHERE id = 3; INSERT INTO delivery SELECT 3, {_DELIVERY}"  # noqa: S608
KEY_OF_THE_NEXT = (
    "INSERT INTO file SELECT 9, modality_id, directory_id, name, patient, size, mtime_us, fingerprint, zeroblob(16), 0,"  # noqa: S608
    f" 'modified', 1, NULL, NULL, NULL FROM file WHERE id = 1; INSERT INTO delivery SELECT 9, {_DELIVERY}"
)


def broken_by(path: Path, damage: str) -> list[Finding]:
    """What is found in a journal like those in the field after somebody has done this to it."""
    with Journal.create(path):
        pass
    with closing(sqlite3.connect(path)) as database:
        database.executescript(FILLED.read_text())
        database.execute("DELETE FROM custody")
        database.execute("UPDATE version SET completed_us = begun_us")
        database.commit()
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.executescript(damage)
    with Journal.open(path, read_only=True) as journal:
        return list(checking.findings(journal))


@pytest.mark.parametrize(
    ("damage", "rule", "words"),
    [
        ("DELETE FROM modality WHERE id = 1", "damaged", "a row of file refers to a missing row of modality"),
        ("UPDATE file SET size = -1", "value", "3 of the table file break its rule ck_file_size"),
        ("DROP INDEX uq_file_active", "schema", "uq_file_active is missing"),
        (
            "DROP INDEX uq_file_active; INSERT INTO file SELECT 9, modality_id, directory_id, name, patient, size,"
            " mtime_us, fingerprint, md5, 0, change, introduced_by, NULL, NULL, NULL FROM file WHERE id = 1",
            "active-twice",
            "OMOP/person.csv (OMOP) is active 2 times",
        ),
        (
            "UPDATE file SET retired_by = NULL, retirement = NULL WHERE id = 2",
            "renamed-from-another",
            "1001/Images/1/b.dcm is said to be renamed from 1001/Images/1/a.dcm, which is still active",
        ),
        ("UPDATE file SET size = 1 WHERE id = 3", "renamed-from-another", "which is of other content"),
        ("UPDATE file SET modality_id = 1 WHERE id = 3", "renamed-from-another", "which is of another modality"),
        ("UPDATE file SET retirement = 'gone' WHERE id = 2", "renamed-from-another", "retired for another reason"),
        (
            "INSERT INTO file SELECT 9, modality_id, directory_id, 'c.dcm', patient, size, mtime_us, fingerprint, md5,"
            " 0, change, introduced_by, renamed_from, NULL, NULL FROM file WHERE id = 3",
            "renamed-twice",
            "1001/Images/1/a.dcm is said to have been renamed 2 times at once",
        ),
        (
            "UPDATE delivery SET md5 = zeroblob(16)",
            "delivered-other-content",
            f"with the MD5 {'00' * 16}; its own is 00112233445566778899aabbccddeeff",
        ),
        ("UPDATE file SET md5 = NULL WHERE id = 1", "delivered-other-content", "its own is missing"),
        (
            "INSERT INTO destination (id, url) VALUES (2, '/other'); UPDATE submission SET destination_id = 2",
            "delivered-elsewhere",
            "by the submission 20240101010000, which went to /other",
        ),
        (
            "UPDATE file SET md5 = zeroblob(16) WHERE id = 3; INSERT INTO delivery SELECT 3, destination_id,"
            " submission_id, key, zeroblob(16), evidence, etag, delivered_us, seconds FROM delivery",
            "key-of-several",
            "20240101000000/OMOP/person.csv in az://central/site-a@account is the key of several",
        ),
        (
            "UPDATE file SET introduced_by = 2, retired_by = 1, retirement = 'gone' WHERE id = 1",
            "retired-before",
            "OMOP/person.csv (OMOP) is retired by version 20240101000000, and was introduced by 20240201000000",
        ),
        (
            "UPDATE delivery SET key = '20240201000000/OMOP/person.csv'",
            "key-outside-version",
            "20240201000000/OMOP/person.csv is the key of OMOP/person.csv, which is of version 20240101000000",
        ),
        ("UPDATE delivery SET key = 'person'", "key-outside-version", "person is the key of OMOP/person.csv"),
        # Two files with one key, of which one is retired: the one that was delivered first, or the other.
        (
            f"{KEY_OF_ANOTHER}; UPDATE file SET retired_by = 2, retirement = 'gone' WHERE id = 1",  # noqa: S608
            "key-taken-over",
            "is the key of OMOP/person.csv and of 1001/Images/1/b.dcm, with other content",
        ),
        (
            f"{KEY_OF_ANOTHER}; UPDATE file SET retired_by = 2, retirement = 'gone' WHERE id = 3",  # noqa: S608
            "key-taken-over",
            "is the key of OMOP/person.csv and of 1001/Images/1/b.dcm, with other content",
        ),
        (
            f"UPDATE file SET retired_by = 2, retirement = 'modified' WHERE id = 1; {KEY_OF_THE_NEXT}",  # noqa: S608
            "key-taken-over",
            "is the key of OMOP/person.csv and of OMOP/person.csv, with other content",
        ),
        ("UPDATE delivery SET key = '20240101000000/../x'", "key-name", "20240101000000/../x cannot be a key"),
        ("UPDATE delivery SET key = '20240101000000/a//x'", "key-name", "20240101000000/a//x cannot be a key"),
        ("UPDATE delivery SET key = '20240101000000/a' || char(0)", "key-name", "20240101000000/a\\0 cannot be a key"),
        (
            "UPDATE delivery SET delivered_us = 32503680000000000",
            "delivered-in-future",
            "20240101000000/OMOP/person.csv was delivered at 3000-01-01 00:00:00 UTC, which is still to come",
        ),
        ("UPDATE delivery SET etag = 'a' || char(10)", "etag-value", "a\\n cannot be an etag"),
        (
            "UPDATE file SET patient = '../x' WHERE id = 2",
            "patient-not-in-path",
            "1001/Images/1/a.dcm is of the patient ../x, whom its path does not name",
        ),
        ("UPDATE file SET name = '..' WHERE id = 1", "file-name", ".. in the directory 'OMOP' cannot be"),
        ("UPDATE file SET name = 'a' || char(0) || 'b' WHERE id = 1", "file-name", "a\\0b in the directory 'OMOP'"),
        ("UPDATE directory SET path = 'a' || char(0) WHERE id = 1", "directory-name", "a\\0 cannot be"),
        ("UPDATE version SET label = '..' WHERE id = 1", "folder-name", ".. cannot be the name of a version"),
        ("UPDATE version SET label = 'a/b' WHERE id = 1", "folder-name", "a/b cannot be the name of a version"),
        ("UPDATE modality SET name = '..' WHERE id = 1", "folder-name", ".. cannot be the name of a modality"),
        ("UPDATE directory SET path = '/OMOP' WHERE id = 1", "directory-name", "/OMOP cannot be"),
        ("UPDATE directory SET path = 'a/../b' WHERE id = 1", "directory-name", "a/../b cannot be"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, damage: str, rule: str, words: str) -> None:
    found = broken_by(tmp_path / "journal.db", damage)

    assert [
        finding.detail for finding in found if finding.rule == rule and finding.is_broken and words in finding.detail
    ]


@pytest.mark.parametrize(
    ("event", "rule", "words"),
    [
        ("UPDATE version SET completed_us = NULL WHERE id = 2", "version-open", "version 20240201000000 was not"),
        ("UPDATE submission SET completed_us = NULL", "submission-open", "the next `file upload` goes on with it"),
        (
            "UPDATE submission SET completed_us = NULL;"
            " INSERT INTO submission VALUES (2, 'x', 1, 2, NULL, 'h', 'u', '1')",
            "submission-open",
            "submission 20240101010000 to az://central/site-a@account was not finished: a later one was begun instead",
        ),
        (
            "UPDATE version SET begun_us = 4102444800000000 WHERE id = 2",
            "version-times",
            "version 20240201000000 was finished before it was begun",
        ),
        (
            "UPDATE version SET begun_us = 4102444800000000, completed_us = NULL WHERE id = 2",
            "version-times",
            "version 20240201000000 was begun in the future",
        ),
        (
            "UPDATE file SET md5 = zeroblob(16) WHERE id = 2; INSERT INTO delivery SELECT 2, destination_id,"
            " submission_id, upper(key), zeroblob(16), evidence, etag, delivered_us, seconds FROM delivery",
            "keys-alike",
            "20240101000000/OMOP/PERSON.CSV and 20240101000000/OMOP/person.csv in az://central/site-a@account",
        ),
        (
            "UPDATE version SET begun_us = 1 WHERE id = 2",
            "clock-went-back",
            "version 20240201000000 was recorded after",
        ),
        (
            "INSERT INTO scan SELECT 2, 2, 1, root, begun_us, completed_us, 1, 1, 0, 0, 0, 0, 0, 0 FROM scan;"
            " INSERT INTO scan SELECT 3, 1, 1, root, begun_us, completed_us, 1, 1, 0, 0, 0, 0, 0, 0 FROM scan"
            " WHERE id = 1",
            "amended-late",
            "version 20240101000000 was added to when 20240201000000 had been begun",
        ),
        # What was superseded within its version, and a path that names the folder of its key, break nothing.
        (
            f"UPDATE file SET retired_by = 1, retirement = 'modified' WHERE id = 1; {KEY_OF_THE_NEXT};"  # noqa: S608
            " UPDATE version SET completed_us = NULL WHERE id = 2",
            "version-open",
            "20240201000000",
        ),
        (
            "UPDATE delivery SET key = 'OMOP/OMOP/person.csv'; UPDATE version SET completed_us = NULL WHERE id = 2",
            "version-open",
            "20240201000000",
        ),
        ("INSERT INTO directory VALUES (3, 'empty')", "directories-unused", "directories without a file: 1;"),
    ],
)
def test_what_is_worth_knowing_breaks_nothing(tmp_path: Path, event: str, rule: str, words: str) -> None:
    found = broken_by(tmp_path / "journal.db", event)

    assert [finding.rule for finding in found if finding.is_broken] == []
    assert [finding.detail for finding in found if finding.rule == rule and words in finding.detail]


def test_of_very_many_cases_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    many = checking.MOST_NAMED + 7
    paths = ", ".join(f"('/{number}')" for number in range(many))
    found = broken_by(tmp_path / "journal.db", f"INSERT INTO directory (path) VALUES {paths}")  # noqa: S608

    named = [finding.detail for finding in found if finding.rule == "directory-name"]
    assert len(named) == checking.MOST_NAMED + 1
    assert named[-1] == "and 7 more of the kind"


def test_a_file_that_lost_its_end_is_damaged_and_the_rest_is_still_asked(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    broken_by(path, "SELECT 1")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        size = database.execute("PRAGMA page_size").fetchone()[0]
        page = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'delivery'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    with Journal.open(path, read_only=True) as journal:
        found = list(checking.findings(journal))

    assert found[0].rule == "damaged"
    assert any(finding.detail.startswith("could not be checked") for finding in found)
    assert all(finding.is_broken for finding in found)


# --- pruning -----------------------------------------------------------------------------------------------------


@given(
    history=st.lists(st.tuples(sources, st.booleans()), min_size=2, max_size=6),
    then=sources,
    data=st.data(),
)
@settings(max_examples=examples(50), deadline=None)
def test_pruning_changes_nothing_that_is_kept(
    history: list[tuple[Contents, bool]], then: Contents, data: st.DataObject
) -> None:
    clock = Clock()
    with TemporaryDirectory() as directory, Journal.create(Path(directory) / "journal.db") as journal:
        for number, (source, is_sent) in enumerate(history, 1):
            update(journal, clock.files(source), f"v{number}")
            if is_sent:
                deliver(journal)
        kept = data.draw(st.integers(2, len(history)))
        known = ids(journal)
        before = snapshot(journal, kept=kept, last=len(history))

        foreseen = pruning.foresee(journal, [known[f"v{n}"] for n in range(1, kept)], first_kept=known[f"v{kept}"])
        assert snapshot(journal, kept=kept, last=len(history)) == before
        dropped = pruning.drop(journal, [known[f"v{n}"] for n in range(1, kept)], first_kept=known[f"v{kept}"])

        assert dropped == foreseen
        assert snapshot(journal, kept=kept, last=len(history)) == before
        assert list(checking.findings(journal)) == []
        assert pruning.drop(journal, [known[f"v{n}"] for n in range(1, kept)], first_kept=known[f"v{kept}"]).is_nothing
        # Life goes on, with the same result.
        update(journal, clock.files(then), "later")
        found, _ = compare(journal, f"v{len(history)}", "later")
        last = history[-1][0]
        assert names(found, Difference.MODIFIED) == {
            path for path in last.keys() & then.keys() if last[path] != then[path]
        }
        deliver(journal)
        assert deliveries.pending_tally(journal, url=URL, selection=Selection()) == Tally()


def snapshot(journal: Journal, *, kept: int, last: int) -> object:
    """What has to survive: active files, every delivery with its file, and how kept versions differ."""
    with journal.transaction() as connection:
        active = connection.exec_driver_sql("SELECT * FROM file WHERE retired_by IS NULL ORDER BY id").all()
        proofs = connection.exec_driver_sql(
            "SELECT d.*, f.*, k.path FROM delivery d JOIN file f ON f.id = d.file_id"
            " JOIN directory k ON k.id = f.directory_id ORDER BY d.file_id"
        ).all()
    differences = [compare(journal, f"v{a}", f"v{b}") for a in range(kept, last + 1) for b in range(kept, last + 1)]
    return active, proofs, differences


def test_what_is_dropped(journal: Journal) -> None:
    take_down(
        journal,
        {"OMOP/x": b"one", "1/Images/a": b"one", "2/Images/a": b"two"},
        {"OMOP/x": b"two", "1/Images/b": b"one"},
        {"OMOP/x": b"three", "1/Images/b": b"one"},
    )
    known = ids(journal)

    dropped = pruning.drop(journal, [known["v1"], known["v2"]], first_kept=known["v3"])

    # Two contents of OMOP/x and the only one of 2/Images/a, and its directory. The former name of `b` stays with it.
    assert dropped == pruning.Dropped(Tally(3, 9), scans=0, directories=1)
    assert told(journal, "1/Images/b") == ["v1 added 1/Images/a", "v2 renamed 1/Images/b"]
    assert told(journal, "OMOP/x", "OMOP") == ["v3 modified OMOP/x"]
    assert [version.pruned_us is not None for version in versions.ordered(journal)] == [True, True, False]


def test_versions_of_which_nothing_was_dropped_are_not_called_pruned(journal: Journal) -> None:
    take_down(journal, {"OMOP/x": b"one"}, {"OMOP/x": b"one"})
    known = ids(journal)

    assert pruning.drop(journal, [known["v1"]], first_kept=known["v2"]).is_nothing
    assert [version.pruned_us for version in versions.ordered(journal)] == [None, None]


# --- many files --------------------------------------------------------------------------------------------------


MANY_FILES = """
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :files)
    INSERT INTO file (id, modality_id, directory_id, name, patient, size, mtime_us, fingerprint, change, introduced_by,
        retired_by, retirement)
    SELECT i, :modality, i % 100 + 1, i || '.dcm', i % 100, 10, 0, randomblob(16), 'added', :first,
        iif(i % 10 < 2, :second, NULL), CASE i % 10 WHEN 0 THEN 'modified' WHEN 1 THEN 'renamed' END
    FROM n
"""
THEIR_NEXT_STATES = """
    INSERT INTO file (modality_id, directory_id, name, patient, size, mtime_us, fingerprint, change, introduced_by,
        renamed_from)
    SELECT modality_id, directory_id, iif(retirement = 'renamed', 'new-', '') || name, patient, 10, 0,
        iif(retirement = 'renamed', fingerprint, randomblob(16)), retirement, retired_by,
        iif(retirement = 'renamed', id, NULL)
    FROM file WHERE retired_by IS NOT NULL
"""


def with_many_files(journal: Journal, files: int) -> None:
    """Two versions: `files` files, of which the second one modifies a tenth and renames a tenth."""
    take_down(journal, {}, {})
    known = ids(journal)
    modality = scans.modality_ids(journal, ["Images"])["Images"]
    parameters = {"files": files, "modality": modality, "first": known["v1"], "second": known["v2"]}
    with journal.transaction() as connection:
        for number in range(1, 101):
            connection.exec_driver_sql("INSERT INTO directory (path) VALUES (?)", (f"{number}/Images",))
        connection.execute(text(MANY_FILES), parameters)
        connection.execute(text(THEIR_NEXT_STATES))


def test_twenty_thousand_files(journal: Journal) -> None:
    with_many_files(journal, 20_000)

    found, tallies = compare(journal, "v1", "v2")

    assert tallies == {"Images": {Difference.MODIFIED: Tally(2_000, 20_000), Difference.RENAMED: Tally(2_000, 20_000)}}
    assert len(found) == 4_000
    assert list(checking.findings(journal)) == []
    assert told(journal, "2/Images/new-1.dcm") == ["v1 added 2/Images/1.dcm", "v2 renamed 2/Images/new-1.dcm"]
    assert versions.persons(journal, label=None, modalities=None)[None, None] == 100
    known = ids(journal)
    assert pruning.drop(journal, [known["v1"]], first_kept=known["v2"]).files == Tally(2_000, 20_000)
    assert list(checking.findings(journal)) == []
