"""Whose journal it is: check-out, check-in, unlock, and the session in which a command works on the journal.

The cloud journal is the truth. To change it, one takes its lock (an atomic create), fetches it, works on the
local file and puts that back on condition that the cloud journal is still the one that was fetched; then the
lock goes. *Implicit*: one command does all of that. *Explicit*: `journal checkout`, any commands, `journal
checkin`. A command that was killed leaves its lock and its local journal; the next one on the same machine
takes both up again, and `journal checkin` gives them back. `handover.py` has the steps of both ways.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    EXIT_INTERRUPTED,
    ChorusError,
    ConfigError,
    JournalError,
    JournalLocked,
    JournalNotCheckedOut,
    PreconditionFailed,
    StoppedAtOnce,
)
from chorus_upload.events import Emit, JournalCheckedIn, Level, Notice
from chorus_upload.journal import commands, custody
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.who import Who
from chorus_upload.operations import lock
from chorus_upload.operations.central import cloud_name
from chorus_upload.operations.handover import Handover, sole_use
from chorus_upload.operations.keeping import Keeper
from chorus_upload.operations.local_files import fetch_journal, read_claim, require_finished_at, scratch_directory
from chorus_upload.operations.lock import Lock
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store, require_supported
from chorus_upload.storage.store import Store
from chorus_upload.transfer.publish import publish


@dataclass(slots=True)
class JournalSession:
    """A command's hold of the journal. Set `exit_code` before leaving, so that the history has it."""

    journal: Journal
    exit_code: int = 0


@contextmanager
def journal_session(
    settings: Settings,
    *,
    command: str,
    arguments: Mapping[str, str],
    emit: Emit,
    local_journal: Path | None = None,
    local_only: bool = False,
    read_only: bool = False,
    recorded: bool = False,
) -> Iterator[JournalSession]:
    """The journal, for the length of one command; the command goes into the history unless it only reads.

    `local_only` works on the local journal and leaves the cloud alone. `read_only` needs no lock: it reads
    the local journal while that is checked out, else the cloud's; with `recorded` it goes into the history all the
    same, afterwards, unless it was refused (ConfigError: nothing was done), or somebody holds the journal or it cannot
    be written, which is said.

    An error of ours that ends the command does not keep the journal from being checked in; a crash does, and so does
    StoppedAtOnce: then the local file has the progress.
    """
    require_supported(settings)
    local = local_journal or settings.journal.local_path
    if read_only:
        begun_us = now_us()
        with _reading(settings, local, local_only=local_only, emit=emit) as journal:
            session = JournalSession(journal)
            try:
                yield session
            except ConfigError:
                recorded = False
                raise
            except ChorusError as error:
                session.exit_code = error.exit_code
                raise
            except KeyboardInterrupt:
                session.exit_code, recorded = EXIT_INTERRUPTED, False
                raise
            finally:
                journal.close()
                if recorded and journal.is_older:
                    # Who has the earlier release goes on working with it, until somebody changes something.
                    text = "its schema is that of an earlier release, which the next command that changes it renews"
                    emit(Notice(f"this command is not in the history of the journal: {text}"))
                elif recorded:
                    record = partial(_record, command, arguments, begun_us=begun_us, exit_code=session.exit_code)
                    _leave_trace(settings, local, record, emit=emit)
        return
    with _working_copy(settings, local, local_only=local_only, emit=emit) as journal:
        begun = time.monotonic()
        number = commands.begin(journal, name=command, arguments=json.dumps(dict(arguments)), who=Who.here())
        session = JournalSession(journal)
        try:
            yield session
        except ChorusError as error:
            session.exit_code = error.exit_code
            raise
        except KeyboardInterrupt:
            session.exit_code = EXIT_INTERRUPTED
            raise
        finally:
            commands.end(journal, number, seconds=time.monotonic() - begun, exit_code=session.exit_code)


def _record(command: str, arguments: Mapping[str, str], journal: Journal, *, begun_us: int, exit_code: int) -> None:
    """Enter a command that has ended."""
    number = commands.begin(
        journal, name=command, arguments=json.dumps(dict(arguments)), who=Who.here(), begun_us=begun_us
    )
    commands.end(journal, number, seconds=(now_us() - begun_us) / 1e6, exit_code=exit_code)


