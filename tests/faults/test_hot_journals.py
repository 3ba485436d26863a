"""Journals whose writer was killed in a transaction: they are neither read nor replaced."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chorus_upload.config.settings import Location, SiteSettings
from chorus_upload.errors import JournalError
from chorus_upload.layout import STANDARD_MODALITIES, default_pattern
from chorus_upload.operations import merging
from chorus_upload.operations.custody import checkin, checkout, journal_session, unlock
from chorus_upload.operations.destination import Choice
from chorus_upload.operations.handover import Handover
from chorus_upload.operations.lock import Lock
from chorus_upload.operations.update import UpdateRequest
from chorus_upload.operations.upgrade import UpgradeRequest, upgrade
from tests.faults.figures import Figures
from tests.operations.conftest import Site, new_site

OLD = Path(__file__).parents[1] / "data" / "legacy" / "journal-v2.db"
OLD_IN_BETWEEN = "UPDATE journal_v2 SET UPLOAD_DT_ID = 1"
"""To the older tool's journal: all its files would count as uploaded."""

# Large enough to leave SQLite's memory, so that a killed transaction has written to the file already. In a write-ahead
# log what comes before it is committed, and not in the file.
_KILLED = """
import os, signal, sqlite3, sys
path, mode, change = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None)
database.execute(f"PRAGMA journal_mode = {mode}")
database.execute("PRAGMA cache_size = 1")
if mode == "WAL":
    database.execute("CREATE TABLE committed (x)")
database.execute("BEGIN IMMEDIATE")
database.execute(change)
database.execute("CREATE TABLE filler (x)")
database.executemany("INSERT INTO filler VALUES (zeroblob(?))", [(2000,)] * 300)
os.kill(os.getpid(), signal.SIGKILL)
"""
KINDS = {"DELETE": "-journal", "WAL": "-wal"}


def kill_in_a_transaction(journal: Path, kind: str, change: str) -> Path:
    """Have a process die while it writes; gives the file that SQLite leaves beside the journal."""
    before = journal.read_bytes()
    died = subprocess.run([sys.executable, "-c", _KILLED, str(journal), kind, change], check=False)
    assert died.returncode == -signal.SIGKILL
    hot = journal.with_name(journal.name + KINDS[kind])
    assert hot.stat().st_size
    assert kind == "WAL" or journal.read_bytes() != before
    return hot


def contents(*directories: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for directory in directories for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path)


@pytest.fixture
def old_site(site: Site) -> Site:
    """A site whose cloud journal is of the older tool."""
    source = Location(path=str(site.source))
    sites = {
        name: SiteSettings(modality=name, location=source, pattern=default_pattern(name, omop_per_patient=False))
        for name in STANDARD_MODALITIES
    }
    site.cloud.write_bytes(OLD.read_bytes())
    return site.with_settings(sites=sites, modalities=STANDARD_MODALITIES)


def upgraded(site: Site, *, local: Path | None = None) -> object:
    """Upgrade, for a user who knows that the files went to this central store: it is empty here."""
    request = UpgradeRequest(local_journal=local, destination=Choice.SAME)
    return upgrade(site.settings, request, emit=site.events.append, redact=str)


def refused(site: Site, what: Callable[[], object], hot: Path) -> None:
    """Do what has to be refused, naming the file, and change nothing by that."""
    before = contents(site.cloud.parent, site.central)
    with pytest.raises(JournalError, match=f"is not finished: {hot.name} belongs to it") as error:
        what()
    assert error.value.exit_code == 14
    assert "sqlite3" in str(error.value.hint)
    assert contents(site.cloud.parent, site.central) == before


