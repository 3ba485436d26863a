"""Whose journal it is: check-out, check-in, unlock, and the session in which a command works on the journal.

The cloud journal is the truth. To change it, one takes its lock (an atomic create), fetches it, works on the
local file and puts that back on condition that the cloud journal is still the one that was fetched; then the
lock goes. *Implicit*: one command does all of that. *Explicit*: `journal checkout`, any commands, `journal
checkin`. A command that was killed leaves its lock and its local journal; the next one on the same machine
takes both up again, and `journal checkin` gives them back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    EXIT_INTERRUPTED,
    CheckinConflict,
    ChorusError,
    JournalError,
    JournalLocked,
    JournalNotCheckedOut,
    ObjectExists,
    PreconditionFailed,
)
from chorus_upload.events import Emit, JournalCheckedIn, JournalCheckedOut, Level, Notice
from chorus_upload.journal import commands, custody
from chorus_upload.journal.custody import Custody
from chorus_upload.journal.database import private_file
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.who import Who
from chorus_upload.model import CustodyState
from chorus_upload.operations import lock
from chorus_upload.operations.central import destination_url
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store, require_supported
from chorus_upload.storage.store import Store
from chorus_upload.transfer.evidence import read_back
from chorus_upload.transfer.publish import hash_file, publish

UNLOCK_HINT = "Wait, or ask that person. If the process is dead for good: `journal unlock`."


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
) -> Iterator[JournalSession]:
    """The journal, for the length of one command; the command goes into the history unless it only reads.

    `local_only` works on the local journal and leaves the cloud alone. `read_only` needs no lock: it reads
    the local journal while that is checked out, else the cloud's. An error of ours that ends the command
    does not keep the journal from being checked in; a crash does, and then the local file has the progress.
    """
    require_supported(settings)
    local = local_journal or settings.journal.local_path
    if read_only:
        with _reading(settings, local, local_only=local_only) as journal:
            yield JournalSession(journal)
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


@contextmanager
def _reading(settings: Settings, local: Path, *, local_only: bool) -> Iterator[Journal]:
    if local.exists():
        with Journal.open(local, read_only=True) as journal:
            state = custody.read(journal)
            if local_only or (state is not None and not state.is_in):
                yield journal
                return
    elif local_only:
        raise JournalNotCheckedOut(f"there is no journal at {local}", hint="`journal checkout` fetches it.")
    with (
        _cloud(settings) as store,
        tempfile.TemporaryDirectory(prefix="chorus-upload-") as directory,
    ):
        copy = Path(directory) / "journal.db"
        if _fetch(store, settings.journal.cloud_name, copy) is None:
            raise JournalNotCheckedOut(
                f"there is no journal at {settings.journal.cloud} yet", hint="`journal update` makes the first one."
            )
        Journal.examine(copy, known_as=destination_url(settings.journal.cloud))
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
    with _cloud(settings) as store:
        journal = _check_out(settings, store, local, implicit=True, emit=emit)
        try:
            yield journal
        except (ChorusError, KeyboardInterrupt) as error:
            try:
                _give_back(settings, store, journal, emit=emit)
            except ChorusError as second:
                # The first trouble is the one to tell; the journal is safe here and can be checked in later.
                text = f"the journal could not be checked in ({second.message}): run `journal checkin`"
                emit(Notice(text, Level.WARNING))
                raise error from second
            raise
        else:
            _give_back(settings, store, journal, emit=emit)
        finally:
            journal.close()


def _give_back(settings: Settings, store: Store, journal: Journal, *, emit: Emit) -> None:
    """Check an implicitly taken journal in; leave one that the user checked out."""
    state = custody.read(journal)
    if state is not None and state.implicit:
        _check_in(settings, store, journal, state, emit=emit)


def checkout(settings: Settings, *, local_journal: Path | None, emit: Emit) -> None:
    """Take the cloud journal: lock it and fetch it, to be worked on with any number of commands.

    Raises JournalLocked when somebody else has it.
    """
    with _cloud(settings) as store:
        local = local_journal or settings.journal.local_path
        _check_out(settings, store, local, implicit=False, emit=emit).close()


def checkin(settings: Settings, *, local_journal: Path | None, emit: Emit) -> None:
    """Give the journal back: replace the cloud's, on condition that it is still the one that was taken.

    Raises JournalNotCheckedOut when the local journal was not taken from the cloud, and CheckinConflict when
    the cloud has gone on without it.
    """
    local = local_journal or settings.journal.local_path
    with _cloud(settings) as store, Journal.open(local) as journal:
        before = custody.read(journal)
        if before is None or before.is_in:
            raise JournalNotCheckedOut(f"{local} is not checked out", hint="There is nothing in it to give back.")
        state = _settled(settings, store, journal)
        if state is None or state.is_in:
            emit(JournalCheckedIn(cloud=before.cloud, local=str(local), unchanged=True))
        else:
            _check_in(settings, store, journal, state, emit=emit)


def lock_status(settings: Settings) -> str | None:
    """Who holds the cloud journal, as a sentence; None when nobody does."""
    with _cloud(settings) as store:
        held = lock.read(store, settings.journal.cloud_name)
    return held.sentence if held else None


def unlock(settings: Settings, *, emit: Emit) -> None:
    """Break the lock. Where only a lock is left that is a journal (the older tool's way), restore that first."""
    name = settings.journal.cloud_name
    with _cloud(settings) as store:
        held = lock.read(store, name)
        if held is None:
            emit(Notice("the journal is not locked"))
            return
        if store.stat(name) is None and held.of_older_tool:
            with tempfile.TemporaryDirectory(prefix="chorus-upload-") as directory:
                copy = Path(directory) / "journal.db"
                _fetch(store, lock.lock_key(name), copy)
                if copy.read_bytes()[: len(lock.SQLITE_MAGIC)] == lock.SQLITE_MAGIC:
                    publish(store, name, copy, create_only=True)
                    emit(Notice(f"restored {settings.journal.cloud} from its lock"))
        lock.release(store, name, etag=held.etag)
        emit(Notice(f"unlocked {settings.journal.cloud} ({held.sentence})"))


def _cloud(settings: Settings) -> Store:
    return open_store(settings.journal.cloud_directory, Network.of(settings))


def _check_out(settings: Settings, store: Store, local: Path, *, implicit: bool, emit: Emit) -> Journal:
    """Open the local journal under the cloud's lock, taking both where they are not ours already."""
    name, cloud = settings.journal.cloud_name, destination_url(settings.journal.cloud)
    state = None
    if local.exists():
        journal = Journal.open(local)
        try:
            state = _settled(settings, store, journal)
            if state is not None and not state.is_in:
                state = _require_lock(store, settings, journal, state, emit=emit)
                if not implicit and state.implicit:
                    # The user takes over what an interrupted command left.
                    custody.write(journal, replace(state, implicit=False))
                emit(JournalCheckedOut(cloud=cloud, local=str(local), created=False, resumed=True))
                return journal
        except BaseException:
            journal.close()
            raise
        journal.close()
    before = store.stat(name)
    held = lock.acquire(store, name, journal_etag=before.etag if before else None, who=Who.here())
    if held is None:
        there = lock.read(store, name)
        who = there.sentence if there else "somebody else held it a moment ago"
        raise JournalLocked(f"the journal {settings.journal.cloud} is locked: {who}", hint=UNLOCK_HINT)
    try:
        etag = _obtain(store, name, local, state, cloud=cloud, emit=emit)
        journal = Journal.create(local) if etag is None else Journal.open(local)
        taken = Custody(
            cloud=cloud,
            state=CustodyState.OUT,
            lock_id=held.id,
            lock_etag=held.etag,
            base_etag=etag,
            implicit=implicit,
            since_us=now_us(),
        )
        custody.write(journal, taken)
    except BaseException:
        with suppress(PreconditionFailed):
            lock.release(store, name, etag=held.etag)
        raise
    emit(JournalCheckedOut(cloud=cloud, local=str(local), created=etag is None, resumed=False))
    return journal


def _settled(settings: Settings, store: Store, journal: Journal) -> Custody | None:
    """The custody of a local journal, after finishing a check-in that was interrupted: OUT or IN."""
    state, name = custody.read(journal), settings.journal.cloud_name
    if state is None or state.is_in:
        return state
    if state.cloud != destination_url(settings.journal.cloud):
        raise JournalError(
            f"{journal.path} is checked out from {state.cloud}, not from {settings.journal.cloud}",
            hint="Use the configuration that it was checked out with, or another --local-journal.",
        )
    if state.state is CustodyState.OFFERED:
        there = store.stat(name)
        content = read_back(store, name, size=there.size) if there else None
        if there and content and content[0] == state.offered:
            state = replace(state, state=CustodyState.RETURNED, offered=None, base_etag=there.etag)
        else:
            state = replace(state, state=CustodyState.OUT, offered=None)
        custody.write(journal, state)
    return _let_go(store, name, journal, state) if state.state is CustodyState.RETURNED else state


def _let_go(store: Store, name: str, journal: Journal, state: Custody) -> Custody:
    """The cloud has it all: remove our lock, if it is still there, and note that."""
    with suppress(PreconditionFailed):
        lock.release(store, name, etag=state.lock_etag)
    state = replace(state, state=CustodyState.IN, lock_id=None, lock_etag=None, implicit=False)
    custody.write(journal, state)
    return state


def _require_lock(store: Store, settings: Settings, journal: Journal, state: Custody, *, emit: Emit) -> Custody:
    """The local journal is checked out: make sure that the cloud still thinks so, too.

    A lock that was broken is taken again if nobody else has it and the cloud journal is still the one that
    was checked out: then nothing has happened in between.
    """
    local, name = journal.path, settings.journal.cloud_name
    held = lock.read(store, name)
    if held is not None and held.id == state.lock_id:
        return state
    trouble = held.sentence if held else "somebody else is just taking it"
    retaken = None if held else lock.acquire(store, name, journal_etag=state.base_etag, who=Who.here())
    if retaken is not None:
        there = store.stat(name)
        if (there.etag if there else None) == state.base_etag:
            emit(Notice(f"the lock on {settings.journal.cloud} was broken and is taken again"))
            state = replace(state, lock_id=retaken.id, lock_etag=retaken.etag)
            custody.write(journal, state)
            return state
        lock.release(store, name, etag=retaken.etag)
        trouble = "the cloud has another journal by now"
    raise CheckinConflict(
        f"{local} was checked out, but its lock on {settings.journal.cloud} was broken: {trouble}",
        hint=f"{local} may have what the cloud has not. Keep it under another name before you go on.",
    )


def _obtain(store: Store, name: str, local: Path, state: Custody | None, *, cloud: str, emit: Emit) -> str | None:
    """Have the cloud journal as the local file; gives its etag, None when there is none in the cloud."""
    found = store.stat(name)
    if found is not None and state is not None and (state.cloud, state.base_etag) == (cloud, found.etag):
        # What was checked in here last is still what the cloud has.
        return found.etag
    # Fetched beside, and looked at, before anything that is here has to make room.
    fetched = local.with_name(local.name + ".fetched")
    try:
        etag = _fetch(store, name, fetched)
        if etag is not None:
            Journal.examine(fetched, known_as=cloud)
        _make_room(local, state, cloud=cloud, emit=emit)
        if etag is not None:
            fetched.replace(local)
    finally:
        fetched.unlink(missing_ok=True)
    return etag


def _make_room(local: Path, state: Custody | None, *, cloud: str, emit: Emit) -> None:
    """Clear the place for the fetched journal; what may exist nowhere else is kept aside."""
    if not local.exists():
        return
    if state is not None and state.cloud == cloud:
        # A copy of what was checked in: the cloud has it all.
        local.unlink()
    else:
        aside = local.with_name(f"{local.name}.{datetime.now().astimezone():%Y%m%d%H%M%S}")
        local.rename(aside)
        emit(Notice(f"{local} was not fetched from {cloud}: it is kept as {aside}", Level.WARNING))
    for suffix in ("-wal", "-shm"):
        local.with_name(local.name + suffix).unlink(missing_ok=True)


def _fetch(store: Store, name: str, target: Path) -> str | None:
    """Fetch an object to a local file; gives its etag, None when there is no such object."""
    found = store.stat(name)
    if found is None:
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open(name) as stream, private_file(target) as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise JournalError(f"{target} could not be written: {error.strerror or error}", hint="Make room.") from error
    return found.etag


def _check_in(settings: Settings, store: Store, journal: Journal, state: Custody, *, emit: Emit) -> None:
    """Replace the cloud journal, prove that it arrived, then let go of the lock."""
    name, local = settings.journal.cloud_name, journal.path
    state = _require_lock(store, settings, journal, state, emit=emit)
    with tempfile.TemporaryDirectory(prefix="chorus-upload-", dir=local.parent) as directory:
        copy = Path(directory) / "journal.db"
        journal.copy_to(copy)
        content = hash_file(copy)
        custody.write(journal, replace(state, state=CustodyState.OFFERED, offered=content[0]))
        try:
            stored = publish(store, name, copy, create_only=state.base_etag is None, if_match=state.base_etag)
        except (ObjectExists, PreconditionFailed):
            # Ours, if only the answer was lost and the request repeated.
            there = store.stat(name)
            if there is None or read_back(store, name, size=copy.stat().st_size) != content:
                custody.write(journal, state)
                raise CheckinConflict(
                    f"{settings.journal.cloud} is not the journal that was checked out",
                    hint=f"Nothing was overwritten. {local} has this machine's work: keep it.",
                ) from None
            stored = there
    state = replace(state, state=CustodyState.RETURNED, base_etag=stored.etag)
    custody.write(journal, state)
    _let_go(store, name, journal, state)
    emit(JournalCheckedIn(cloud=state.cloud, local=str(local), unchanged=False))
