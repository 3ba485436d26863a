"""`journal merge` only reads what it merges, wherever that lies, and forgets nothing that it could not take over."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.errors import CheckinConflict
from chorus_upload.events import FilesMarked, Notice
from chorus_upload.operations import merging
from chorus_upload.operations.custody import checkin, checkout, lock_status
from chorus_upload.operations.local_files import moved_aside
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.verify import VerifyRequest, verify
from tests.faults.figures import Figures
from tests.operations.conftest import Site, new_site
from tests.operations.test_merge import change, merge


def states(directory: Path) -> dict[str, str]:
    """What is in a directory, by name and content."""
    return {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in directory.iterdir()
        if path.is_file()
    }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = new_site(tmp_path)
    made.update(UpdateRequest(version="spring"))
    made.upload()
    return made


def test_the_copy_in_a_version_folder_is_not_touched(site: Site, figures: Figures) -> None:
    folder = site.central / "spring"
    before, times = states(folder), {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    merged = merge(site, folder / "journal.db")

    assert merged == FilesMarked(what="delivered", marked=0, refused={})
    assert states(folder) == before
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    with site.journal() as journal:
        found = verify(journal, site.settings, VerifyRequest(), emit=site.events.append)
    assert found.is_good
    figures.count("journals merged")


def test_a_folder_that_cannot_be_written_to_is_enough(site: Site, tmp_path: Path, figures: Figures) -> None:
    """A colleague's medium. Nothing appears beside the file, not even for a moment."""
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / "theirs.db").write_bytes(site.cloud.read_bytes())
    with closing(sqlite3.connect(medium / "theirs.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
    before = states(medium)
    medium.chmod(0o500)
    entered = medium.stat().st_mtime_ns
    try:
        assert merge(site, medium / "theirs.db") == FilesMarked(what="delivered", marked=0, refused={})
    finally:
        medium.chmod(0o700)

    assert states(medium) == before
    assert medium.stat().st_mtime_ns == entered
    figures.count("journals merged")


def test_the_cloud_journal_itself_stays_the_one_that_was_checked_out(site: Site, figures: Figures) -> None:
    merged = merge(site, site.cloud)

    assert merged == FilesMarked(what="delivered", marked=0, refused={})
    assert lock_status(site.settings) is None
    assert site.local_state() == "in"
    figures.count("journals merged")


def test_what_was_not_taken_over_is_offered_again(site: Site, figures: Figures) -> None:
    """The version that is missing is recorded in the present journal later on."""
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.write("OMOP/person.csv", "person_id\n1\n2\n")
    site.update(UpdateRequest(version="summer"))
    site.upload()
    change(site.cloud, "UPDATE command SET seconds = 1")
    with pytest.raises(CheckinConflict):
        checkin(site.settings, local_journal=None, emit=site.events.append)

    first = merge(site)
    told = [event.text for event in site.events if isinstance(event, Notice)]
    again = merge(site)

    assert first
    assert first.refused == {"summer/OMOP/person.csv": "the present journal does not have its version"}
    assert again
    assert again.refused == first.refused
    (aside,) = moved_aside(site.local)
    assert f"{aside} is kept: not all that it delivered is in the present journal" in told[-1]
    assert "`journal merge`" in told[-1]
    assert not [text for text in told if "not needed any more" in text]

    site.update(UpdateRequest(version="summer"))
    last = merge(site)

    assert last == FilesMarked(what="delivered", marked=1, refused={})
    assert "not needed any more" in [event.text for event in site.events if isinstance(event, Notice)][-1]
    assert merge(site) is None
    assert site.upload().delivered.files == 0
    figures.count("journals merged", 3)


def test_a_journal_that_was_named_is_not_even_marked_as_merged(site: Site, figures: Figures) -> None:
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.write("OMOP/person.csv", "person_id\n1\n2\n")
    site.update(UpdateRequest(version="spring"))
    site.upload()
    change(site.cloud, "UPDATE command SET seconds = 1")
    merging.find_refused(site.settings, other=None, local_journal=None, emit=site.events.append)
    (aside,) = moved_aside(site.local)
    before = aside.read_bytes()

    assert merge(site, aside)

    assert aside.read_bytes() == before
    assert not aside.with_name(f"{aside.name}.writer").exists()
    assert moved_aside(site.local) == [aside]
    figures.count("journals merged")
