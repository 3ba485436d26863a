"""`journal merge`: what a refused journal has delivered is recorded in the one that the cloud has now.

A journal is *refused* when it cannot be checked in because the cloud has gone on without it. It is moved aside
under a dated name and only read, from a copy. One thing is changed in it: once all its deliveries are in the cloud, it
is nobody's copy any more, so that it is not offered again. A journal that was named is not even changed in that. Each
step may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import JournalError, JournalNotCheckedOut
from chorus_upload.events import Emit, FilesMarked, Level, Notice
from chorus_upload.journal import custody, destinations, merging
from chorus_upload.journal.journal import Journal
from chorus_upload.operations import lock
from chorus_upload.operations.central import cloud_name, every_name
from chorus_upload.operations.handover import Handover, sole_use
from chorus_upload.operations.local_files import copy_at_rest, move_aside, moved_aside, scratch_directory, write_claim
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store


def find_refused(settings: Settings, *, other: Path | None, local_journal: Path | None, emit: Emit) -> list[Path]:
    """The journals to merge: `other`, or the local one if it was refused, and those that were moved aside before.

    A refused local journal is moved aside here. Raises JournalLocked while somebody else holds the cloud's.
    """
    local = local_journal or settings.journal.local_path
    if other is not None and other.resolve() != local.resolve():
        if not other.exists():
            raise JournalNotCheckedOut(f"there is no journal at {other}")
        return [other]
    if local.exists():
        _move_if_refused(settings, local, emit=emit)
    cloud = cloud_name(settings.journal.cloud)
    return [aside for aside in moved_aside(local) if _is_refused_copy(aside, cloud)]


@dataclass(frozen=True, slots=True)
class Merged:
    """What was taken over, and which of the journals have nothing left to take over."""

    report: FilesMarked
    exhausted: tuple[Path, ...]


def merge(journal: Journal, settings: Settings, refused: Sequence[Path], *, emit: Emit) -> Merged:
    """Take over what these journals delivered and `journal` knows nothing of; they are only read."""
    taken, reasons, exhausted = 0, dict[str, str](), list[Path]()
    for path in refused:
        merged = _merge_one(journal, settings, path)
        emit(
            Notice(
                f"{path}: {merged.taken} taken over, {merged.known} known already, {len(merged.refused)} not taken over"
            )
        )
        taken += merged.taken
        reasons |= {each.key: each.reason.text for each in merged.refused}
        if not merged.refused:
            exhausted.append(path)
    return Merged(FilesMarked(what="delivered", marked=taken, refused=reasons), tuple(exhausted))


def _merge_one(journal: Journal, settings: Settings, path: Path) -> merging.Merged:
    with scratch_directory() as directory:
        copy = directory / "journal.db"
        copy_at_rest(path, copy)
        Journal.examine(copy, known_as=str(path))
        with Journal.open(copy) as other:
            state = custody.read(other)
            if state is not None and state.cloud != cloud_name(settings.journal.cloud):
                raise JournalError(f"{path} is of another cloud journal: {state.cloud}")
            present, *earlier = every_name(settings.central.location)
            is_known = any(each.url == present for each in destinations.known(journal))
            return merging.take_over(journal, other, renamed=dict.fromkeys(earlier, present) if is_known else {})


def settle(refused: Sequence[Path], merged: Merged, *, named: Path | None, emit: Emit) -> None:
    """Say what becomes of each journal. One that is exhausted is offered no more, unless it was `named` by the user."""
    for path in refused:
        if path not in merged.exhausted:
            again = f"`journal merge {path}`" if path == named else "`journal merge`"
            emit(
                Notice(
                    f"{path} is kept: not all that it delivered is in the present journal. When that has the versions"
                    f" and files that are named, {again} takes the rest over",
                    Level.WARNING,
                )
            )
        elif path != named:
            with Journal.open(path) as other:
                custody.clear(other)
            emit(Notice(f"{path} is kept, and not needed any more"))


def _move_if_refused(settings: Settings, local: Path, *, emit: Emit) -> None:
    with (
        open_store(settings.journal.cloud_directory, Network.of(settings)) as store,
        sole_use(local) as hold,
    ):
        handover = Handover(settings, store, emit)
        with Journal.open(local, hold=hold) as journal:
            state = handover.settled(journal)
            if state is None or state.is_in or not handover.is_refused(journal, state):
                return
        held = lock.read(store, handover.name)
        if held is not None and held.id == state.lock_id:
            # Still ours: the check-out that follows goes on with it.
            write_claim(local, held.id)
        emit(Notice(f"{local} was refused: it is kept as {move_aside(local)}"))


def _is_refused_copy(path: Path, cloud: str) -> bool:
    """Whether a journal that was moved aside is the continuation of this cloud's, and not settled yet."""
    try:
        with Journal.open(path, read_only=True) as journal:
            state = custody.read(journal)
    except JournalError:
        return False
    return state is not None and not state.is_in and state.cloud == cloud
