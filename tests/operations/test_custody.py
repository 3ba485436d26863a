"""Custody: one truth in the cloud, nobody's work lost, everybody told who holds what."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from chorus_upload.errors import (
    AccessDenied,
    CheckinConflict,
    ConfigError,
    JournalError,
    JournalLocked,
    JournalNotCheckedOut,
    StorageError,
)
from chorus_upload.events import JournalCheckedIn, JournalCheckedOut, Level, Notice
from chorus_upload.journal import commands, custody
from chorus_upload.operations import lock
from chorus_upload.operations.custody import checkin, checkout, journal_session, lock_status, unlock
from chorus_upload.operations.handover import Handover, sole_use
from chorus_upload.operations.local_files import moved_aside
from chorus_upload.transfer.publish import publish
from tests.journal.test_migrations import pretend_a_newer_schema
from tests.operations.conftest import Site
from tests.trees import contents


def locked(site: Site) -> Path:
    return site.cloud.with_name("journal.db.locked")


def unlock_by_force(site: Site) -> None:
    """What `journal unlock --yes` does."""
    shown = lock_status(site.settings)
    assert shown
    unlock(site.settings, shown=shown, emit=site.events.append)


def commands_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("SELECT command FROM command ORDER BY id")]


def test_a_command_takes_the_journal_and_gives_it_back(site: Site) -> None:
    with site.journal("first"):
        assert json.loads(locked(site).read_text())["process"]
    with site.journal("second"):
        pass

    assert commands_in(site.cloud) == ["first", "second"]
    assert not locked(site).exists()
    taken = [event for event in site.events if isinstance(event, JournalCheckedOut)]
    assert [(event.created, event.resumed) for event in taken] == [(True, False), (False, False)]
    assert sum(isinstance(event, JournalCheckedIn) for event in site.events) == 2


def test_what_is_checked_in_says_nothing_of_whose_copy_it_was(site: Site) -> None:
    with site.journal():
        pass

    with closing(sqlite3.connect(site.cloud)) as database:
        assert database.execute("SELECT count(*) FROM custody").fetchone() == (0,)


def test_whoever_comes_second_is_told_who_holds_it_and_what_to_do(site: Site, tmp_path: Path) -> None:
    other = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"}))
    with site.journal():
        with pytest.raises(JournalLocked, match="holds it since") as refusal, other.journal():
            pytest.fail("two had it")
        assert lock_status(site.settings)
        assert not other.local.exists()

    assert "journal unlock" in str(refusal.value.hint)
    with other.journal():
        assert lock_status(site.settings)
    assert lock_status(site.settings) is None


def test_of_many_who_race_one_wins(site: Site, tmp_path: Path) -> None:
    site.update()
    barrier = threading.Barrier(6)
    done = threading.Barrier(6)
    winners: list[int] = []

    def race(number: int) -> None:
        local = tmp_path / f"local-{number}.db"
        mine = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": local}))
        barrier.wait(10)
        try:
            checkout(mine.settings, local_journal=None, emit=lambda event: None)
        except JournalLocked:
            pass
        else:
            winners.append(number)
        done.wait(10)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(winners) == 1


def test_the_explicit_way_keeps_the_journal_over_several_commands(site: Site) -> None:
    checkout(site.settings, local_journal=None, emit=site.events.append)
    with site.journal("one"):
        pass
    with site.journal("two"):
        pass
    assert locked(site).exists()
    assert not site.cloud.exists()

    checkin(site.settings, local_journal=None, emit=site.events.append)

    assert commands_in(site.cloud) == ["one", "two"]
    assert not locked(site).exists()


def test_an_interrupted_command_leaves_the_lock_and_the_next_goes_on(site: Site) -> None:
    def crash() -> None:
        with site.journal("crashed"):
            raise RuntimeError("a defect, or a kill")

    with pytest.raises(RuntimeError):
        crash()
    assert locked(site).exists()

    with site.journal("next"):
        pass

    assert commands_in(site.cloud) == ["crashed", "next"]
    assert not locked(site).exists()


def test_an_interrupted_command_can_be_checked_in_by_hand(site: Site) -> None:
    def crash() -> None:
        with site.journal("crashed"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()

    checkin(site.settings, local_journal=site.local, emit=site.events.append)

    assert commands_in(site.cloud) == ["crashed"]
    with pytest.raises(JournalNotCheckedOut):
        checkin(site.settings, local_journal=site.local, emit=site.events.append)


def test_an_error_of_ours_does_not_keep_the_journal(site: Site) -> None:
    def fail() -> None:
        with site.journal("refused"):
            raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        fail()

    assert not locked(site).exists()
    with site.journal() as journal:
        assert next((record.command, record.exit_code) for record in commands.history(journal)) == ("refused", 21)


def read_with_a_trace(site: Site, error: BaseException | None = None) -> None:
    with journal_session(
        site.settings, command="read", arguments={}, emit=site.events.append, read_only=True, recorded=True
    ) as session:
        assert session.journal.is_read_only
        if error is not None:
            raise error


def test_what_only_read_leaves_a_trace(site: Site) -> None:
    site.update()

    read_with_a_trace(site)
    with pytest.raises(AccessDenied):
        read_with_a_trace(site, AccessDenied("no"))

    assert commands_in(site.cloud) == ["journal update", "read", "read"]
    assert not locked(site).exists()
    with site.journal() as journal:
        assert [record.exit_code for record in commands.history(journal)][1:3] == [0, 21]


def test_what_only_read_renews_no_schema(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the earlier release goes on with the journal."""
    site.update()
    before = site.cloud.read_bytes()
    pretend_a_newer_schema(monkeypatch)

    read_with_a_trace(site)

    assert site.cloud.read_bytes() == before
    (said,) = [event.text for event in site.events if isinstance(event, Notice) and "history" in event.text]
    assert "its schema is that of an earlier release" in said


