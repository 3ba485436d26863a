"""After a conflict: what the refused journal has delivered comes into the cloud's, and nothing is made up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.errors import CheckinConflict, JournalError, JournalLocked, JournalNotCheckedOut
from chorus_upload.events import FilesMarked
from chorus_upload.operations import merging
from chorus_upload.operations.custody import checkin, checkout, lock_status, unlock
from chorus_upload.operations.local_files import moved_aside
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.upload import UploadRequest
from tests.operations.conftest import Site

FILES = 7


def merge(site: Site, other: Path | None = None) -> FilesMarked | None:
    """What `journal merge` does; None when there is nothing to merge."""
    emit = site.events.append
    refused = merging.find_refused(site.settings, other=other, local_journal=None, emit=emit)
    if not refused:
        return None
    with site.journal("journal merge") as journal:
        merged = merging.merge(journal, site.settings, refused, emit=emit)
    merging.settle(refused, merged, named=other, emit=emit)
    return merged.report


def elsewhere(site: Site, tmp_path: Path) -> Site:
    """A colleague's machine, for the same journal and the same files."""
    local = tmp_path / "other.db"
    return site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": local}))


def break_lock(site: Site) -> None:
    shown = lock_status(site.settings)
    assert shown
    unlock(site.settings, shown=shown, emit=site.events.append)


