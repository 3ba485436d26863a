"""The diff, held against a naive reference in memory: dictionaries and no SQL."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from chorus_upload.events import Tally
from chorus_upload.journal import scans, versions
from chorus_upload.journal.database import driver
from chorus_upload.journal.diff import CLOCK_GRAIN_US, Candidate
from chorus_upload.journal.doubts import SameKey
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.observation import Observation
from chorus_upload.journal.who import Who
from chorus_upload.model import JournalingMode, Reading
from chorus_upload.transfer.reader import md5_of
from tests.randomness import examples

NOW = 1_700_000_000_000_000
LONG_AGO = NOW - 1_000_000_000
ME = Who(host="here", user="me")

PATHS = [f"{patient}/Images/{name}" for patient in ("1", "2") for name in ("a", "b", "c d/e")] + ["OMOP/x"]


@dataclass(frozen=True)
class File:
    """A file of the pretended source."""

    content: bytes
    mtime_us: int


Tree = Mapping[str, File]


def modality_of(path: str) -> str:
    return "OMOP" if path.startswith("OMOP") else "Images"


def update(
    journal: Journal,
    tree: Tree,
    label: str,
    *,
    complete: bool = True,
    hidden: frozenset[str] = frozenset(),
    is_cloud: bool = False,
) -> Counter[str]:
    """What `operations.update` does, with a pretended source; `hidden` are directories that cannot be read.

    In a cloud nothing is read: what it says of an object is compared.
    """
    ids = scans.modality_ids(journal, ["OMOP", "Images"])
    counts: Counter[str] = Counter()
    with Observation(journal, ids, begun_us=NOW) as seen:
        for path, file in tree.items():
            directory, _, name = path.rpartition("/")
            if any(f"{directory}/".startswith(f"{place}/") for place in hidden):
                continue
            modality = modality_of(path)
            number = seen.directory(modality, directory, patient=None, version=None, central=f"{directory}/")
            claims = {name: md5_of(file.content)} if is_cloud else {}
            seen.files(modality, number, [(name, len(file.content), file.mtime_us)], claims=claims)
        for modality in ids:
            for place in hidden:
                seen.unreadable(modality, place)
        assert seen.compare(complete=complete) == []
        version_id = versions.reopen(journal, label, mode=JournalingMode.FULL, who=ME)
        seen.begin(version_id)
        for page in seen.candidates():
            for applied in seen.apply(
                [(candidate, (looked_at if is_cloud else read)(tree, candidate)) for candidate in page]
            ):
                counts[applied.change] += applied.read.files
        counts["retired"] = sum((tally for tally in seen.retire_gone().values()), Tally()).files
    versions.complete(journal, version_id)
    return +counts


def looked_at(tree: Tree, candidate: Candidate) -> Reading:
    file = tree[candidate.path]
    return Reading(len(file.content), file.mtime_us)


def read(tree: Tree, candidate: Candidate) -> Reading:
    file = tree[candidate.path]
    md5 = md5_of(file.content) if candidate.needs_md5 else None
    return Reading(len(file.content), file.mtime_us, xxhash.xxh3_128_digest(file.content), md5)


def active(journal: Journal) -> dict[str, tuple[int, int, bytes]]:
    query = """SELECT k.path || '/' || f.name, f.size, f.mtime_us, f.fingerprint FROM file f
        JOIN directory k ON k.id = f.directory_id WHERE f.retired_by IS NULL"""
    with journal.transaction() as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(text(query))}


def as_journaled(tree: Tree) -> dict[str, tuple[int, int, bytes]]:
    return {
        path: (len(file.content), file.mtime_us, xxhash.xxh3_128_digest(file.content)) for path, file in tree.items()
    }


def predict(before: Tree, after: Tree, *, complete: bool) -> Counter[str]:
    """The naive reference."""
    counts: Counter[str] = Counter()
    gone = [path for path in before if path not in after] if complete else []
    for path, file in sorted(after.items()):
        old = before.get(path)
        if old is None:
            same = [p for p in gone if before[p].content == file.content and modality_of(p) == modality_of(path)]
            if same:
                gone.remove(same[0])
            counts["renamed" if same else "added"] += 1
        elif old.content != file.content:
            # Same size and same settled time: nobody can see that without reading.
            hidden = len(old.content) == len(file.content) and old.mtime_us == file.mtime_us
            if not (hidden and old.mtime_us < NOW - CLOCK_GRAIN_US):
                counts["modified"] += 1
        elif old.mtime_us != file.mtime_us:
            counts["touched"] += 1
        elif old.mtime_us >= NOW - CLOCK_GRAIN_US:
            counts["unchanged"] += 1
    counts["retired"] = len(gone)
    return +counts


files = st.builds(
    File,
    st.sampled_from([b"", b"one", b"two", b"three"]),
    # Two settled times, and one too young to be trusted.
    st.sampled_from([LONG_AGO, LONG_AGO + 1, NOW]),
)
trees = st.dictionaries(st.sampled_from(PATHS), files)


@settings(max_examples=examples(100), deadline=None)
@given(before=trees, after=trees, complete=st.booleans())
def test_an_update_finds_what_a_naive_comparison_finds(
    before: dict[str, File], after: dict[str, File], *, complete: bool
) -> None:
    # A change that keeps size and settled time cannot be seen, and is no fair question.
    for path, old in before.items():
        new = after.get(path)
        if new and len(new.content) == len(old.content) and new.mtime_us == old.mtime_us < NOW - CLOCK_GRAIN_US:
            after[path] = old
    with TemporaryDirectory() as directory, Journal.create(Path(directory) / "journal.db") as journal:
        update(journal, before, "1")

        counts = update(journal, after, "2", complete=complete)

        assert counts == predict(before, after, complete=complete)
        kept = {} if complete else {path: file for path, file in before.items() if path not in after}
        assert active(journal) == as_journaled(kept | after)
        assert journal.problems() == []


@settings(max_examples=examples(30), deadline=None)
@given(before=trees, hidden=st.sampled_from(["1", "2/Images", "2/Images/c d", "OMOP"]))
def test_nothing_below_an_unreadable_directory_is_retired(before: dict[str, File], hidden: str) -> None:
    with TemporaryDirectory() as directory, Journal.create(Path(directory) / "journal.db") as journal:
        update(journal, before, "1")

        counts = update(journal, {}, "2", hidden=frozenset({hidden}))

        safe = {path: file for path, file in before.items() if path.startswith(f"{hidden}/")}
        assert active(journal) == as_journaled(safe)
        assert counts["retired"] == len(before) - len(safe)


def test_a_second_update_of_the_same_tree_writes_no_file(tmp_path: Path) -> None:
    tree = {path: File(path.encode(), LONG_AGO) for path in PATHS}
    with Journal.create(tmp_path / "journal.db") as journal:
        assert update(journal, tree, "1") == Counter(added=len(PATHS))
        assert update(journal, tree, "2") == Counter()


def test_a_file_with_only_an_md5_is_compared_by_it_and_then_has_a_fingerprint(tmp_path: Path) -> None:
    tree = {"OMOP/x": File(b"one", LONG_AGO), "1/Images/a": File(b"two", LONG_AGO)}
    with Journal.create(tmp_path / "journal.db") as journal:
        update(journal, tree, "1")
        forget = "UPDATE file SET fingerprint = NULL, md5 = :md5 WHERE size = 3"
        with journal.transaction() as connection:
            md5 = md5_of(b"one")
            connection.execute(text(forget), {"md5": md5})

        counts = update(journal, {path: File(b"one", NOW - 10**8) for path in tree}, "2")

        assert counts == Counter(touched=2)
        assert all(row[2] == xxhash.xxh3_128_digest(b"one") for row in active(journal).values())


def test_an_object_that_changed_again_within_the_second_in_which_it_was_delivered(tmp_path: Path) -> None:
    """Services tell times in seconds. The update in between compared what the service says, and settles nothing."""
    with Journal.create(tmp_path / "journal.db") as journal:
        update(journal, {"OMOP/x": File(b"one", NOW)}, "1")
        with journal.transaction() as connection:
            connection.execute(text("UPDATE file SET unsettled = 1, md5 = :md5"), {"md5": md5_of(b"one")})
        update(journal, {"OMOP/x": File(b"one", NOW)}, "2", is_cloud=True)

        assert update(journal, {"OMOP/x": File(b"two", NOW)}, "3", is_cloud=True) == Counter(modified=1)


def test_a_file_with_only_an_md5_that_was_renamed_is_found_by_it(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db") as journal:
        update(journal, {"1/Images/a": File(b"one", LONG_AGO)}, "1")
        with journal.transaction() as connection:
            md5 = md5_of(b"one")
            connection.execute(text("UPDATE file SET fingerprint = NULL, md5 = :md5"), {"md5": md5})

        assert update(journal, {"1/Images/b": File(b"one", LONG_AGO)}, "2") == Counter(renamed=1)


def _leads_outside(seen: Observation, number: int) -> None:
    """In the place of each file is a link that nobody follows."""
    for patient in range(number):
        seen.unreadable("Images", f"{patient}/Images", "a")
        seen.unreadable("Images", f"{patient}/Images/a")


def _moves_outside(seen: Observation, number: int) -> None:
    for patient in range(number):
        seen.outside("Images", f"{patient}/Bilder/a", 4, LONG_AGO)


def _is_copied_outside(seen: Observation, number: int) -> None:
    for patient in range(number):
        seen.outside("Images", f"{patient}/Bilder/a", 4, LONG_AGO + 5_000_000)


def _is_unfit(seen: Observation, number: int) -> None:
    """Each is in a version of its own, and every second of those cannot be one."""
    for patient in range(number):
        place = seen.directory("Images", f"{patient}/Images", patient=None, version=f"v{patient}", central="")
        seen.files("Images", place, [("a", 4, LONG_AGO)])


@pytest.mark.parametrize("happens", [_leads_outside, _moves_outside, _is_copied_outside, _is_unfit])
def test_what_happens_to_many_files_costs_as_much_for_each(
    tmp_path: Path, happens: Callable[[Observation, int], None]
) -> None:
    """Twice as many take twice as many steps of the database, or a little more, and not four times as many."""

    def steps(number: int) -> int:
        taken = itertools.count()
        tree = {f"{patient}/Images/a": File(b"same", LONG_AGO) for patient in range(number)}
        with Journal.create(tmp_path / f"{number}.db") as journal:
            update(journal, tree, "1")
            ids = scans.modality_ids(journal, ["OMOP", "Images"])
            with Observation(journal, ids, begun_us=NOW) as seen:
                happens(seen, number)
                with journal.transaction() as connection:
                    driver(connection).set_progress_handler(lambda: next(taken) < 0, 100)
                seen.leave_out_versions(lambda label, _: "even" if label[-1] in "02468" else None)
                seen.compare(complete=True)
                maybe = sum(len(page) for page in seen.maybe_moved_outside())
                moved = seen.moved_outside()
                seen.hold_moved_outside()
                gone = seen.gone["Images"].files
        # What was copied has to be read.
        assert maybe == (number if happens in (_moves_outside, _is_copied_outside) else 0)
        assert sum(each.files for each in moved) == (number if happens is _moves_outside else 0)
        assert gone == (number if happens is _is_copied_outside else 0)
        return next(taken)

    few = steps(500)

    assert 0 < steps(1_000) < 2.5 * few


def test_two_files_with_one_central_key_are_not_both_journaled(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db") as journal:
        ids = scans.modality_ids(journal, ["Images"])
        with Observation(journal, ids, begun_us=NOW) as seen:
            for directory in ("1/images", "1/Images"):
                number = seen.directory("Images", directory, patient="1", version=None, central="1/Images/")
                seen.files("Images", number, [("a", 1, LONG_AGO), (directory[2:] + "-only", 1, LONG_AGO)])

            alike, left_out = sorted(seen.compare(complete=True), reverse=True)

            assert left_out == SameKey("Images", "1/images/a", "1/Images/a")
            assert alike == SameKey("Images", "1/images/images-only", "1/Images/Images-only", only_alike=True)
            assert seen.work == Tally(3, 3)


def test_work_is_counted_and_paged(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db") as journal:
        ids = scans.modality_ids(journal, ["Images"])
        with Observation(journal, ids, begun_us=NOW) as seen:
            number = seen.directory("Images", "", patient=None, version=None, central="")
            seen.files("Images", number, [(f"{n}", 2, LONG_AGO) for n in range(12_000)])
            seen.compare(complete=True)
            seen.begin(versions.reopen(journal, "1", mode=JournalingMode.FULL, who=ME))

            pages = [len(page) for page in seen.candidates()]

    assert seen.work == Tally(12_000, 24_000)
    assert pages == [5_000, 5_000, 2_000]


def test_what_was_read_after_the_clock_was_set_back_is_read_again(tmp_path: Path) -> None:
    """By the clock of the scan it is of long ago; by that of the reading it is of just now."""
    tree = {"OMOP/x": File(b"one", LONG_AGO)}
    with Journal.create(tmp_path / "journal.db") as journal:
        ids = scans.modality_ids(journal, ("OMOP",))
        with Observation(journal, ids, begun_us=NOW) as seen:
            number = seen.directory("OMOP", "OMOP", patient=None, version=None, central=None)
            seen.files("OMOP", number, [("x", 3, LONG_AGO)])
            seen.compare(complete=True)
            seen.begin(versions.reopen(journal, "1", mode=JournalingMode.FULL, who=ME))
            seen.clock_says(LONG_AGO + 1)
            for page in seen.candidates():
                seen.apply([(candidate, read(tree, candidate)) for candidate in page])

        assert update(journal, tree, "2") == Counter(unchanged=1)


def test_many_files_of_one_content_under_other_names(tmp_path: Path) -> None:
    """Each is one of those that are gone, and to find that takes one step for each, not one for each pair of them."""
    before = {f"1/Images/{number}": File(b"same", LONG_AGO) for number in range(3_000)}
    after = {f"2/Images/{number}": File(b"same", LONG_AGO) for number in range(2_900)}
    with Journal.create(tmp_path / "journal.db") as journal:
        update(journal, before, "1")
        begun = time.process_time()

        assert update(journal, after, "2") == Counter(renamed=2_900, retired=100)

        assert time.process_time() - begun < 5