def _leave_trace(settings: Settings, local: Path, record: Callable[[Journal], None], *, emit: Emit) -> None:
    """Enter a command that only read into the history, where that disturbs nobody."""
    try:
        if _is_checked_out_by_hand(local):
            with Journal.open(local) as journal:
                record(journal)
            return
        if held := lock_status(settings):
            raise JournalLocked(held.sentence)

        def tell(event: object) -> None:
            # What was locked and given back for this one line is not what the command is about; trouble is.
            if isinstance(event, Notice) and event.level is not Level.INFO:
                emit(event)

        with _working_copy(settings, local, local_only=False, emit=tell) as journal:
            record(journal)
    except ChorusError as error:
        # That somebody else works on the journal is nothing to worry about; whatever else it is may have left the lock.
        level = Level.INFO if isinstance(error, JournalLocked) else Level.WARNING
        said = ". ".join(filter(None, (error.message, error.hint)))
        emit(Notice(f"this command is not in the history: {said}", level))


def _is_checked_out_by_hand(local: Path) -> bool:
    if not local.exists():
        return False
    with Journal.open(local, read_only=True) as journal:
        state = custody.read(journal)
    return state is not None and not state.is_in and not state.implicit


@contextmanager
def _reading(settings: Settings, local: Path, *, local_only: bool, emit: Emit) -> Iterator[Journal]:
    was_here = False
    if local.exists():
        try:
            journal = Journal.open(local, read_only=True)
        except JournalError as error:
            if local_only:
                raise
            # Nothing is changed by a command that reads: the cloud's will do, whatever has become of this one.
            emit(Notice(f"{error.message}: this shows the journal in the cloud", Level.WARNING))
        else:
            with journal:
                state = custody.read(journal)
                cloud = cloud_name(settings.journal.cloud)
                if local_only or (state is not None and not state.is_in and state.cloud == cloud):
                    yield journal
                    return
                was_here = state is not None and state.cloud == cloud
    elif local_only:
        raise JournalNotCheckedOut(f"there is no journal at {local}", hint="`journal checkout` fetches it.")
    with (
        _cloud(settings) as store,
        scratch_directory() as directory,
    ):
        copy = directory / "journal.db"
        if store.stat(settings.journal.cloud_name) is None:
            if was_here:
                raise Handover(settings, store, emit).gone(local, "in")
            raise JournalNotCheckedOut(
                f"there is no journal at {settings.journal.cloud} yet", hint="`journal update` makes the first one."
            )
        fetch_journal(store, settings.journal.cloud, copy)
        Journal.examine(copy, known_as=cloud_name(settings.journal.cloud), with_values=False)
        with Journal.open(copy, read_only=True) as journal:
            yield journal


@contextmanager
def _working_copy(settings: Settings, local: Path, *, local_only: bool, emit: Emit) -> Iterator[Journal]:
    if local_only:
        with Journal.open(local) as journal:
            state = custody.read(journal)
            if state is not None and state.is_in:
                # The next check-out would put the cloud's journal in its place, and the work would be gone.
                raise JournalNotCheckedOut(
                    f"{local} is only a copy: it is not checked out", hint="Run `journal checkout` first."
                )
            yield journal
        return
    check = ConditionCheck(str(settings.journal.cloud_directory))
    with _cloud(settings, check=check) as store, sole_use(local) as hold:
        handover = Handover(settings, store, emit)
        with handover.check_out(local, hold, implicit=True) as journal:
            try:
                with _kept(settings, journal, check, emit=emit):
                    yield journal
            except StoppedAtOnce:
                raise
            except (ChorusError, KeyboardInterrupt) as error:
                try:
                    _give_back(handover, journal)
                except ChorusError as second:
                    # The first trouble is the one to tell; the journal is safe here and can be checked in later.
                    text = f"the journal could not be checked in ({second.message}): run `journal checkin`"
                    emit(Notice(text, Level.WARNING))
                    raise error from second
                raise
            else:
                _give_back(handover, journal)


