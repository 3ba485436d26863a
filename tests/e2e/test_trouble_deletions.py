"""Files that are not there any more: deleted, or behind a share that is not mounted? The dangerous question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clouds import LOCK, Disk, ask, files_of, tables_of
from tests.e2e.conftest import Prepared, settle
from tests.e2e.site import LIKE_ANYBODY, Ran, Site
from tests.trees import Bytes, build, forbidden, remove, rename

IMAGES = {f"{patient}/Images/{number}.dcm": Bytes(40) for patient in (1001, 1002) for number in range(5)}
TREE = IMAGES | {"OMOP/person.csv": "person_id\n"}

HISTORY = ("command",)
"""That the command was given is recorded in any case."""


def active(site: Site) -> set[str]:
    """The files that the journal holds to be there."""
    paths = "SELECT d.path || '/' || f.name FROM file f JOIN directory d ON d.id = f.directory_id"
    return {row[0] for row in ask(site.journal, f"{paths} WHERE retired_by IS NULL")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    commands = (("journal", "update", "--version", "spring"), ("file", "upload"))
    return Prepared.after(tmp_path_factory.mktemp("prepared"), TREE, commands)


@pytest.fixture
def uploaded(prepared: Prepared) -> Site:
    """A site that has journaled and sent `TREE`."""
    return prepared.restore()


def refused(site: Site, *arguments: str) -> Ran:
    """An update that is refused, records nothing and leaves the journal to others."""
    before = tables_of(site.journal, without=HISTORY)
    update = site.run("journal", "update", *arguments, exit_code=5)
    assert tables_of(site.journal, without=HISTORY) == before
    assert LOCK not in site.cloud.objects()
    return update


def test_three_files_of_ten_are_gone(uploaded: Site) -> None:
    site, sent = uploaded, files_of(uploaded.cloud.objects())
    gone = {"1001/Images/0.dcm", "1001/Images/1.dcm", "1002/Images/4.dcm"}
    for path in gone:
        remove(site.source / path)

    update = refused(site)
    assert "Images: 3 of 10 active files are gone (30%)" in update.err
    assert "--confirm-deletions" in update.err
    assert active(site) == set(TREE)

    confirmed = site.run("--json", "journal", "update", "--confirm-deletions").event("update-finished")
    assert confirmed["modalities"]["Images"]["retired"]["files"] == 3
    assert active(site) == TREE.keys() - gone
    # Nothing is ever removed from the central store.
    assert files_of(site.cloud.objects()) == sent
    site.run("file", "verify")


def test_one_file_in_five_may_go_without_a_word(uploaded: Site) -> None:
    site = uploaded
    remove(site.source / "1001/Images/0.dcm")
    remove(site.source / "1002/Images/0.dcm")

    site.run("journal", "update")

    assert active(site) == TREE.keys() - {"1001/Images/0.dcm", "1002/Images/0.dcm"}


def test_a_source_that_is_not_mounted(uploaded: Site) -> None:
    site = uploaded
    elsewhere = site.source.rename(site.source.with_name("unmounted"))
    assert f"the source {site.source} cannot be listed" in refused(site).err

    site.source.mkdir()
    assert "Images: no file at all was found" in refused(site).err

    site.source.rmdir()
    elsewhere.rename(site.source)
    site.run("journal", "update")
    assert active(site) == set(TREE)
    assert site.pending() == set()


def test_one_modality_of_an_empty_source_can_be_confirmed(uploaded: Site) -> None:
    site = uploaded
    remove(site.source)
    site.source.mkdir()

    site.run("journal", "update", "--confirm-deletions", "--modalities", "OMOP")

    assert active(site) == set(IMAGES)
    assert "Images: no file at all" in refused(site).err


def test_a_patient_whose_directory_got_another_name(uploaded: Site) -> None:
    """Five files of ten have other names, and not one has been lost: that is no reason to refuse."""
    site = uploaded
    rename(site.source, "1002", "2002")

    update = site.run("--json", "journal", "update", "--version", "summer").event("update-finished")

    assert update["modalities"]["Images"]["renamed"]["files"] == 5
    site.run("file", "upload")
    assert {key for key in files_of(site.cloud.objects()) if key.startswith("summer/")} == {
        f"summer/2002/Images/{number}.dcm" for number in range(5)
    }


def test_nothing_below_an_unreadable_directory_is_retired(uploaded: Site) -> None:
    """And what is gone for certain is, although the listing of its neighbour failed."""
    site = uploaded
    build(site.source, {"1003/Images/new.dcm": Bytes(40)})
    remove(site.source / "1002/Images/0.dcm")

    with forbidden(site.source / "1001" / "Images"):
        update = site.run("--json", "journal", "update", "--version", "summer", exit_code=3, program=LIKE_ANYBODY)

    problem = update.event("problem-found")["problem"]
    assert (problem["kind"], problem["path"]) == ("unreadable-directory", "1001/Images")
    assert active(site) == (TREE.keys() | {"1003/Images/new.dcm"}) - {"1002/Images/0.dcm"}
    assert site.pending() == {"1003/Images/new.dcm"}

    site.run("journal", "update")
    assert site.pending() == {"1003/Images/new.dcm"}


def test_an_unreadable_source(uploaded: Site) -> None:
    site = uploaded
    with forbidden(site.source):
        update = site.run("journal", "update", exit_code=5, program=LIKE_ANYBODY)
    assert "Permission denied" in update.err
    assert active(site) == set(TREE)


def test_in_append_mode_files_are_retired_by_name_only(tmp_path: Path, disk: Disk) -> None:
    """The source holds what is new, and its files go when they have been sent."""
    site = settle(tmp_path / "home", tmp_path / "source", disk, mode="append")
    build(site.source, IMAGES)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")

    remove(site.source)
    build(site.source, {"1003/Images/0.dcm": Bytes(50), "1001/Images/0.dcm": Bytes(40, edition=2)})
    site.run("journal", "update", "--version", "summer")
    assert active(site) == IMAGES.keys() | {"1003/Images/0.dcm"}
    assert site.pending() == {"1003/Images/0.dcm", "1001/Images/0.dcm"}
    site.run("file", "upload")
    remove(site.source)
    site.source.mkdir()
    site.run("journal", "update", "--version", "autumn")
    assert active(site) == IMAGES.keys() | {"1003/Images/0.dcm"}

    gone = tmp_path / "gone.txt"
    gone.write_bytes(b"1001/Images/1.dcm\n1001/Images/2.dcm\nno such file\n")
    marked = site.run("file", "mark_as_deleted", "--file-list", str(gone), exit_code=3)

    assert "no such file" in marked.out
    assert active(site) == (IMAGES.keys() | {"1003/Images/0.dcm"}) - {"1001/Images/1.dcm", "1001/Images/2.dcm"}
    retired_by = "SELECT DISTINCT v.label, retirement FROM file f JOIN version v ON v.id = retired_by ORDER BY 1"
    assert ask(site.journal, retired_by) == [("autumn", "marked"), ("summer", "modified")]
    assert len(files_of(disk.objects())) == len(IMAGES) + 2
