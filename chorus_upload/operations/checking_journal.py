"""`journal check`: whether the journal is sound in itself, and whether the cloud agrees. It only reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chorus_upload.config.settings import Settings
from chorus_upload.journal import checking, custody
from chorus_upload.journal.checking import Contents, Finding
from chorus_upload.journal.custody import Custody
from chorus_upload.journal.journal import Journal
from chorus_upload.model import CustodyState
from chorus_upload.operations import lock
from chorus_upload.operations.central import cloud_name
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store

__all__ = ["CheckFinished", "Contents", "Finding", "check_cloud", "check_journal", "finished"]


@dataclass(frozen=True, slots=True)
class CheckFinished:
    """The result of `journal check`: how many findings say that something is broken, and how many are remarks.

    `contents` is how much a sound journal holds.
    """

    broken: int
    remarks: int
    contents: Contents | None


def check_journal(journal: Journal) -> Iterator[Finding]:
    """Yield what is wrong with the journal, and what is worth knowing."""
    return checking.findings(journal)


def finished(journal: Journal, findings: Sequence[Finding]) -> CheckFinished:
    """What these findings come to."""
    broken = sum(each.is_broken for each in findings)
    contents = None if broken else checking.contents(journal)
    return CheckFinished(broken=broken, remarks=len(findings) - broken, contents=contents)


def check_cloud(journal: Journal, settings: Settings, *, given: bool) -> Iterator[Finding]:
    """Yield where this journal and the cloud disagree. `given` says that the user named this file.

    Raises StorageError when the cloud cannot be asked.
    """
    state = custody.read(journal)
    cloud = cloud_name(settings.journal.cloud)
    if state is None and given:
        yield Finding("cloud", "this file was not checked out: it was not compared with the cloud", is_broken=False)
    elif state is not None and state.cloud != cloud:
        yield Finding("other-cloud", f"it belongs to {state.cloud}, and the configuration names {cloud}")
    else:
        name = settings.journal.cloud_name
        with open_store(settings.journal.cloud_directory, Network.of(settings)) as store:
            held, there = lock.read(store, name), store.stat(name)
        yield from _compared(state, held, etag=there.etag if there else None)


def _compared(state: Custody | None, held: lock.Lock | None, *, etag: str | None) -> Iterator[Finding]:
    """What lock and etag of the cloud journal say of this one; `state` None: it was fetched just now."""
    if state is None or state.is_in:
        if held is not None:
            yield Finding("locked", held.sentence, is_broken=False)
        if state is not None and state.base_etag != etag:
            yield Finding("outdated", "this file is only a copy, and the cloud has another by now", is_broken=False)
        return
    if state.state is not CustodyState.OUT:
        # Whether the cloud has taken it is found out, and the rest done, by whoever writes next.
        yield Finding("check-in-open", "a check-in was interrupted: the next command finishes it", is_broken=False)
        return
    if held is not None and held.id != state.lock_id:
        yield Finding("lock-of-another", f"it is checked out here, and the cloud has another lock: {held.sentence}")
    if state.base_etag != etag:
        yield Finding("cloud-changed", "it is checked out here, and the cloud has another journal by now")
    elif held is None:
        detail = "its lock in the cloud was broken: the next command takes it again"
        yield Finding("lock-gone", detail, is_broken=False)
