"""`file download`: bring the state of a version back from the central store.

::

    journal: the state at the version ──▶ pool of receivers ──▶ outcomes ──▶ told

What is in the target already is left alone, so a run that was interrupted goes on when it is repeated.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.events import (
    DownloadFinished,
    DownloadPlanned,
    Emit,
    Level,
    Notice,
    Tally,
)
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.state import State
from chorus_upload.journal.versions import Version
from chorus_upload.layout import check_version_label
from chorus_upload.operations.destination import Choice, store_of
from chorus_upload.operations.early_end import told_early_end
from chorus_upload.operations.extras import Agree, find_extras, settle_extras
from chorus_upload.operations.overlap import require_apart
from chorus_upload.operations.receiving import Receiving
from chorus_upload.operations.selecting import chosen_patients, chosen_version, selected_modalities
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store
from chorus_upload.storage.target import Target
from chorus_upload.transfer.pool import Pool, ThreadPool
from chorus_upload.transfer.receiver import Receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRequest:
    """What the user asked for. `version` None is the last one; `to` None a directory of that name, right here.

    `overwrite` has other files in the target give way. `reread` has files that are there compared by content.
    `delete_extra` has what the version does not have removed from the target, when all of the version is there.
    """

    version: str | None = None
    modalities: tuple[str, ...] | None = None
    patients: tuple[str, ...] | None = None
    to: Path | None = None
    overwrite: bool = False
    reread: bool = False
    delete_extra: bool = False
    destination: Choice | None = None


def download(
    journal: Journal,
    settings: Settings,
    request: DownloadRequest,
    *,
    emit: Emit,
    pool: Pool | None = None,
    stop: threading.Event | None = None,
    agree: Agree = lambda _: True,
) -> DownloadFinished:
    """Bring back the files of a version, each under its path below the source's root.

    Trouble with single files is in the result. Raises ConfigError for what the journal does not have, StorageError
    when nothing can be read from the central store or written to the target, KeyboardInterrupt when `stop` is set
    meanwhile: what is complete stays, and so does what is there of large files. `agree` is asked before extra files are
    removed.
    """
    stop = stop or threading.Event()
    begun = time.monotonic()
    version = _chosen_version(journal, request.version, emit=emit)
    location = settings.central.location
    url = store_of(journal, settings, request.destination, writes=False)
    state = State(
        journal,
        version=version.id,
        modalities=selected_modalities(settings, request.modalities),
        patients=chosen_patients(journal, request.patients),
    )
    to = request.to or _usual_place(version)
    require_apart(settings, to, replaces=request.overwrite or request.delete_extra)
    with state, open_store(location, Network.of(settings), stop=stop, others_follow=True) as store:
        wanted = state.tally()
        _require_sense(state, wanted, version, request)
        store.probe()
        target = Target(to)
        emit(DownloadPlanned(version.label, url, str(target), wanted))
        _warn_of_little_room(target, wanted, emit=emit)
        run = Receiving(wanted, store, emit)
        receiver = Receiver(
            store, target, overwrite=request.overwrite, reread=request.reread, stop=stop, on_bytes=run.under_way
        )
        try:
            with told_early_end(emit, lambda: run.until_now):
                files = state.files(url=url)
                run.receive_all(receiver, files, pool or ThreadPool(settings.num_threads, stop=stop), stop)
        finally:
            target.close(is_done=run.is_done)
    extra = None
    if request.overwrite or request.delete_extra:
        # Whatever was asked for: what the version has is not extra.
        with State(journal, version=version.id) as whole:
            extras = find_extras(whole, target, emit=emit)
        why_kept = _why_kept(request, version, run)
        extra = settle_extras(extras, target, settings, why_kept=why_kept, agree=agree, emit=emit)
    finished = run.finished(version=version.label, origin=url, target=str(target), seconds=time.monotonic() - begun)
    return replace(finished, extra=extra)


def _why_kept(request: DownloadRequest, version: Version, run: Receiving) -> str:
    """Why what is extra in the target is not removed; empty when it is to be."""
    if not request.delete_extra:
        return "--delete-extra removes what the version does not have"
    if run.failures:
        return "nothing is removed while files of the version are missing"
    if version.completed_us is None:
        return "nothing is removed for a version that was not finished"
    return ""


def _chosen_version(journal: Journal, label: str | None, *, emit: Emit) -> Version:
    version = chosen_version(journal, label)
    if version.pruned_us is not None:
        raise ConfigError(
            f"`journal prune` has dropped what came and went at version {version.label}",
            hint="Versions after it can be brought back: `journal list` shows them.",
        )
    if version.completed_us is None:
        emit(Notice(f"version {version.label} was not finished: files may be missing in it", Level.WARNING))
    return version


def _usual_place(version: Version) -> Path:
    """A directory right here; LayoutError for a label that leads elsewhere, as none of ours does."""
    check_version_label(version.label)
    return Path(version.label)


def _require_sense(state: State, wanted: Tally, version: Version, request: DownloadRequest) -> None:
    if not wanted.files:
        of = "" if request.patients is None else f" of {' or '.join(request.patients)}"
        raise ConfigError(
            f"version {version.label} has no such files{of}", hint="`journal list` shows what each version has."
        )
    if clash := state.clash():
        path, modalities = clash
        raise ConfigError(
            f"{modalities} both have a file {path}, and they differ",
            hint="Bring them back one by one, with --modalities, and each --to a directory of its own.",
        )


def _warn_of_little_room(target: Target, wanted: Tally, *, emit: Emit) -> None:
    with suppress(OSError):
        free = shutil.disk_usage(str(target)).free
        if free < wanted.bytes:
            emit(
                Notice(
                    f"{target} has room for {free:,} bytes more, and the files have {wanted.bytes:,} in all:"
                    " it will do only if most of them are there already",
                    Level.WARNING,
                )
            )