def ask(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(question).fetchall()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def aside(site: Site) -> Path:
    (found,) = moved_aside(site.local)
    return found


def deliveries_in(path: Path) -> Iterable[tuple[object, ...]]:
    return ask(
        path,
        "SELECT d.key, hex(d.md5), d.evidence, d.etag, d.delivered_us, d.seconds, s.begun_us, s.completed_us, s.user"
        " FROM delivery d JOIN submission s ON s.id = d.submission_id ORDER BY d.key",
    )


@pytest.fixture
def refused(site: Site, tmp_path: Path) -> Site:
    """A site that has uploaded everything under a lock that was broken, while a colleague has worked on."""
    site.update(UpdateRequest(version="spring"))
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.upload()
    break_lock(site)
    with elsewhere(site, tmp_path).journal("theirs"):
        pass
    with pytest.raises(CheckinConflict, match="another journal by now") as conflict:
        checkin(site.settings, local_journal=None, emit=site.events.append)
    assert "journal merge" in str(conflict.value.hint)
    return site


def test_a_refused_journal_is_merged_kept_and_in_nobodys_way(refused: Site) -> None:
    site = refused
    delivered = list(deliveries_in(site.local))
    objects = site.delivered()

    merged = merge(site)

    assert merged == FilesMarked(what="delivered", marked=FILES, refused={})
    assert deliveries_in(site.cloud) == delivered
    assert ask(site.cloud, "SELECT command FROM command") == [("journal update",), ("theirs",), ("journal merge",)]
    assert deliveries_in(aside(site)) == delivered
    assert lock_status(site.settings) is None
    # The upload goes on and sends nothing that is there already.
    upload = site.upload()
    assert (upload.delivered.files, upload.already_there.files, upload.remaining.files) == (0, 0, 0)
    assert site.delivered() == objects
    with pytest.raises(JournalNotCheckedOut):
        checkin(site.settings, local_journal=aside(site), emit=site.events.append)


def test_merging_again_changes_nothing(refused: Site) -> None:
    site = refused
    merge(site)
    before = deliveries_in(site.cloud)

    assert merge(site) is None
    again = merge(site, aside(site))

    assert again == FilesMarked(what="delivered", marked=0, refused={})
    assert deliveries_in(site.cloud) == before
    assert ask(site.cloud, "SELECT count(*) FROM submission") == [(1,)]


def test_a_merge_that_was_interrupted_is_repeated(refused: Site) -> None:
    """The refused journal has been moved aside, and then the power failed."""
    site = refused
    merging.find_refused(site.settings, other=None, local_journal=None, emit=site.events.append)
    assert not site.local.exists()

    merged = merge(site)

    assert merged
    assert merged.marked == FILES
    assert merge(site) is None


def test_a_cloud_journal_that_was_replaced_under_our_lock(site: Site, tmp_path: Path) -> None:
    """The lock is still ours, so nobody is asked to break it."""
    site.update(UpdateRequest(version="spring"))
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.upload()
    change(site.cloud, "UPDATE command SET seconds = 1")
    with pytest.raises(CheckinConflict, match="is not the journal"):
        checkin(site.settings, local_journal=None, emit=site.events.append)

    merged = merge(site)

    assert merged
    assert merged.marked == FILES
    assert lock_status(site.settings) is None
    assert site.upload().remaining.files == 0


def test_what_the_present_journal_does_not_have_is_named(refused: Site) -> None:
    site = refused
    change(
        site.cloud,
        "UPDATE file SET size = 1 WHERE name = 'person.csv'",
        "UPDATE file SET fingerprint = zeroblob(16) WHERE name = 'README.md'",
        "UPDATE file SET fingerprint = NULL WHERE directory_id = (SELECT id FROM directory WHERE path LIKE '1000%')",
        "UPDATE file SET name = 'z' WHERE directory_id = (SELECT id FROM directory WHERE path LIKE '1001%')",
    )

    merged = merge(site)

    assert merged
    assert merged.marked == FILES - 4
    assert {key: text.removeprefix("the present journal has ") for key, text in merged.refused.items()} == {
        "spring/OMOP/person.csv": "other content for it",
        "spring/Metadata/README.md": "other content for it",
        "spring/1000/Images/a.dcm": "not read this file yet",
        "spring/1001/Images/a.dcm": "the present journal does not have this file in that version",
    }


def test_a_version_that_only_the_refused_journal_has(refused: Site) -> None:
    """Recorded again under its label, it is merged, too."""
    site = refused
    site.write("1009/Images/a.dcm", "new")
    change(site.local, "UPDATE version SET label = 'summer'", "UPDATE delivery SET key = replace(key, 'spring', 'x')")
    merged = merge(site)
    assert merged
    assert set(merged.refused.values()) == {"the present journal does not have its version"}
    assert len(merged.refused) == FILES

    change(site.cloud, "UPDATE version SET label = 'summer'")
    merged = merge(site, aside(site))

    assert merged
    assert (merged.marked, merged.refused) == (FILES, {})


def test_content_is_compared_by_md5_where_there_is_no_fingerprint(refused: Site) -> None:
    """So it is in journals that came from the older tool."""
    site = refused
    md5s = ask(site.local, "SELECT f.id, hex(f.md5) FROM file f")
    change(
        site.cloud,
        "UPDATE file SET fingerprint = NULL",
        "UPDATE file SET md5 = zeroblob(16) WHERE id = 1",
        *(f"UPDATE file SET md5 = x'{md5}' WHERE id = {number}" for number, md5 in md5s if number != 1),  # noqa: S608
    )

    merged = merge(site)

    assert merged
    assert (merged.marked, len(merged.refused)) == (FILES - 1, 1)


def test_a_label_that_another_submission_has_gets_a_number(refused: Site) -> None:
    site = refused
    ((label, url),) = ask(
        site.local, "SELECT s.label, d.url FROM submission s JOIN destination d ON d.id = s.destination_id"
    )
    change(
        site.cloud,
        f"INSERT INTO destination (id, url) VALUES (5, '{url}')",  # noqa: S608
        f"INSERT INTO submission VALUES (9, '{label}', 5, 1, 2, 'laptop', 'ben', '1')",  # noqa: S608
    )

    merge(site)
    merge(site, aside(site))

    assert ask(site.cloud, "SELECT label FROM submission ORDER BY id") == [(label,), (f"{label}-2",)]
    assert len(list(deliveries_in(site.cloud))) == FILES


def test_both_went_on_with_a_submission_that_was_open(site: Site, tmp_path: Path) -> None:
    """Each has delivered something of it. It stays one submission, with the deliveries of both."""
    site.update(UpdateRequest(version="spring"))
    site.upload(UploadRequest(max_files=1))
    change(site.cloud, "UPDATE submission SET completed_us = NULL")
    colleague = elsewhere(site, tmp_path)
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.upload(UploadRequest(max_files=3))
    break_lock(site)
    colleague.upload(UploadRequest(max_files=2))

    merged = merge(site)

    assert merged
    # The colleague's run found two of ours in the store, and recorded them.
    assert (merged.marked, merged.refused) == (1, {})
    assert ask(site.cloud, "SELECT count(*) FROM submission") == [(1,)]
    assert ask(site.cloud, "SELECT count(*) FROM delivery") == [(4,)]


def test_nothing_is_moved_while_somebody_else_has_the_journal(refused: Site, tmp_path: Path) -> None:
    site = refused
    with elsewhere(site, tmp_path).journal("theirs"), pytest.raises(JournalLocked):
        merge(site)
    assert site.local.exists()


def test_a_journal_that_was_not_refused_is_left_alone(site: Site) -> None:
    site.update(UpdateRequest(version="spring"))
    assert merge(site) is None
    checkout(site.settings, local_journal=None, emit=site.events.append)
    assert merge(site) is None
    assert site.local_state() == "out"


def test_a_journal_of_another_cloud_is_not_merged(refused: Site, tmp_path: Path) -> None:
    site = refused
    other = tmp_path / "foreign.db"
    other.write_bytes(site.local.read_bytes())
    change(other, "UPDATE custody SET cloud = 'az://another/journal.db@account'")

    with pytest.raises(JournalError, match="another cloud journal"):
        merge(site.with_settings(journal=replace_local(site, tmp_path / "fresh.db")), other)
    with pytest.raises(JournalNotCheckedOut):
        merge(site, tmp_path / "nothing.db")


def replace_local(site: Site, local: Path) -> object:
    return site.settings.journal.model_copy(update={"local_path": local})


def test_the_refused_journal_may_be_given_by_its_name(refused: Site, tmp_path: Path) -> None:
    """From another machine, to which it was brought."""
    site = refused
    brought = tmp_path / "brought.db"
    brought.write_bytes(site.local.read_bytes())
    colleague = elsewhere(site, tmp_path)

    merged = merge(colleague, brought)

    assert merged
    assert merged.marked == FILES
    assert not list(tmp_path.glob("brought.db.2*"))
