"""Journals that this program cannot work with, or must not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.clouds import JOURNAL, LOCK, Disk, ask, files_of, tables_of
from tests.e2e.conftest import Prepared, settle
from tests.e2e.site import LIKE_ANYBODY, Site, wait_until
from tests.trees import Bytes, build, forbidden

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
TREE = {f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1005)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared.after(tmp_path_factory.mktemp("prepared"), TREE, [("journal", "update", "--version", "spring")])


@pytest.fixture
def journaled(prepared: Prepared) -> Site:
    """A site that has journaled its files."""
    return prepared.restore()


def _as_of_a_newer_tool(journal: Path) -> bytes:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return journal.read_bytes()


def test_the_journal_of_a_newer_tool(journaled: Site) -> None:
    site = journaled
    newer = _as_of_a_newer_tool(site.journal)
    site.journal.unlink()
    site.cloud.put(JOURNAL, newer)

    for command in (("journal", "checkout"), ("file", "list")):
        refused = site.run(*command, exit_code=13)
        assert "the journal has schema 9999" in refused.err
        assert "hint: Install" in refused.err

    assert site.cloud.objects() == {JOURNAL: newer}


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_the_journal_of_an_older_tool(generation: str, site: Site, disk: Disk) -> None:
    old = (LEGACY / f"journal-{generation}.db").read_bytes()
    build(site.source, TREE)
    disk.put(JOURNAL, old)

    refused = site.run("journal", "update", exit_code=14)

    assert "was written by an older chorus-upload" in refused.err
    assert "hint: " in refused.err

    assert disk.objects() == {JOURNAL: old}


def _recipes(directory: Path) -> bytes:
    with closing(sqlite3.connect(directory / "recipes.db")) as connection:
        connection.execute("CREATE TABLE recipe (name TEXT)")
    return (directory / "recipes.db").read_bytes()


@pytest.mark.parametrize("damage", ["text", "torn", "empty", "other"])
def test_a_cloud_journal_that_is_none(damage: str, journaled: Site, tmp_path: Path) -> None:
    """It is refused, left as it is, and not locked: whoever has a good copy can put that there."""
    site, good = journaled, journaled.cloud.objects()[JOURNAL]
    damaged = {
        "text": b"<html>Please log in</html>",
        "torn": good[: len(good) // 2],
        "empty": b"",
        "other": _recipes(tmp_path),
    }[damage]
    site.cloud.put(JOURNAL, damaged)

    site.run("journal", "update", exit_code=14)

    assert site.cloud.objects() == {JOURNAL: damaged}


def test_a_damaged_cloud_journal_does_not_take_the_local_copy_with_it(journaled: Site) -> None:
    """That copy may be the last good one. And when the cloud's is good again, everything works again."""
    site = journaled
    good, local = site.cloud.objects()[JOURNAL], tables_of(site.journal)
    site.cloud.put(JOURNAL, good[: len(good) // 2])
    site.run("journal", "update", exit_code=14)

    kept = [tables_of(path) for path in site.home.glob("journal.db*") if path.stat().st_size > len(good) // 2]

    assert local in kept
    site.cloud.put(JOURNAL, good)
    assert site.pending() == set(TREE)


def test_a_local_journal_that_was_damaged_while_it_was_checked_out(journaled: Site) -> None:
    """It does not replace the good one in the cloud."""
    site = journaled
    site.run("journal", "checkout")
    before = site.cloud.objects()
    content = bytearray(site.journal.read_bytes())
    content[8_192:16_384] = bytes(8_192)
    site.journal.write_bytes(content)

    site.run("journal", "checkin", exit_code=14)

    assert site.cloud.objects() == before

    site.journal.unlink()
    site.run("journal", "unlock", "--yes")
    assert LOCK not in site.cloud.objects()
    assert site.pending() == set(TREE)


def test_two_machines_after_a_broken_lock(journaled: Site, tmp_path: Path) -> None:
    """Both have worked. The one that comes second is refused, and its deliveries are taken over."""
    here = journaled
    there = settle(tmp_path / "there", here.source, here.cloud)
    here.run("journal", "checkout")
    here.run("file", "upload", "--max-num-files", "3")
    there.run("journal", "unlock", "--yes")
    there.run("file", "upload", "--max-num-files", "1")
    stored = files_of(here.cloud.objects())

    refused = here.run("journal", "checkin", exit_code=12)
    assert "hint: Nothing is lost: " in refused.err
    for command in (("journal", "update"), ("file", "upload")):
        here.run(*command, exit_code=12)
    merged = here.run("journal", "merge")

    assert "2 files marked as delivered" in merged.out
    assert "2 taken over, 1 known already, 0 not taken over" in merged.err
    upload = here.run("--json", "file", "upload").event("upload-finished")
    assert (upload["delivered"]["files"], upload["already_there"]["files"]) == (1, 0)
    assert files_of(here.cloud.objects()).items() > stored.items()
    here.run("file", "verify", "--version", "spring")
    assert "nothing to merge" in here.run("journal", "merge").err
    assert there.run("--json", "file", "upload").event("upload-finished")["remaining"]["files"] == 0


def test_two_commands_at_once_in_one_place(journaled: Site, tmp_path: Path) -> None:
    """The second is refused at once. Looking is allowed. When the first is killed, nothing is in the way."""
    site = journaled
    site.run("journal", "checkout")
    with site.on_slow_share(60, notes=tmp_path / "notes").running("file", "upload") as upload:
        wait_until((tmp_path / "notes").exists)
        refused = site.run("journal", "update", exit_code=10)
        assert f"is in use by process {upload.pid}" in refused.err
        assert site.pending() == set(TREE)
    site.run("file", "upload")
    assert site.pending() == set()


def test_marks_on_a_journal_that_is_not_checked_out_are_not_lost_in_silence(journaled: Site) -> None:
    """The next command would fetch the cloud's journal over it: either that knows better, or the marking is refused."""
    site = journaled
    site.cloud.put("data/spring/1001/Images/scan.dcm", (site.source / "1001/Images/scan.dcm").read_bytes())

    marked = site.run(
        *("file", "mark-as-uploaded-local", "--upload-datetime", "20260302101500"),
        *("--file", "1001/Images/scan.dcm"),
        exit_code=None,
    )

    assert marked.exit_code == 11 or "1001/Images/scan.dcm" not in site.pending()


def test_a_place_for_the_local_journal_that_cannot_be_written(site: Site, disk: Disk) -> None:
    build(site.source, TREE)
    with forbidden(site.home, leaving=0o555):
        refused = site.run("journal", "update", exit_code=14, program=LIKE_ANYBODY)
    assert str(site.home) in refused.err
    assert "Permission denied" in refused.err
    assert disk.objects() == {}


def test_a_version_that_the_journal_does_not_have(journaled: Site) -> None:
    """A misspelled label is told from a version of which nothing is left to do."""
    for command in (("file", "upload"), ("file", "list"), ("file", "verify"), ("journal", "list")):
        refused = journaled.run(*command, "--version", "sprung", exit_code=2)
        assert "sprung" in refused.err


def test_a_journal_at_a_mistyped_address_does_not_pass_for_one_whose_files_have_arrived(journaled: Site) -> None:
    """A command that writes makes the journal that is not there: a job at night must not end well with that."""
    site = journaled
    site.configure(site.config.read_text().replace(JOURNAL, "journal/jounral.db"))
    before = files_of(site.cloud.objects())

    for command in (("file", "upload"), ("file", "upload", "--dry-run"), ("file", "verify"), ("file", "list")):
        refused = site.run(*command, exit_code=2)
        assert "there is no version in the journal yet" in refused.err
        assert "not the journal that you mean" in refused.err

    assert files_of(site.cloud.objects()) == before
    site.configure(site.config.read_text().replace("jounral", "journal"))
    site.run("file", "upload")
    assert len(files_of(site.cloud.objects())) == len(TREE)


def test_the_history_names_every_command_and_no_credential(journaled: Site) -> None:
    site = journaled
    site.run("file", "upload", "--max-num-files", "2")
    site.run("file", "mark_as_deleted", "--file", "nothing", exit_code=3)

    told = site.run("--json", "history").events("command")

    assert [(each["command"], each["exit_code"]) for each in told] == [
        ("journal update", 0),
        ("file upload", 0),
        ("file mark-as-deleted", 3),
    ]
    assert json.loads(told[1]["arguments"]) == {"max-num-files": "2"}
    assert ask(site.journal, "SELECT count(*) FROM command WHERE seconds IS NULL") == [(0,)]


def test_a_copy_with_a_damaged_index_does_not_replace_the_journal_of_the_cloud(journaled: Site) -> None:
    """A copy of it would be sound again, and nobody knows what else the disk has forgotten."""
    site = journaled
    before = site.cloud.objects()[JOURNAL]
    with closing(sqlite3.connect(site.journal)) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'uq_file_active'")
        ((size,),) = connection.execute("PRAGMA page_size")
    content = bytearray(site.journal.read_bytes())
    # Where its first cell is said to be: outside of the page.
    content[(page - 1) * size + 8] = 0xFF
    site.journal.write_bytes(content)

    refused = site.run("journal", "update", exit_code=14)

    assert "damaged" in refused.err
    assert site.cloud.objects()[JOURNAL] == before


def test_a_cloud_journal_behind_a_link_stays_one_journal(journaled: Site, tmp_path: Path) -> None:
    """What the link leads to is changed, and locked where others lock it who do not know the link."""
    site = journaled
    assert isinstance(site.cloud, Disk)
    link = site.cloud.root / JOURNAL
    real = link.rename(tmp_path / "real.db")
    link.symlink_to(real)
    build(site.source, {"1009/Images/scan.dcm": Bytes(100)})

    site.run("journal", "update", "--version", "summer")
    site.run("journal", "checkout")

    assert link.is_symlink()
    assert ask(real, "SELECT label FROM version ORDER BY id") == [("spring",), ("summer",)]
    assert real.with_name(f"{real.name}.locked").exists()
    site.run("journal", "checkin")
