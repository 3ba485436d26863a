"""`journal merge`: what a refused journal has delivered is recorded in the one that the cloud has now.

A journal is *refused* when it cannot be checked in because the cloud has gone on without it. It is moved aside
under a dated name and never changed, but for one thing: once its deliveries are in the cloud, it is nobody's copy
any more, so that it stands in nobody's way. Each step may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import JournalError, JournalNotCheckedOut
from chorus_upload.events import Emit, FilesMarked, Notice
from chorus_upload.journal import custody, merging
from chorus_upload.journal.journal import Journal
from chorus_upload.operations import lock
from chorus_upload.operations.central import destination_url
from chorus_upload.operations.handover import Handover, sole_use
from chorus_upload.operations.local_files import move_aside, moved_aside, write_claim
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
    cloud = destination_url(settings.journal.cloud)
    return [aside for aside in moved_aside(local) if _is_refused_copy(aside, cloud)]


def merge(journal: Journal, settings: Settings, refused: Sequence[Path], *, emit: Emit) -> FilesMarked:
    """Take over what these journals delivered and `journal` knows nothing of."""
    taken, reasons = 0, dict[str, str]()
    for path in refused:
        Journal.examine(path, known_as=str(path))
        with Journal.open(path) as other:
            state = custody.read(other)
            if state is not None and state.cloud != destination_url(settings.journal.cloud):
                raise JournalError(f"{path} is of another cloud journal: {state.cloud}")
            merged = merging.take_over(journal, other)
        emit(
            Notice(
                f"{path}: {merged.taken} taken over, {merged.known} known already, {len(merged.refused)} not taken over"
            )
        )
        taken += merged.taken
        reasons |= {each.key: each.reason.text for each in merged.refused}
    return FilesMarked(what="delivered", marked=taken, refused=reasons)


def settle(settings: Settings, refused: Sequence[Path], *, emit: Emit) -> None:
    """Let journals whose deliveries are taken over stand in nobody's way any more."""
    cloud = destination_url(settings.journal.cloud)
    for path in refused:
        with Journal.open(path) as other:
            state = custody.read(other)
            if state is not None and state.cloud == cloud:
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
