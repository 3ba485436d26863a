"""`journal upgrade`: a journal of the older tool becomes one of ours, and the original is kept under a dated name.

::

    fetch ──▶ of the older tool? ──▶ lock ──▶ convert beside ──▶ prove ──▶ keep the original ──▶ check in

What is made is a local journal that is checked out from the old one in the cloud, so a death after that is the
death of any command: the next one checks in. A death before it leaves the claim, and this command begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import JournalError, JournalLocked, JournalNotCheckedOut, ObjectExists, StorageError
from chorus_upload.events import Emit, JournalUpgraded, Level, Notice
from chorus_upload.journal.custody import Custody
from chorus_upload.journal.database import WriterLock
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.legacy import generation_of
from chorus_upload.model import CustodyState, Twin
from chorus_upload.operations import lock
from chorus_upload.operations.converting import Conversion
from chorus_upload.operations.destination import Choice
from chorus_upload.operations.handover import Handover, sole_use
from chorus_upload.operations.local_files import (
    beside,
    copy_at_rest,
    discard,
    drop_claim,
    fetch_journal,
    move_aside,
    require_at_rest,
    require_one_name,
    take_place,
)
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store, require_supported
from chorus_upload.storage.store import Store, StoredObject
from chorus_upload.transfer.evidence import with_fingerprint
from chorus_upload.transfer.publish import hash_file, publish


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """What the user asked for.

    `local_journal` is a file to convert in place, without the cloud; None means the cloud journal. `arguments` are
    what the history keeps of the command line.
    """

    local_journal: Path | None = None
    confirm_omissions: bool = False
    destination: Choice | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)


def upgrade(
    settings: Settings, request: UpgradeRequest, *, emit: Emit, redact: Callable[[str], str]
) -> JournalUpgraded | None:
    """Convert the journal; None, and a notice, when it is one of ours already.

    `redact` masks credentials in what the old history holds. Raises JournalLocked when somebody has the journal, the
    older tool included, JournalError when it is damaged, foreign, or has rows that cannot be taken over, and
    DestinationChanged when its uploads are not in the central store and the user has not said what that means. Then
    nothing was changed.
    """
    require_supported(settings)
    conversion = Conversion(
        settings,
        confirm_omissions=request.confirm_omissions,
        destination=request.destination,
        arguments=request.arguments,
        emit=emit,
        redact=redact,
    )
    if request.local_journal is not None:
        return _upgrade_file(request.local_journal, conversion, emit=emit)
    return _upgrade_cloud(settings, conversion, emit=emit)


def _upgrade_cloud(settings: Settings, conversion: Conversion, *, emit: Emit) -> JournalUpgraded | None:
    local = settings.journal.local_path
    with (
        open_store(settings.journal.cloud_directory, Network.of(settings)) as store,
        sole_use(local) as hold,
        _workplace(local) as (original, converted),
    ):
        handover = Handover(settings, store, emit)
        is_old_too = generation_of(local) is not None
        if local.exists() and not is_old_too and _is_checked_out(handover, local, hold):
            _tell_nothing_to_do(str(local), emit=emit)
            return None
        found = _require_there(handover)
        fetch_journal(store, settings.journal.cloud, original)
        generation = generation_of(original)
        if generation is None:
            Journal.examine(original, known_as=handover.cloud)
            if is_old_too:
                _set_aside(local, emit=emit)
            _tell_nothing_to_do(handover.cloud, emit=emit)
            return None
        if settings.journal.cloud.is_local:
            require_one_name(settings.journal.cloud.local_path)
        held = handover.take_lock(local, by_hand=False)
        try:
            _require_same(handover, found)
            taken = Custody(
                cloud=handover.cloud,
                state=CustodyState.OUT,
                lock_id=held.id,
                base_etag=found.etag,
                implicit=True,
                since_us=now_us(),
            )
            result = conversion.convert(original, generation, converted, known_as=handover.cloud, taken=taken)
            kept = _keep_in_cloud(store, handover.name, original, found)
            if local.exists():
                _set_aside(local, emit=emit)
            take_place(converted, local)
        except BaseException:
            # A lock that cannot be given back now keeps its claim, and the next command does it.
            with suppress(StorageError):
                handover.give_up_claim(local)
            raise
        drop_claim(local)
        with Journal.open(local, hold=hold) as journal:
            handover.check_in(journal, taken)
        return replace(result, original=f"{settings.journal.cloud_directory}/{kept}")


def _is_checked_out(handover: Handover, local: Path, hold: WriterLock) -> bool:
    """Whether the local journal was checked out; what an interrupted command left is checked in by this."""
    with Journal.open(local, hold=hold) as journal:
        state = handover.settled(journal)
        if state is None or state.is_in:
            return False
        # Of an upgrade that ended before it could drop it: the journal itself says now whose lock that is.
        drop_claim(local)
        if state.implicit:
            handover.check_in(journal, state)
        return True


def _upgrade_file(path: Path, conversion: Conversion, *, emit: Emit) -> JournalUpgraded | None:
    if not path.exists():
        raise JournalNotCheckedOut(f"there is no journal at {path}")
    with sole_use(path), _workplace(path) as (original, converted):
        generation = generation_of(path)
        if generation is None:
            Journal.examine(path, known_as=str(path))
            _tell_nothing_to_do(str(path), emit=emit)
            return None
        require_one_name(path)
        before = require_at_rest(path)
        copy_at_rest(path, original)
        result = conversion.convert(original, generation, converted, known_as=str(path), taken=None)
        if require_at_rest(path) != before:
            raise JournalError(f"{path} has just changed", hint="Let the older tool end, then repeat the command.")
        kept = _keep_beside(path, original)
        converted.replace(path)
    return replace(result, original=str(kept))


def _require_there(handover: Handover) -> StoredObject:
    found = handover.store.stat(handover.name)
    if found is not None:
        return found
    # The older tool leaves only its lock, which is a copy of the journal.
    held = lock.read(handover.store, handover.name)
    if held is not None:
        raise JournalLocked(f"the journal {handover.cloud} is locked: {held.sentence}", hint=held.advice)
    raise JournalNotCheckedOut(
        f"there is no journal at {handover.cloud}",
        hint="`journal upgrade --local-journal FILE` converts one that lies on this machine.",
    )


def _require_same(handover: Handover, found: StoredObject) -> None:
    """Raise JournalError unless the cloud journal is still the one that was fetched."""
    if _require_there(handover).etag != found.etag:
        raise JournalError(f"{handover.cloud} has just changed", hint="Repeat the command.")


def _tell_nothing_to_do(journal: str, *, emit: Emit) -> None:
    emit(Notice(f"{journal} is a journal of this chorus-upload: there is nothing to upgrade"))


def _set_aside(local: Path, *, emit: Emit) -> None:
    aside = move_aside(local)
    emit(Notice(f"{local} made room and is kept as {aside}; what was not checked in is only there", Level.WARNING))


@contextmanager
def _workplace(path: Path) -> Iterator[tuple[Path, Path]]:
    """Two names beside a journal, for the original and for what is made of it; both are free before and after."""
    names = beside(path, "original"), beside(path, "converted")
    try:
        for name in names:
            discard(name)
        yield names
    finally:
        for name in names:
            discard(name)


def _dated(name: str, seconds: float) -> Iterator[str]:
    """The names under which a journal of that time may be kept; more than the first are hardly ever needed."""
    dated = f"{name}.{datetime.fromtimestamp(seconds).astimezone():%Y%m%d%H%M%S}"
    yield dated
    yield from (f"{dated}-{number}" for number in count(2))


def _keep_in_cloud(store: Store, name: str, original: Path, found: StoredObject) -> str:
    """Keep the old journal beside itself, and prove it; gives its key, which is the same when this is repeated."""

    def is_kept(key: str) -> bool:
        try:
            publish(store, key, original, create_only=True, twin=Twin(name, found.etag))
        except ObjectExists:
            return with_fingerprint(store, key, hash_file(original)[0]) is not None
        return True

    return next(key for key in _dated(name, found.time_us / 1e6) if is_kept(key))


def _keep_beside(path: Path, original: Path) -> Path:
    """Keep the copy of an old journal under its dated name; gives that, which is the same when this is repeated."""
    for kept in map(path.with_name, _dated(path.name, path.stat().st_mtime)):
        if not kept.exists():
            return original.rename(kept)
        if hash_file(kept) == hash_file(original):
            return kept
    raise AssertionError("there are always more names")
