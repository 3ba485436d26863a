"""A directory that is a store is known by its mark: below the place of one that is not mounted nothing is written."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.clouds import Disk, ask, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.trees import MARK, Content, build, contents

TREE: dict[str, Content] = {
    "OMOP/person.csv": "person_id\n1\n",
    "1001/Images/a.dcm": b"image",
    "Metadata/README.md": "about",
}


LEGACY = Path(__file__).parents[1] / "data" / "legacy" / "journal-v2.db"


@pytest.fixture
def delivered(tmp_path: Path, disk: Disk) -> Site:
    """A site that has sent all that it had, and has something new."""
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    build(site.source, {"OMOP/new.csv": "new"})
    site.run("journal", "update", "--version", "summer")
    return site


def central(tmp_path: Path) -> Path:
    return tmp_path / "cloud" / "data"


def unmount(tmp_path: Path) -> Path:
    """Leave an empty directory where the store was, as an unmounted share does; gives where the share is."""
    share = central(tmp_path).rename(tmp_path / "share")
    central(tmp_path).mkdir()
    return share


def mount(share: Path, tmp_path: Path) -> None:
    central(tmp_path).rmdir()
    share.rename(central(tmp_path))


def forget_mark(tmp_path: Path) -> None:
    """As a release without marks left it: neither the store nor the journal has one."""
    (central(tmp_path) / MARK).unlink()
    for journal in (tmp_path / "cloud" / "journal" / "journal.db", tmp_path / "home" / "journal.db"):
        with closing(sqlite3.connect(journal)) as database:
            database.execute("UPDATE destination SET mark = NULL")
            database.commit()


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_the_mark_is_made_at_the_first_use_and_nobody_sees_it(tmp_path: Path, delivered: Site) -> None:
    assert (central(tmp_path) / MARK).is_file()
    delivered.run("file", "upload")

    for command in (
        "remote list",
        "remote list -r",
        "remote list --long",
        "file verify",
        "file verify --version spring",
    ):
        ran = delivered.run(*command.split())
        assert "chorus-upload-store" not in ran.out + ran.err, command
    delivered.run("file", "download", "--to", str(tmp_path / "back"))
    delivered.run("remote", "download", "-r", "*", f"{tmp_path / 'all'}/")
    assert contents(tmp_path / "back") == contents(delivered.source)
    assert not list((tmp_path / "back").rglob(MARK))
    assert not list((tmp_path / "all").rglob(MARK))
    delivered.run("remote", "delete", "-r", "--yes", "spring")
    assert {path.partition("/")[0] for path in everything(central(tmp_path))} == {MARK, "summer"}


@pytest.mark.parametrize(
    "command",
    ["file upload", "file verify", "file download", "file mark-as-uploaded-central --upload-datetime 20260101"],
)
def test_a_store_that_is_not_mounted(tmp_path: Path, delivered: Site, command: str, figures: Figures) -> None:
    share = unmount(tmp_path)
    typed = [*command.split()[:-1], "20260101000000"] if "mark" in command else command.split()

    refused = delivered.run(*typed, exit_code=7)

    assert f"{central(tmp_path)} is not the directory that the journal knows" in refused.err
    assert "3 files were delivered: it has no mark. It is probably on a share that is not mounted" in refused.err
    assert "Mount it, and repeat the command" in refused.err
    assert "--same-destination" in refused.err
    assert everything(central(tmp_path)) == set()

    mount(share, tmp_path)
    delivered.run("file", "upload")
    delivered.run("file", "verify")
    figures.count("commands refused")


@pytest.mark.parametrize("machine", ["the same", "another"])
def test_what_needs_no_journal_does_not_work_below_an_unmounted_store_either(
    tmp_path: Path, delivered: Site, machine: str, figures: Figures
) -> None:
    """A machine that has no journal of its own looks into that of the cloud."""
    unmount(tmp_path)
    build(delivered.home, {"note.txt": "hello"})
    if machine == "another":
        for path in delivered.home.glob("journal.db*"):
            path.unlink()

    for command in ("remote upload note.txt notes/", "remote delete --yes notes/note.txt"):
        assert "it has no mark" in delivered.run(*command.split(), exit_code=7).err
        figures.count("commands refused")
    for command in ("config check", "config check --online"):
        (told,) = [line for line in delivered.run(*command.split(), exit_code=2).out.splitlines() if "no mark" in line]
        assert told.startswith("error")
        assert "Mount it" in told

    assert everything(central(tmp_path)) == set()


@pytest.mark.parametrize("content", [b"no journal", b"", LEGACY.read_bytes()], ids=["damaged", "empty", "older"])
def test_a_journal_that_cannot_be_read_knows_no_mark(tmp_path: Path, delivered: Site, content: bytes) -> None:
    """What needs no journal works beside one of the older tool, and says that there is no mark."""
    (central(tmp_path) / MARK).unlink()
    for journal in (tmp_path / "cloud" / "journal" / "journal.db", delivered.home / "journal.db"):
        journal.write_bytes(content)
    build(delivered.home, {"note.txt": "hello"})

    said = delivered.run("remote", "upload", "note.txt", "notes/").err

    assert "has no mark of a central store" in said
    assert (central(tmp_path) / "notes/note.txt").read_text() == "hello"
    delivered.run("config", "check")


def test_a_note_for_a_directory_that_nobody_knows(tmp_path: Path, delivered: Site) -> None:
    """It is sent; that there is no mark is said, since its share may not be mounted."""
    nobody_s = tmp_path / "elsewhere"
    nobody_s.mkdir()
    delivered.configure(delivered.config.read_text().replace(str(central(tmp_path)), str(nobody_s)))
    build(delivered.home, {"note.txt": "hello"})

    said = delivered.run("remote", "upload", "note.txt", "notes/").err

    assert f"warning: {nobody_s} has no mark of a central store" in said
    assert (nobody_s / "notes/note.txt").read_text() == "hello"


def test_a_directory_that_is_missing(tmp_path: Path, delivered: Site, figures: Figures) -> None:
    central(tmp_path).rename(tmp_path / "share")

    refused = delivered.run("file", "upload", exit_code=7)

    assert "is not the directory that the journal knows" in refused.err
    assert "there is no such directory" in refused.err
    assert "Mount it" in refused.err
    assert not central(tmp_path).exists()
    figures.count("commands refused")


def test_the_store_of_somebody_else_is_mounted_there(tmp_path: Path, delivered: Site, figures: Figures) -> None:
    unmount(tmp_path)
    mark = '{"id": "0123456789abcdef0123456789abcdef"}'
    build(central(tmp_path), {MARK: mark, "theirs.csv": "1"})

    assert "it has another one's mark" in delivered.run("file", "upload", exit_code=7).err

    assert everything(central(tmp_path)) == {MARK, "theirs.csv"}
    figures.count("commands refused")


@pytest.mark.parametrize("text", ["", "{}", '{"id": 7}', '{"id": "../x"}', "[" * 100_000, "\xff"])
def test_a_mark_that_is_none(tmp_path: Path, delivered: Site, text: str, figures: Figures) -> None:
    (central(tmp_path) / MARK).write_text(text)

    refused = delivered.run("file", "upload", exit_code=20)

    assert f"{MARK} is not what chorus-upload wrote there" in refused.err
    assert (central(tmp_path) / MARK).read_text() == text
    figures.count("commands refused")


# --- what a person says ----------------------------------------------------------------------------------------------


def test_it_is_the_same_store_and_has_lost_its_mark(tmp_path: Path, delivered: Site) -> None:
    before = (central(tmp_path) / MARK).read_bytes()
    (central(tmp_path) / MARK).unlink()
    delivered.run("file", "verify", exit_code=7)
    delivered.run("file", "verify", "--same-destination")
    assert not (central(tmp_path) / MARK).exists()

    told = delivered.run("--json", "file", "upload", "--same-destination").event("upload-finished")

    assert told["delivered"]["files"] == 1
    assert (central(tmp_path) / MARK).read_bytes() == before
    delivered.run("file", "verify")


def test_it_is_another_store_to_which_all_is_sent(tmp_path: Path, delivered: Site) -> None:
    share = unmount(tmp_path)

    told = delivered.run("--json", "file", "upload", "--new-destination").event("upload-finished")

    assert told["delivered"]["files"] == 4
    assert (central(tmp_path) / MARK).read_bytes() != (share / MARK).read_bytes()
    delivered.run("file", "verify")
    # What went to the former one is recorded still, and counts when that is there again.
    shutil.rmtree(central(tmp_path))
    share.rename(central(tmp_path))
    assert "another one's mark" in delivered.run("file", "upload", exit_code=7).err


def test_a_store_that_is_mounted_elsewhere(tmp_path: Path, delivered: Site, figures: Figures) -> None:
    elsewhere = central(tmp_path).rename(tmp_path / "elsewhere")
    delivered.configure(delivered.config.read_text().replace(str(central(tmp_path)), str(elsewhere)))

    refused = delivered.run("file", "upload", exit_code=7)

    assert f"3 files were delivered to {central(tmp_path)}, and the configuration says {elsewhere}" in refused.err
    told = delivered.run("--json", "file", "upload", "--same-destination").event("upload-finished")
    assert told["delivered"]["files"] == 1
    journal = tmp_path / "cloud" / "journal" / "journal.db"
    assert ask(journal, "SELECT url FROM destination") == [(str(elsewhere),)]
    delivered.run("file", "verify")
    figures.count("commands refused")


# --- stores without a mark -------------------------------------------------------------------------------------------


def test_a_store_of_an_earlier_release_gets_its_mark_when_deliveries_are_found_in_it(
    tmp_path: Path, delivered: Site
) -> None:
    forget_mark(tmp_path)
    delivered.run("file", "verify")
    assert not (central(tmp_path) / MARK).exists(), "who only looks writes nothing"

    told = delivered.run("--json", "file", "upload").event("upload-finished")

    assert told["delivered"]["files"] == 1
    assert (central(tmp_path) / MARK).is_file()
    journal = tmp_path / "cloud" / "journal" / "journal.db"
    ((mark,),) = ask(journal, "SELECT mark FROM destination")
    assert mark in (central(tmp_path) / MARK).read_text()


@pytest.mark.parametrize("there", [{}, {"spring/OMOP/person.csv": "of another size"}, {"theirs.csv": "1"}])
def test_without_a_mark_and_without_the_deliveries_nothing_is_written(
    tmp_path: Path, delivered: Site, there: dict[str, str], figures: Figures
) -> None:
    forget_mark(tmp_path)
    share = unmount(tmp_path)
    build(central(tmp_path), there)
    before = everything(central(tmp_path))

    refused = delivered.run("file", "upload", exit_code=7)

    assert "of these, none that was looked for is in it" in refused.err
    assert everything(central(tmp_path)) == before

    shutil.rmtree(central(tmp_path))
    share.rename(central(tmp_path))
    delivered.run("file", "upload")
    assert files_of(contents(tmp_path / "cloud")).keys() == {f"spring/{path}" for path in TREE} | {
        "summer/OMOP/new.csv"
    }
    figures.count("commands refused")


def test_a_journal_that_was_restored_from_a_backup_knows_the_store_again(tmp_path: Path, delivered: Site) -> None:
    """The mark is there, and the journal that is taken is older than it."""
    for journal in (tmp_path / "cloud" / "journal" / "journal.db", tmp_path / "home" / "journal.db"):
        with closing(sqlite3.connect(journal)) as database:
            database.execute("UPDATE destination SET mark = NULL")
            database.commit()
    before = (central(tmp_path) / MARK).read_bytes()

    delivered.run("file", "upload")

    assert (central(tmp_path) / MARK).read_bytes() == before


# --- the journal's directory -----------------------------------------------------------------------------------------


def test_the_directory_of_the_journal_is_not_mounted(tmp_path: Path, delivered: Site, figures: Figures) -> None:
    """No empty journal is begun, and no lock is left, below its place."""
    place = tmp_path / "cloud" / "journal"
    share = place.rename(tmp_path / "share")
    place.mkdir()

    for command in ("journal update", "file upload", "file list", "journal checkout"):
        refused = delivered.run(*command.split(), exit_code=14)
        assert f"there is no journal at {place / 'journal.db'}" in refused.err, command
    assert "Is the share mounted" in delivered.run("journal", "update", exit_code=14).err
    assert everything(place) == set()

    place.rmdir()
    share.rename(place)
    delivered.run("file", "upload")
    figures.count("commands refused", 5)


def test_the_directory_of_a_journal_that_is_checked_out_is_not_mounted(
    tmp_path: Path, delivered: Site, figures: Figures
) -> None:
    delivered.run("journal", "checkout")
    place = tmp_path / "cloud" / "journal"
    share = place.rename(tmp_path / "share")
    place.mkdir()

    for command in ("file upload", "journal checkin"):
        refused = delivered.run(*command.split(), exit_code=14)
        assert f"there is no journal at {place / 'journal.db'}" in refused.err, command
        assert "Is the share mounted" in refused.err, command
        assert everything(place) == set()

    place.rmdir()
    share.rename(place)
    delivered.run("file", "upload")
    delivered.run("journal", "checkin")
    figures.count("commands refused", 2)
