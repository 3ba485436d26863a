"""The plan of an upload: what is sent first, and what the service may have already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import xxhash

from chorus_upload.events import Tally
from chorus_upload.journal import deliveries, planning, submissions
from chorus_upload.journal.deliveries import PendingFile, Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.planning import TWIN_BYTES
from chorus_upload.journal.who import Who
from chorus_upload.model import Delivered, Evidence, Transfer, Twin

HERE, ELSEWHERE = "az://c/data@here", "az://c/data@elsewhere"
ME = Who(host="here", user="me")


@dataclass
class Journaled:
    """A journal with files in one directory, entered by hand."""

    journal: Journal
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        with self.journal.transaction() as connection:
            connection.exec_driver_sql("INSERT INTO modality (id, name) VALUES (1, 'Images')")
            connection.exec_driver_sql("INSERT INTO directory (id, path) VALUES (1, 'Images')")
            connection.exec_driver_sql(
                "INSERT INTO version (id, label, mode, begun_us, host, user, tool_version)"
                " VALUES (1, 'spring', 'full', 0, 'here', 'me', '1')"
            )

    def enter(self, name: str, size: int, content: str | None = None, *, renamed_from: int | None = None) -> int:
        """Enter an active file; `content` stands for what is in it, None was not read. Its former row is retired."""
        file_id = next(self.ids)
        fingerprint = None if content is None else xxhash.xxh3_128_digest(content.encode())
        change = "added" if renamed_from is None else "renamed"
        with self.journal.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE file SET retired_by = 1, retirement = 'renamed' WHERE id = ?", (renamed_from,)
            )
            connection.exec_driver_sql(
                "INSERT INTO file (id, modality_id, directory_id, name, size, mtime_us, fingerprint, change,"
                " introduced_by, renamed_from) VALUES (?, 1, 1, ?, ?, 0, ?, ?, 1, ?)",
                (file_id, name, size, fingerprint, change, renamed_from),
            )
        return file_id

    def deliver(
        self,
        file_id: int,
        *,
        url: str = HERE,
        evidence: Evidence = Evidence.SERVER,
        etag: str | None = "etag",
        finish: bool = True,
    ) -> Twin:
        """Record a file as delivered; gives where it is."""
        transfer = Transfer(file_id, "Images", "", f"spring/{file_id}", size=0, mtime_us=0)
        done = Delivered(transfer, b"unknown content!", bytes(16), evidence, etag or "", at_us=0, seconds=0.0)
        submission = submissions.begin(self.journal, url=url, label="1", who=ME)
        deliveries.record(self.journal, submission, [done])
        with self.journal.transaction() as connection:
            connection.exec_driver_sql("UPDATE delivery SET etag = nullif(etag, '')")
        if finish:
            submissions.complete(self.journal, submission)
        return Twin(transfer.key, etag or "")

    def plan(self, limit: int | None = None, *, in_order: tuple[str, ...] = ()) -> Tally:
        return deliveries.plan(self.journal, url=HERE, selection=Selection(), limit=limit, in_order=in_order)

    def names(self, *, waiting: bool | None = None) -> list[str]:
        return [file.path.removeprefix("Images/") for file in self.files(waiting=waiting)]

    def files(self, *, waiting: bool | None = None) -> list[PendingFile]:
        return [file for page in deliveries.planned(self.journal, waiting=waiting) for file in page]

    def twins(self) -> dict[str, Twin]:
        """By name: where the destination has the content of a planned file."""
        sought = {file.twin_of: file.path.removeprefix("Images/") for file in self.files() if file.twin_of}
        to = deliveries.destination_id(self.journal, HERE)
        found = planning.twins(self.journal, destination=to, file_ids=list(sought))
        return {sought[file_id]: twin for file_id, twin in found.items()}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Journaled]:
    with Journal.create(tmp_path / "journal.db") as journal:
        yield Journaled(journal)


def test_what_is_read_from_a_tape_goes_in_the_order_of_the_journal(site: Journaled) -> None:
    for name, size in (("one", 10), ("two", 30), ("three", 20)):
        site.enter(name, size)

    site.plan(in_order=("Images",))

    assert site.names() == ["one", "two", "three"]

    site.plan(in_order=("Waveforms",))

    assert site.names() == ["two", "three", "one"]


def test_the_largest_go_first_and_what_can_be_copied_goes_last(site: Journaled) -> None:
    site.enter("small", 10, "s")
    site.enter("first of its content", 2 * TWIN_BYTES, "x")
    site.enter("second of its content", 2 * TWIN_BYTES, "x")
    site.enter("large", 3 * TWIN_BYTES, "y")
    site.enter("third of its content", 2 * TWIN_BYTES, "x")

    site.plan()

    assert site.names(waiting=False) == ["large", "first of its content", "small"]
    assert site.names(waiting=True) == ["second of its content", "third of its content"]
    assert site.names() == site.names(waiting=False) + site.names(waiting=True)
    assert {file.twin_of for file in site.files(waiting=True)} == {2}


def test_a_limited_plan_counts_in_the_order_of_sending(site: Journaled) -> None:
    for name in ("a", "b", "c"):
        site.enter(name, 2 * TWIN_BYTES, "x")
    site.enter("small", 10, "s")

    assert site.plan(limit=1) == Tally(1, 2 * TWIN_BYTES)
    assert site.plan(limit=2) == Tally(2, 2 * TWIN_BYTES + 10)
    assert site.plan(limit=3) == Tally(3, 4 * TWIN_BYTES + 10)
    assert site.plan() == Tally(4, 6 * TWIN_BYTES + 10)


def test_what_has_no_twins(site: Journaled) -> None:
    """Small files, files that were not read, and files of one fingerprint and two sizes."""
    for name in ("a", "b"):
        site.enter(f"small {name}", TWIN_BYTES - 1, "x")
        site.enter(f"unread {name}", TWIN_BYTES)
    site.enter("shorter", TWIN_BYTES, "y")
    site.enter("longer", TWIN_BYTES + 1, "y")

    site.plan()

    assert site.names(waiting=True) == []
    assert {file.twin_of for file in site.files()} == {None}


def test_a_renamed_file_is_where_it_was_delivered_to(site: Journaled) -> None:
    old = site.enter("old", TWIN_BYTES, "x")
    there = site.deliver(old)
    between = site.enter("between", TWIN_BYTES, "x", renamed_from=old)
    site.enter("new", TWIN_BYTES, "x", renamed_from=between)

    site.plan()

    assert site.names(waiting=False) == ["new"]
    assert site.twins() == {"new": there}


def test_a_renamed_file_that_is_small_is_sent(site: Journaled) -> None:
    old = site.enter("old", TWIN_BYTES - 1, "x")
    site.deliver(old)
    site.enter("new", TWIN_BYTES - 1, "x", renamed_from=old)

    site.plan()

    assert site.twins() == {}


@pytest.mark.parametrize(
    ("url", "evidence", "etag"),
    [
        (ELSEWHERE, Evidence.SERVER, "etag"),
        (HERE, Evidence.IMPORTED, "etag"),
        (HERE, Evidence.SIZE, "etag"),
        (HERE, Evidence.SERVER, None),
    ],
)
def test_what_is_not_proven_to_be_there_is_no_twin(
    site: Journaled, url: str, evidence: Evidence, etag: str | None
) -> None:
    old = site.enter("old", TWIN_BYTES, "x")
    site.deliver(old, url=url, evidence=evidence, etag=etag)
    site.enter("new", TWIN_BYTES, "x", renamed_from=old)

    site.plan()

    assert site.names(waiting=False) == ["new"]
    assert site.twins() == {}


def test_a_renamed_file_and_others_of_its_content(site: Journaled) -> None:
    """It need not wait for them."""
    old = site.enter("old", TWIN_BYTES, "x")
    there = site.deliver(old)
    site.enter("a", TWIN_BYTES, "x")
    site.enter("renamed", TWIN_BYTES, "x", renamed_from=old)
    site.enter("b", TWIN_BYTES, "x")

    site.plan()

    assert (site.names(waiting=False), site.names(waiting=True)) == (["a", "renamed"], ["b"])
    assert site.twins() == {"renamed": there}


def test_a_twin_is_known_as_soon_as_it_is_delivered(site: Journaled) -> None:
    first = site.enter("first", TWIN_BYTES, "x")
    site.enter("second", TWIN_BYTES, "x")

    site.plan()
    before = site.twins()
    there = site.deliver(first, finish=False)

    assert (before, site.twins()) == ({}, {"second": there})


def test_an_interrupted_submission_goes_on_with_what_it_sent(site: Journaled) -> None:
    first = site.enter("first", TWIN_BYTES, "x")
    for name in ("second", "third"):
        site.enter(name, TWIN_BYTES, "x")
    there = site.deliver(first, finish=False)

    site.plan()

    assert (site.names(waiting=False), site.names(waiting=True)) == (["second", "third"], [])
    assert {file.twin_of for file in site.files()} == {first}
    assert set(site.twins().values()) == {there}


def test_another_submission_begins_anew(site: Journaled) -> None:
    """Content is looked for within a submission: what all earlier ones sent would be too much to search."""
    site.deliver(site.enter("first", TWIN_BYTES, "x"))
    site.enter("second", TWIN_BYTES, "x")

    site.plan()

    assert {file.twin_of for file in site.files()} == {None}