@contextmanager
def _kept(settings: Settings, journal: Journal, check: ConditionCheck, *, emit: Emit) -> Iterator[None]:
    """A block during which the lock of a journal that is checked out is renewed."""
    state = custody.read(journal)
    if state is None or state.lock_id is None:
        yield
        return

    def open_cloud(stop: threading.Event) -> Store:
        return _cloud(settings, stop=stop, check=check)

    name, by_hand = settings.journal.cloud_name, not state.implicit
    with Keeper(open_cloud, name, lock_id=state.lock_id, by_hand=by_hand, emit=emit):
        yield


def _give_back(handover: Handover, journal: Journal) -> None:
    """Check an implicitly taken journal in; leave one that the user checked out."""
    state = custody.read(journal)
    if state is not None and state.implicit:
        handover.check_in(journal, state)


def checkout(settings: Settings, *, local_journal: Path | None, emit: Emit) -> None:
    """Take the cloud journal: lock it and fetch it, to be worked on with any number of commands.

    Raises JournalLocked when somebody else has it.
    """
    local = local_journal or settings.journal.local_path
    with _cloud(settings) as store, sole_use(local) as hold:
        Handover(settings, store, emit).check_out(local, hold, implicit=False).close()


def checkin(settings: Settings, *, local_journal: Path | None, emit: Emit) -> None:
    """Give the journal back: replace the cloud's, on condition that it is still the one that was taken.

    Raises JournalNotCheckedOut when the local journal was not taken from the cloud, and CheckinConflict when
    the cloud has gone on without it.
    """
    local = local_journal or settings.journal.local_path
    if not local.exists() and read_claim(local) is None:
        raise JournalNotCheckedOut(f"there is no journal at {local}", hint="`journal checkout` fetches it.")
    with _cloud(settings) as store, sole_use(local) as hold:
        handover = Handover(settings, store, emit)
        nothing_done = JournalCheckedIn(cloud=handover.cloud, local=str(local), unchanged=True)
        if not local.exists():
            handover.give_up_claim(local)
            emit(nothing_done)
            return
        with Journal.open(local, hold=hold) as journal:
            before = custody.read(journal)
            if before is None or before.is_in:
                if not handover.give_up_claim(local):
                    raise JournalNotCheckedOut(
                        f"{local} is not checked out", hint="There is nothing in it to give back."
                    )
                emit(nothing_done)
                return
            state = handover.settled(journal)
            if state is None or state.is_in:
                emit(nothing_done)
            else:
                handover.check_in(journal, state)


def lock_status(settings: Settings) -> Lock | None:
    """The lock on the cloud journal; None when there is none."""
    with _cloud(settings) as store:
        return lock.read(store, settings.journal.cloud_name)


def unlock(settings: Settings, *, emit: Emit, shown: Lock | None = None) -> None:
    """Break the lock: the one that was `shown` to whoever asks for it, if one was.

    Where only a lock is left that is a journal (the older tool's way), that is restored first. Raises JournalLocked
    when somebody else holds the journal by now.
    """
    name = settings.journal.cloud_name
    with _cloud(settings) as store:
        held = lock.read(store, name)
        if held is None:
            emit(Notice("the journal is not locked"))
            return
        if shown is not None and held.id != shown.id:
            raise JournalLocked(f"the lock has changed hands: {held.sentence}", hint=held.advice)
        if held.of_older_tool and store.stat(name) is None:
            with scratch_directory() as directory:
                copy = directory / "journal.db"
                require_finished_at(settings.journal.cloud)
                fetch_journal(store, settings.journal.cloud, copy, name=lock.lock_key(name))
                if copy.read_bytes()[: len(lock.SQLITE_MAGIC)] == lock.SQLITE_MAGIC:
                    publish(store, name, copy, create_only=True)
                    emit(Notice(f"restored {settings.journal.cloud} from its lock"))
        try:
            lock.break_open(store, name, held)
        except PreconditionFailed:
            raise JournalLocked(
                f"the lock was just renewed or given back: {held.sentence}", hint="Look again: `journal unlock`."
            ) from None
        emit(Notice(f"unlocked {settings.journal.cloud} ({held.sentence})"))


def _cloud(settings: Settings, *, stop: threading.Event | None = None, check: ConditionCheck | None = None) -> Store:
    return open_store(settings.journal.cloud_directory, Network.of(settings), stop=stop, check=check)
