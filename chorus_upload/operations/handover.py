"""How the journal goes from the cloud to this machine and back, so that a death at any step loses nothing.

::

    take    claim ──▶ lock ──▶ fetch beside ──▶ whose copy it is, in it ──▶ it takes its place ──▶ claim gone
    give    compacted copy ──▶ OFFERED ──▶ replace the cloud's ──▶ RETURNED ──▶ backup ──▶ unlock ──▶ IN

The *claim* is a small file beside the local journal with the id of the lock that is about to be taken. A lock of
that id is ours, although no journal says so yet: nothing has been done under it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    CheckinConflict,
    ConditionsIgnored,
    JournalError,
    JournalLocked,
    ObjectExists,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.events import Emit, JournalCheckedIn, JournalCheckedOut, Level, Notice
from chorus_upload.journal import custody
from chorus_upload.journal.custody import Custody, Trace
from chorus_upload.journal.database import WriterLock, private_file
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.who import Who
from chorus_upload.model import CustodyState
from chorus_upload.operations import lock
from chorus_upload.operations.backups import backups, keep_backup
from chorus_upload.operations.central import cloud_name
from chorus_upload.operations.local_files import (
    beside,
    clear,
    discard,
    drop_claim,
    fetch_journal,
    move_aside,
    read_claim,
    require_finished_at,
    take_place,
    write_claim,
)
from chorus_upload.operations.lock import Lock
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.store import Store, StoredObject
from chorus_upload.transfer.evidence import with_fingerprint
from chorus_upload.transfer.publish import hash_file, publish


@contextmanager
def sole_use(local: Path) -> Iterator[WriterLock]:
    """Exclusive use of a local journal in this block, whether it is there or not.

    Raises JournalLocked at once when another process has it.
    """
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"{local} cannot be written: {error.strerror or error}") from error
    with closing(WriterLock(local)) as hold:
        yield hold


@dataclass(frozen=True, slots=True)
class Handover:
    """One configuration's journal on its way between `store` and a local file."""

    settings: Settings
    store: Store
    emit: Emit

    @property
    def name(self) -> str:
        return self.settings.journal.cloud_name

    @property
    def cloud(self) -> str:
        """The cloud journal as local journals name it."""
        return cloud_name(self.settings.journal.cloud)

    def check_out(self, local: Path, hold: WriterLock, *, implicit: bool) -> Journal:
        """Open the local journal under the cloud's lock, taking both where they are not ours already.

        Raises JournalLocked when somebody else has it, CheckinConflict when the local one was refused.
        """
        state, past = None, None
        if local.exists():
            journal = Journal.open(local, hold=hold)
            try:
                state = self.settled(journal)
                if state is not None and not state.is_in:
                    return self._resume(journal, state, implicit=implicit)
                past = custody.trace(journal)
            except BaseException:
                journal.close()
                raise
            journal.close()
        held = self.take_lock(local, by_hand=not implicit)
        try:
            journal, created = self._obtain(local, hold, held, state=state, past=past, implicit=implicit)
        except BaseException:
            # A lock that cannot be given back now keeps its claim, and the next command does it.
            with suppress(StorageError):
                self.give_up_claim(local)
            raise
        drop_claim(local)
        self.emit(JournalCheckedOut(cloud=self.cloud, local=str(local), created=created, resumed=False))
        return journal

    def take_lock(self, local: Path, *, by_hand: bool) -> Lock:
        """Lock the cloud journal, for a file that is about to come to `local`, and leave the claim there.

        Raises JournalLocked when somebody else has it.
        """
        claim = read_claim(local)
        if claim is not None:
            held = lock.renew(self.store, self.name, lock_id=claim, who=Who.here(), by_hand=by_hand)
            if held is not None and held.id == claim:
                return held
            if held is not None:
                # The claim stays until the lock is gone: should that have been read wrong, it is ours all the same.
                raise self._locked(held)
        lock_id = uuid.uuid4().hex
        write_claim(local, lock_id)
        try:
            held = self._acquire(lock_id, journal_etag=self._etag(), by_hand=by_hand)
        except ConditionsIgnored:
            # A lock keeps nobody out there: it would only be in the way of whoever mends that.
            with suppress(StorageError):
                self.give_up_claim(local)
            raise
        if held is None:
            drop_claim(local)
            raise self._locked(lock.read(self.store, self.name))
        return held

    def settled(self, journal: Journal) -> Custody | None:
        """The custody of a local journal, after finishing a check-in that was interrupted: OUT or IN."""
        state = custody.read(journal)
        if state is None or state.is_in:
            return state
        if state.cloud != self.cloud:
            raise JournalError(
                f"{journal.path} is checked out from {state.cloud}, not from {self.settings.journal.cloud}",
                hint="Use the configuration that it was checked out with, or another --local-journal.",
            )
        if state.state is CustodyState.OFFERED:
            there = with_fingerprint(self.store, self.name, state.offered or b"")
            if there is not None:
                state = replace(state, state=CustodyState.RETURNED, offered=None, base_etag=there.etag)
            else:
                state = replace(state, state=CustodyState.OUT, offered=None)
            custody.write(journal, state)
        if state.state is not CustodyState.RETURNED:
            return state
        self._back_up_late(journal, state)
        return self._let_go(journal, state)

    def require_lock(self, journal: Journal, state: Custody, *, renewing: bool = False) -> Custody:
        """A local journal is checked out: make sure that the cloud still thinks so, too.

        A lock that was broken is taken again if nobody else has it and the cloud journal is still the one that
        was checked out: then nothing has happened in between. Raises CheckinConflict otherwise.
        """
        lock_id, by_hand = state.lock_id or "", not state.implicit
        if renewing:
            held = lock.renew(self.store, self.name, lock_id=lock_id, who=Who.here(), by_hand=by_hand)
        else:
            held = lock.read(self.store, self.name)
        if held is not None and held.id == lock_id:
            return state
        if held is None and state.base_etag is not None and self._etag() is None:
            raise self.gone(journal.path, "out")
        trouble = held.sentence if held else "somebody else is just taking it"
        if held is None and self._acquire(lock_id, journal_etag=state.base_etag, by_hand=by_hand) is not None:
            if self._etag() == state.base_etag:
                self.emit(Notice(f"the lock on {self.settings.journal.cloud} was broken and is taken again"))
                return state
            lock.release(self.store, self.name, lock_id=lock_id)
            trouble = "the cloud has another journal by now"
        raise CheckinConflict(
            f"{journal.path} was checked out, but its lock on {self.settings.journal.cloud} was broken: {trouble}",
            hint=self._way_on(journal.path),
        )

    def is_refused(self, journal: Journal, state: Custody) -> bool:
        """Whether the cloud has gone on without a journal that is checked out, so that it cannot be checked in.

        Raises JournalLocked while somebody else holds the cloud's: then that is not decided yet.
        """
        try:
            self.require_lock(journal, state)
        except CheckinConflict:
            held = lock.read(self.store, self.name)
            if held is not None and held.id != state.lock_id:
                raise self._locked(held) from None
            return True
        return self._etag() != state.base_etag

    def check_in(self, journal: Journal, state: Custody) -> None:
        """Replace the cloud journal, prove that it arrived, then let go of the lock.

        Raises CheckinConflict when the cloud has gone on without this journal.
        """
        state = self.require_lock(journal, state)
        require_finished_at(self.settings.journal.cloud)
        copy, replaced = beside(journal.path, "offered"), False
        try:
            discard(copy)
            private_file(copy).close()
            journal.copy_to(copy)
            offered = replace(state, state=CustodyState.OFFERED, offered=hash_file(copy)[0])
            custody.write(journal, offered)
            stored = self._replace(journal, copy, state)
            replaced = True
        finally:
            # Afterwards it is kept until there is a backup, whatever happens.
            if not replaced:
                discard(copy)
        state = replace(state, state=CustodyState.RETURNED, base_etag=stored.etag)
        custody.write(journal, state)
        self._back_up(copy, stored)
        self._let_go(journal, state)
        self.emit(JournalCheckedIn(cloud=state.cloud, local=str(journal.path), unchanged=False))

    def give_up_claim(self, local: Path) -> bool:
        """Remove the lock of a check-out that did not come to its end; gives whether there was one."""
        claim = read_claim(local)
        if claim is None:
            return False
        was_there = lock.release(self.store, self.name, lock_id=claim)
        clear(local)
        drop_claim(local)
        return was_there

    def _resume(self, journal: Journal, state: Custody, *, implicit: bool) -> Journal:
        if not implicit and state.implicit:
            # The user takes over what an interrupted command left.
            state = replace(state, implicit=False)
            custody.write(journal, state)
        self.require_lock(journal, state, renewing=True)
        # A claim may be left of the check-out that this goes on with.
        drop_claim(journal.path)
        self.emit(JournalCheckedOut(cloud=self.cloud, local=str(journal.path), created=False, resumed=True))
        return journal

    def _acquire(self, lock_id: str, *, journal_etag: str | None, by_hand: bool) -> Lock | None:
        return lock.acquire(
            self.store, self.name, lock_id=lock_id, journal_etag=journal_etag, who=Who.here(), by_hand=by_hand
        )

    def _locked(self, held: Lock | None) -> JournalLocked:
        who = held.sentence if held else "somebody else held it a moment ago"
        return JournalLocked(
            f"the journal {self.settings.journal.cloud} is locked: {who}",
            hint=held.advice if held else "Repeat the command.",
        )

    def _obtain(
        self, local: Path, hold: WriterLock, held: Lock, *, state: Custody | None, past: Trace | None, implicit: bool
    ) -> tuple[Journal, bool]:
        """Have the cloud journal as the local file, checked out; gives it, and whether it is a new one."""
        require_finished_at(self.settings.journal.cloud)
        found = self.store.stat(self.name)
        etag = found.etag if found else None
        lock.note_journal(self.store, self.name, held, journal_etag=etag)
        taken = Custody(
            cloud=self.cloud,
            state=CustodyState.OUT,
            lock_id=held.id,
            base_etag=etag,
            implicit=implicit,
            since_us=now_us(),
        )
        is_copy = state is not None and state.cloud == self.cloud
        if etag is None and is_copy:
            raise self.gone(local, "in")
        if state is not None and is_copy and state.base_etag == etag:
            # What was checked in here last is still what the cloud has.
            journal = Journal.open(local, hold=hold)
            custody.write(journal, taken)
            return journal, False
        # Fetched beside, and looked at, before anything that is here has to make room.
        fetched = beside(local, "fetched")
        discard(fetched)
        try:
            if etag is None:
                journal = Journal.create(fetched, hold=hold)
            else:
                if fetch_journal(self.store, self.settings.journal.cloud, fetched).etag != etag:
                    # By its etag we shall know at the check-in whether the cloud has gone on without us.
                    raise TransientError(f"{self.cloud} was another one a moment ago", hint="Repeat the command.")
                Journal.examine(fetched, known_as=self.cloud)
                journal = Journal.open(fetched, hold=hold)
            with journal:
                custody.write(journal, taken)
                has_all = is_copy and custody.continues(journal, past)
            if local.exists() and not has_all:
                why = f"{self.cloud} has not all that is in {local}" if is_copy else f"{local} is not from {self.cloud}"
                self.emit(Notice(f"{why}: it is kept as {move_aside(local)}", Level.WARNING))
            take_place(fetched, local)
        finally:
            discard(fetched)
        return Journal.open(local, hold=hold), etag is None

    def _replace(self, journal: Journal, copy: Path, state: Custody) -> StoredObject:
        try:
            return publish(self.store, self.name, copy, create_only=state.base_etag is None, if_match=state.base_etag)
        except (ObjectExists, PreconditionFailed):
            # Ours, if only the answer was lost and the request repeated.
            there = with_fingerprint(self.store, self.name, hash_file(copy)[0])
            if there is not None:
                return there
        custody.write(journal, state)
        raise CheckinConflict(
            f"{self.settings.journal.cloud} is not the journal that was checked out", hint=self._way_on(journal.path)
        )

    def _back_up(self, copy: Path, stored: StoredObject) -> None:
        try:
            keep_backup(self.store, self.name, copy, etag=stored.etag, number=self.settings.journal.backups)
        except StorageError as error:
            text = f"the journal is checked in, but its backups could not be seen to: {error.message}"
            self.emit(Notice(text, Level.WARNING))

    def _back_up_late(self, journal: Journal, state: Custody) -> None:
        """For a check-in that was killed between the replacement and the backup, or just after that."""
        copy, there = beside(journal.path, "offered"), self.store.stat(self.name)
        if copy.exists() and there is not None and there.etag == state.base_etag:
            newest = backups(self.store, self.name)[-1:]
            if not newest or with_fingerprint(self.store, newest[0], hash_file(copy)[0]) is None:
                self._back_up(copy, there)

    def _let_go(self, journal: Journal, state: Custody) -> Custody:
        """The cloud has it all: remove our lock, if it is still there, and note that."""
        lock.release(self.store, self.name, lock_id=state.lock_id or "")
        clear(journal.path)
        # That of a check-out, or an upgrade, that was killed when all but this was done.
        drop_claim(journal.path)
        # Nobody looks for them any more once the journal says that it was given back.
        sync_directory(journal.path.parent)
        state = replace(state, state=CustodyState.IN, lock_id=None, implicit=False)
        custody.write(journal, state)
        return state

    def gone(self, local: Path, how: str) -> JournalError:
        """The error for a cloud journal that is not there any more, from or to which `local` was checked out or in."""
        mount = "Is the share mounted that it is on? If it is: " if self.settings.journal.cloud.is_local else ""
        hint = f"put a backup back in its place, or {local} itself; to begin anew, move {local} away."
        return JournalError(
            f"there is no journal at {self.settings.journal.cloud} any more, but {local} was checked {how} there",
            hint=f"{mount}{hint}" if mount else f"{hint[0].upper()}{hint[1:]}",
        )

    def _etag(self) -> str | None:
        found = self.store.stat(self.name)
        return found.etag if found else None

    def _way_on(self, local: Path) -> str:
        return f"Nothing is lost: {local} stays as it is. `journal merge` takes its deliveries over into the cloud's."