def finish(journal: Path) -> None:
    """Open it once, as the hint says."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("SELECT count(*) FROM sqlite_master").fetchall()


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_beside_what_a_link_leads_to(kind: str, old_site: Site, tmp_path: Path, figures: Figures) -> None:
    real = old_site.cloud.rename(tmp_path / "old.db")
    hot = kill_in_a_transaction(real, kind, OLD_IN_BETWEEN)
    old_site.cloud.symlink_to(real)

    refused(old_site, lambda: upgraded(old_site), hot)

    figures.count("journals of killed writers")


@pytest.mark.parametrize(
    ("link", "said"), [(Path.symlink_to, "journal.db is a link to .*old.db"), (Path.hardlink_to, "has 2 names")]
)
def test_an_old_journal_that_has_other_names_is_not_upgraded_in_place_of_one(
    link: Callable[[Path, Path], None], said: str, old_site: Site, tmp_path: Path, figures: Figures
) -> None:
    real = old_site.cloud.rename(tmp_path / "old.db")
    link(old_site.cloud, real)

    for local in (None, old_site.cloud):
        with pytest.raises(JournalError, match=said):
            upgraded(old_site, local=local)

    assert old_site.cloud.read_bytes() == real.read_bytes() == OLD.read_bytes()
    assert old_site.cloud.samefile(real)
    figures.count("journals under two names", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_older_tools_journal_in_a_directory_is_not_upgraded(kind: str, old_site: Site, figures: Figures) -> None:
    hot = kill_in_a_transaction(old_site.cloud, kind, OLD_IN_BETWEEN)

    refused(old_site, lambda: upgraded(old_site), hot)

    assert not old_site.local.exists()
    finish(old_site.cloud)
    assert upgraded(old_site)
    with closing(sqlite3.connect(old_site.cloud)) as database:
        pending = "SELECT count(*) FROM file f LEFT JOIN delivery d ON d.file_id = f.id WHERE d.file_id IS NULL"
        assert database.execute(f"{pending} AND f.retired_by IS NULL").fetchone() == (3,)
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_journal_in_which_a_transaction_begins_meanwhile(
    kind: str, old_site: Site, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """It is looked at again before it is replaced."""
    hot: list[Path] = []
    take_lock = Handover.take_lock

    def late(handover: Handover, local: Path, *, by_hand: bool) -> Lock:
        hot.append(kill_in_a_transaction(old_site.cloud, kind, OLD_IN_BETWEEN))
        return take_lock(handover, local, by_hand=by_hand)

    with monkeypatch.context() as context, pytest.raises(JournalError, match="has just changed"):
        context.setattr(Handover, "take_lock", late)
        upgraded(old_site)

    assert not old_site.local.exists()
    refused(old_site, lambda: upgraded(old_site), hot[0])
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_the_older_tools_journal_on_this_machine_is_not_upgraded(
    kind: str, old_site: Site, tmp_path: Path, figures: Figures
) -> None:
    local = tmp_path / "old.db"
    local.write_bytes(OLD.read_bytes())
    hot = kill_in_a_transaction(local, kind, OLD_IN_BETWEEN)
    before = local.read_bytes()

    refused(old_site, lambda: upgraded(old_site, local=local), hot)

    assert local.read_bytes() == before
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cloud_journal_in_a_directory_is_neither_read_nor_taken(kind: str, site: Site, figures: Figures) -> None:
    site.update(UpdateRequest(version="spring"))
    hot = kill_in_a_transaction(site.cloud, kind, "UPDATE file SET size = size + 1")

    def read() -> None:
        with journal_session(site.settings, command="x", arguments={}, emit=site.events.append, read_only=True):
            pass

    for what in (read, lambda: checkout(site.settings, local_journal=None, emit=site.events.append), site.update):
        refused(site, what, hot)
        assert not (site.cloud.parent / "journal.db.locked").exists()

    finish(site.cloud)
    checkout(site.settings, local_journal=None, emit=site.events.append)
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_takes_the_place_of_a_journal_that_is_not_finished(kind: str, site: Site, figures: Figures) -> None:
    """Somebody opened the cloud journal while it was checked out. What replaced it would be destroyed."""
    site.update(UpdateRequest(version="spring"))
    checkout(site.settings, local_journal=None, emit=site.events.append)
    etag = site.cloud.stat()
    hot = kill_in_a_transaction(site.cloud, kind, "UPDATE file SET size = size + 1")

    refused(site, lambda: checkin(site.settings, local_journal=None, emit=site.events.append), hot)

    assert site.local_state() == "out"
    assert site.cloud.stat().st_ino == etag.st_ino
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_that_is_gone_and_left_its_log_behind(kind: str, site: Site, figures: Figures) -> None:
    site.update(UpdateRequest(version="spring"))
    hot = kill_in_a_transaction(site.cloud, kind, "UPDATE file SET size = size + 1")
    site.cloud.unlink()
    site.local.unlink()

    refused(site, site.update, hot)
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beside", ["the lock", "the journal"])
def test_no_journal_is_restored_from_a_lock_that_is_not_finished(
    beside: str, kind: str, old_site: Site, figures: Figures
) -> None:
    lock = old_site.cloud.with_name("journal.db.locked")
    hot = kill_in_a_transaction(old_site.cloud, kind, OLD_IN_BETWEEN)
    old_site.cloud.rename(lock)
    if beside == "the lock":
        hot = hot.rename(lock.with_name(lock.name + KINDS[kind]))

    refused(old_site, lambda: unlock(old_site.settings, emit=old_site.events.append), hot)
    figures.count("journals of killed writers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_that_is_not_finished_is_not_merged(kind: str, site: Site, tmp_path: Path, figures: Figures) -> None:
    site.update(UpdateRequest(version="spring"))
    other = tmp_path / "other.db"
    other.write_bytes(site.cloud.read_bytes())
    hot = kill_in_a_transaction(other, kind, "UPDATE file SET size = size + 1")
    before = contents(tmp_path)[other]

    def merge() -> None:
        with site.journal("journal merge") as journal:
            merging.merge(journal, site.settings, [other], emit=site.events.append)

    with pytest.raises(JournalError, match=f"is not finished: {hot.name} belongs to it"):
        merge()

    assert other.read_bytes() == before
    finish(other)
    merge()
    figures.count("journals of killed writers")


def test_our_own_journal_of_a_killed_command_goes_on(site: Site, figures: Figures) -> None:
    """SQLite finishes it: what was committed is there, and what was not is gone."""
    site.update(UpdateRequest(version="spring"))
    checkout(site.settings, local_journal=None, emit=site.events.append)
    kill_in_a_transaction(site.local, "WAL", "UPDATE version SET label = 'never'")

    with journal_session(site.settings, command="x", arguments={}, emit=site.events.append) as session:
        assert session.journal.problems() == []
        with session.journal.transaction() as connection:
            assert connection.exec_driver_sql("SELECT label FROM version").all() == [("spring",)]
    figures.count("journals of killed writers")


def test_a_local_journal_with_a_hot_log_is_called_so_by_what_only_reads(
    site: Site, tmp_path: Path, figures: Figures
) -> None:
    site.update(UpdateRequest(version="spring"))
    given = tmp_path / "given.db"
    given.write_bytes(site.cloud.read_bytes())
    hot = kill_in_a_transaction(given, "DELETE", "UPDATE version SET label = 'never'")

    def read() -> None:
        with journal_session(
            site.settings,
            command="x",
            arguments={},
            emit=site.events.append,
            local_journal=given,
            local_only=True,
            read_only=True,
        ):
            pass

    refused(site, read, hot)
    figures.count("journals of killed writers")