@pytest.mark.parametrize("error", [ConfigError("no such version"), KeyboardInterrupt()])
def test_what_was_refused_or_interrupted_while_it_read_changes_no_journal(site: Site, error: BaseException) -> None:
    site.update()
    before = site.cloud.read_bytes(), site.local.read_bytes()

    with pytest.raises(type(error)):
        read_with_a_trace(site, error)

    assert (site.cloud.read_bytes(), site.local.read_bytes()) == before


def test_what_only_reads_disturbs_nobody_who_has_the_journal(site: Site, tmp_path: Path) -> None:
    site.update()
    other = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"}))
    checkout(other.settings, local_journal=None, emit=other.events.append)
    before = contents(site.cloud.parent)

    read_with_a_trace(site)

    assert contents(site.cloud.parent) == before

    (notice,) = [
        event.text for event in site.events if isinstance(event, Notice) and "not in the history" in event.text
    ]
    assert "holds it since" in notice


def test_a_line_of_the_history_that_could_not_be_given_back_is_a_warning(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock stays, and the next command of this machine takes it up: that is worth a word."""
    site.update()

    def fails(*_: object) -> None:
        raise StorageError("the disk is full", hint="Make room.")

    monkeypatch.setattr(Handover, "check_in", fails)
    read_with_a_trace(site)

    assert locked(site).exists()
    assert Notice("this command is not in the history: the disk is full. Make room.", Level.WARNING) in site.events


def test_a_cloud_journal_that_was_replaced_meanwhile_is_not_overwritten(site: Site) -> None:
    site.update()
    checkout(site.settings, local_journal=None, emit=site.events.append)
    site.cloud.write_bytes(b"somebody else's journal")

    with pytest.raises(CheckinConflict) as conflict:
        checkin(site.settings, local_journal=None, emit=site.events.append)

    assert site.cloud.read_bytes() == b"somebody else's journal"
    assert site.local.exists()
    assert str(site.local) in str(conflict.value.hint)


def test_a_broken_lock_is_taken_again_while_nothing_has_happened(site: Site) -> None:
    site.update()
    checkout(site.settings, local_journal=None, emit=site.events.append)
    unlock_by_force(site)

    with site.journal("goes on"):
        assert locked(site).exists()
    checkin(site.settings, local_journal=None, emit=site.events.append)

    assert commands_in(site.cloud) == ["journal update", "goes on"]
    assert not locked(site).exists()


def test_a_broken_lock_is_a_conflict_once_the_cloud_has_gone_on(site: Site, tmp_path: Path) -> None:
    site.update()
    checkout(site.settings, local_journal=None, emit=site.events.append)
    unlock_by_force(site)
    other = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"}))
    with other.journal("theirs"), pytest.raises(CheckinConflict, match="holds it since"), site.journal():
        pytest.fail("it must not begin")
    with pytest.raises(CheckinConflict, match="another journal by now"), site.journal():
        pytest.fail("it must not begin")
    with pytest.raises(CheckinConflict):
        checkin(site.settings, local_journal=None, emit=site.events.append)

    assert commands_in(site.cloud) == ["journal update", "theirs"]
    assert not locked(site).exists()


STEPS: dict[str, Callable[..., object]] = {
    "publish": publish,
    "lock.release": lock.release,
    "custody.write": custody.write,
}


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_check_in_that_dies_at_any_step_is_finished_by_the_next_command(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, nth: int, *, before: bool
) -> None:
    site.update()
    checkout(site.settings, local_journal=None, emit=site.events.append)
    with site.journal("work"):
        pass
    real = STEPS[step]
    calls = 0

    def dies(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth and before:
            raise Died
        result = real(*arguments, **options)
        if calls == nth:
            raise Died
        return result

    with monkeypatch.context() as patch:
        patch.setattr(f"chorus_upload.operations.handover.{step}", dies)
        with suppress(Died):
            checkin(site.settings, local_journal=None, emit=site.events.append)
    died = calls >= nth

    with site.journal("next"):
        pass
    if site.local_state() != "in":
        checkin(site.settings, local_journal=None, emit=site.events.append)

    assert commands_in(site.cloud) == ["journal update", "work", "next"]
    assert not locked(site).exists()
    assert died or nth > 1


class Died(BaseException):
    """Stands for a SIGKILL: nothing of ours handles it."""


def test_a_local_file_of_another_origin_is_kept_aside(site: Site) -> None:
    with site.journal("elsewhere"):
        pass
    site.cloud.unlink()
    with closing(sqlite3.connect(site.local)) as database, database:
        database.execute("UPDATE custody SET cloud = 'az://another/journal.db@account'")

    with site.journal("here"):
        pass

    (aside,) = [path for path in site.home.glob("journal.db.2*") if path.is_file()]
    assert commands_in(aside) == ["elsewhere"]
    assert commands_in(site.cloud) == ["here"]
    assert any(isinstance(event, Notice) and str(aside) in event.text for event in site.events)


def test_reading_needs_no_lock_and_leaves_no_trace(site: Site) -> None:
    site.update()
    checkout(site.settings, local_journal=site.home / "elsewhere.db", emit=site.events.append)

    with journal_session(
        site.settings, command="journal list", arguments={}, emit=site.events.append, read_only=True
    ) as session:
        assert len(commands.history(session.journal)) == 1

    assert commands_in(site.cloud) == ["journal update"]


def test_reading_while_there_is_no_journal_says_how_to_begin(site: Site) -> None:
    with (
        pytest.raises(JournalNotCheckedOut) as error,
        journal_session(site.settings, command="x", arguments={}, emit=site.events.append, read_only=True),
    ):
        pytest.fail("there is none")
    assert "journal update" in str(error.value.hint)


def test_a_lock_of_the_older_tool_is_a_journal_and_is_restored(site: Site) -> None:
    site.update()
    site.cloud.rename(locked(site))
    shown = lock_status(site.settings)
    assert shown
    assert shown.sentence == "an older chorus-upload holds it"
    with pytest.raises(JournalLocked, match="older chorus-upload"), site.journal():
        pytest.fail("it is locked")

    unlock_by_force(site)

    assert commands_in(site.cloud) == ["journal update"]
    assert not locked(site).exists()


def test_unlocking_keeps_a_journal_that_is_there(site: Site) -> None:
    site.update()
    content = site.cloud.read_bytes()
    locked(site).write_bytes(content + b"older")

    unlock_by_force(site)

    assert site.cloud.read_bytes() == content
    assert not locked(site).exists()


# --- what is here, and what is there ------------------------------------------------------------------------------


def warnings_in(site: Site) -> list[str]:
    return [event.text for event in site.events if isinstance(event, Notice) and event.level is Level.WARNING]


def test_a_cloud_journal_that_is_gone_is_not_begun_anew(site: Site) -> None:
    """The local copy has what was in it: to begin with an empty one would send everything again."""
    site.update()
    before = commands_in(site.local)
    site.cloud.unlink()

    with pytest.raises(JournalError, match=r"there is no journal at .* any more") as refused, site.journal():
        pytest.fail("a new one was begun")

    assert str(site.local) in str(refused.value.hint)
    assert commands_in(site.local) == before
    assert not locked(site).exists()
    # As the hint says.
    shutil.copyfile(site.local, site.cloud)
    with site.journal("goes on"):
        pass
    assert commands_in(site.cloud) == ["journal update", "goes on"]


def test_a_local_copy_that_has_more_than_the_cloud_is_kept_aside(site: Site) -> None:
    """Somebody has put a backup back."""
    site.update()
    earlier = site.cloud.read_bytes()
    with site.journal("later"):
        pass
    site.cloud.write_bytes(earlier)

    with site.journal("now"):
        pass

    (aside,) = moved_aside(site.local)
    assert commands_in(aside) == ["journal update", "later"]
    assert commands_in(site.cloud) == ["journal update", "now"]
    assert [text for text in warnings_in(site) if "has not all that is in" in text and str(aside) in text]


def test_a_local_copy_of_which_the_cloud_has_all_makes_room(site: Site, tmp_path: Path) -> None:
    site.update()
    other = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"}))
    with other.journal("theirs"):
        pass

    with site.journal("mine"):
        pass

    assert moved_aside(site.local) == []
    assert commands_in(site.local) == ["journal update", "theirs", "mine"]


@pytest.mark.parametrize("damaged", [b"no database", b""])
def test_a_damaged_local_copy_keeps_nobody_from_looking(site: Site, damaged: bytes) -> None:
    site.update()
    site.local.write_bytes(damaged)
    reading = {"command": "journal list", "arguments": {}, "emit": site.events.append, "read_only": True}

    with journal_session(site.settings, **reading) as session:  # type: ignore[arg-type]
        assert len(commands.history(session.journal)) == 1

    assert site.local.read_bytes() == damaged
    assert [text for text in warnings_in(site) if "this shows the journal in the cloud" in text] or not damaged


def test_a_local_journal_of_another_configuration_is_not_shown_for_this_ones(site: Site) -> None:
    site.update()
    checkout(site.settings, local_journal=None, emit=site.events.append)
    with site.journal("elsewhere"):
        pass
    with closing(sqlite3.connect(site.local)) as database, database:
        database.execute("UPDATE custody SET cloud = 'az://another/journal.db@account'")

    with journal_session(
        site.settings, command="history", arguments={}, emit=site.events.append, read_only=True
    ) as session:
        assert [record.command for record in commands.history(session.journal)] == ["journal update"]
    # What it is worked on with is the other configuration.
    with pytest.raises(JournalError, match="is checked out from az://another"), site.journal():
        pytest.fail("it is another's")


def test_a_second_process_on_one_local_journal_is_told_at_once(site: Site) -> None:
    """Also while there is no local journal yet, and the first is still fetching it."""

    def refused() -> None:
        with sole_use(site.local):
            for act in (checkout, checkin) if site.local.exists() else (checkout,):
                with pytest.raises(JournalLocked, match="in use by process"):
                    act(site.settings, local_journal=None, emit=site.events.append)
        assert not locked(site).exists()

    refused()
    site.update()
    refused()


def killed_after_locking(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check-out that had the lock, and nothing else yet."""
    real = lock.acquire

    def last_act(*arguments: object, **options: object) -> object:
        real(*arguments, **options)  # type: ignore[arg-type]
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(lock, "acquire", last_act)
        checkout(site.settings, local_journal=None, emit=site.events.append)
    assert locked(site).exists()


def test_a_lock_that_was_taken_by_a_dying_command_is_ours(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.update()
    killed_after_locking(site, monkeypatch)
    other = site.with_settings(journal=site.settings.journal.model_copy(update={"local_path": tmp_path / "other.db"}))
    with pytest.raises(JournalLocked), other.journal():
        pytest.fail("it is locked")

    with site.journal("next"):
        pass

    assert commands_in(site.cloud) == ["journal update", "next"]
    assert not locked(site).exists()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_lock_that_was_taken_by_a_dying_command_is_given_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    if not is_first:
        site.update()
    killed_after_locking(site, monkeypatch)

    checkin(site.settings, local_journal=site.local, emit=site.events.append)

    assert not locked(site).exists()
    with pytest.raises(JournalNotCheckedOut):
        checkin(site.settings, local_journal=site.local, emit=site.events.append)


def test_a_lock_that_has_changed_hands_is_not_broken(site: Site, tmp_path: Path) -> None:
    """Between looking and agreeing somebody else may have taken it."""
    checkout(site.settings, local_journal=None, emit=site.events.append)
    shown = lock_status(site.settings)
    checkin(site.settings, local_journal=None, emit=site.events.append)
    checkout(site.settings, local_journal=tmp_path / "other.db", emit=site.events.append)

    with pytest.raises(JournalLocked, match="changed hands"):
        unlock(site.settings, shown=shown, emit=site.events.append)

    assert locked(site).exists()


def test_the_lock_is_renewed_while_a_command_works(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.01)
    with site.journal():
        taken = lock_status(site.settings)
        assert taken
        end = time.monotonic() + 20
        while (now := lock_status(site.settings)) and now.renewed_us == taken.renewed_us:
            assert time.monotonic() < end
        assert now
        assert (now.id, now.since_us) == (taken.id, taken.since_us)

    assert not locked(site).exists()
    assert warnings_in(site) == []


def test_a_lock_that_is_broken_meanwhile_is_told_and_the_work_is_not_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.1)
    with site.journal("goes on"):
        end = time.monotonic() + 20
        while locked(site).exists():
            assert time.monotonic() < end
            # It may be renewed between the look at it and the break: then it is to be looked at again.
            with suppress(JournalLocked):
                unlock_by_force(site)
        while not warnings_in(site):
            assert time.monotonic() < end

    assert [text for text in warnings_in(site) if "was broken (it is gone); the work goes on" in text]
    assert commands_in(site.cloud) == ["goes on"]
    assert not locked(site).exists()


def test_a_check_in_leaves_nothing_beside_the_journal(site: Site) -> None:
    """Whatever commands have left there that were killed: a check-out, an upgrade, an upload, another check-in."""
    checkout(site.settings, local_journal=None, emit=site.events.append)
    names = ("claim", "fetched", "fetched-wal", "offered", "offered-journal", "manifest", "copy", "copy-journal")
    for name in names:
        site.local.with_name(f"{site.local.name}.{name}").write_text("a patient's name")

    checkin(site.settings, local_journal=None, emit=site.events.append)

    left = {path.name.removeprefix(f"{site.local.name}.") for path in site.local.parent.glob(f"{site.local.name}.*")}
    assert left == {"writer"}


def test_a_claim_whose_check_out_ended_otherwise_takes_nothing_away(site: Site) -> None:
    """It names a lock of the past: the next check-out has one of its own, and nobody else's is touched."""
    with site.journal("first"):
        pass
    site.local.with_name(f"{site.local.name}.claim").write_text("0" * 32)

    with site.journal("second"):
        assert json.loads(locked(site).read_text())["id"] != "0" * 32

    assert commands_in(site.cloud) == ["first", "second"]
    assert not locked(site).exists()
