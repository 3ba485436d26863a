"""`file upload`: send what the central store has not got, prove each file, record the proof.

::

    may we? ──▶ plan (journal, largest first) ──▶ pool of senders ──▶ outcomes ──▶ one writer ──▶ journal
                                                                                       └──▶ manifest and journal copy

Nothing is recorded that was not proven. What was proven and not recorded (a kill) is recognised by reading
it back, and not sent again. A submission that is interrupted stays open, and the next upload goes on with it.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from chorus_upload.config.own_secrets import SecretSearch
from chorus_upload.config.settings import Overwrite, Settings
from chorus_upload.errors import (
    CredentialsExpired,
    LayoutError,
)
from chorus_upload.events import Emit, FileFailed, FilePlanned, Tally, UploadFinished, UploadPlanned
from chorus_upload.journal import deliveries, submissions
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.who import Who
from chorus_upload.layout import new_version_label
from chorus_upload.model import FailureKind, Transfer
from chorus_upload.operations.access import ExpiryWatch, check_token
from chorus_upload.operations.central import PlannedKeys
from chorus_upload.operations.destination import Choice, destination_of, store_of
from chorus_upload.operations.early_end import told_early_end
from chorus_upload.operations.outcomes import Outcomes
from chorus_upload.operations.proof import leave_proofs
from chorus_upload.operations.scanning import open_sources
from chorus_upload.operations.selecting import chosen_label, selected_modalities, tell_of_others
from chorus_upload.operations.sending import Run
from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import forget_sessions, is_sequential, open_store
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import AdaptivePool, Pool, ThreadPool
from chorus_upload.transfer.reader import BLOCK
from chorus_upload.transfer.sender import Sender, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """What the user asked for. `max_files` is a total over all modalities; None means no limit."""

    version: str | None = None
    modalities: tuple[str, ...] | None = None
    max_files: int | None = None
    dry_run: bool = False
    destination: Choice | None = None


def upload(
    journal: Journal,
    settings: Settings,
    request: UploadRequest,
    *,
    emit: Emit,
    pool: Pool | None = None,
    stop: threading.Event | None = None,
) -> UploadFinished:
    """Deliver what is pending.

    Trouble with single files is in the result. Raises StorageError when no file can be delivered (no
    permission, an expired credential, no container): as far as that can be told, before anything was done; what
    was delivered before is recorded. When `stop` is set, small files under way are finished and recorded, large
    ones given up, and KeyboardInterrupt raised.
    """
    stop = stop or threading.Event()
    begun = time.monotonic()
    modalities = selected_modalities(settings, request.modalities)
    chosen_label(journal, settings, request.version)
    selection = Selection(version=request.version, modalities=modalities)
    central = settings.central
    choice = request.destination
    url = (
        destination_of(journal, settings, choice)
        if request.dry_run
        else store_of(journal, settings, choice, writes=True)
    )
    if request.modalities is None:
        tell_of_others(journal, settings, url=url, emit=emit)
    in_order = [name for name in modalities if is_sequential(settings.sites[name].location)]
    pending = deliveries.plan(journal, url=url, selection=selection, limit=request.max_files, in_order=in_order)
    if request.dry_run:
        emit(UploadPlanned(submission="", destination=url, pending=pending, dry_run=True))
        return _dry_run(journal, settings, request, url=url, selection=selection, emit=emit)

    expires = _expiry(settings, emit=emit)
    with ExitStack() as stack:
        _, sources = stack.enter_context(open_sources(settings, modalities, stop=stop))
        traffic = Traffic(
            settings.num_threads,
            throttle=Throttle(settings.bandwidth_limit, stop=stop),
            stop=stop,
            patience=settings.retry_seconds,
        )
        local = settings.journal.local_path
        sessions = local.with_name(f"{local.name}.sessions")
        store = stack.enter_context(
            open_store(
                central.location,
                Network.of(settings),
                traffic=traffic,
                stop=stop,
                sessions=sessions,
                others_follow=True,
            )
        )
        store.probe()
        submission = submissions.begin(
            journal, url=url, label=new_version_label(datetime.now().astimezone()), who=Who.here()
        )
        emit(UploadPlanned(submission=submission.label, destination=url, pending=pending))
        terms = Terms(
            accept_size=settings.accept_size_evidence,
            replace=central.overwrite is Overwrite.REPLACE,
            tier=central.tier,
            holds_secret=SecretSearch.of(settings),
        )
        meter = Meter()
        sender = Sender(sources, store, terms, meter=meter, traffic=traffic, stop=stop)
        outcomes = Outcomes(pending, meter, ExpiryWatch(expires, emit=emit), emit)
        run = Run(journal, settings, submission, sender, outcomes, probe=store.probe, stop=stop)
        with told_early_end(emit, lambda: outcomes.until_now):
            run.send_all(pool or _pool(settings, in_order=bool(in_order), stop=stop), at_most=request.max_files)
            if stop.is_set():
                raise KeyboardInterrupt
            proofs = leave_proofs(journal, settings, submission, store, emit=emit)
    if not proofs.refused:
        submissions.complete(journal, submission)
    if not deliveries.pending_tally(journal, url=url, selection=Selection(modalities=settings.modalities)).files:
        forget_sessions(sessions)
    return UploadFinished(
        submission=submission.label if proofs.manifests or proofs.refused else None,
        destination=url,
        delivered=outcomes.sent,
        already_there=outcomes.already_there,
        failed=sum(outcomes.failures.values()),
        remaining=deliveries.pending_tally(journal, url=url, selection=Selection(modalities=modalities)),
        spared=outcomes.spared,
        replaced=outcomes.replaced,
        failures=outcomes.failures,
        evidence=outcomes.evidence,
        manifests=proofs.manifests,
        manifests_refused=tuple(proofs.refused),
        seconds=time.monotonic() - begun,
    )


def _expiry(settings: Settings, *, emit: Emit) -> datetime | None:
    """When the token of the central store does; one that has expired is no trouble for whoever waits for another."""
    try:
        return check_token(settings.central.location, emit=emit)
    except CredentialsExpired:
        if not settings.credential_seconds:
            raise
        return None


def _pool(settings: Settings, *, in_order: bool, stop: threading.Event) -> Pool:
    """What sends to this central store: a service makes each file wait, a disk hardly any.

    The caller's own thread, which tells what happens, should not wait for its turn.
    """
    if settings.central.location.is_local and not in_order:
        return AdaptivePool(settings.num_threads, is_long=_is_long, stop=stop)
    return ThreadPool(settings.num_threads, stop=stop)


def _is_long(transfer: Transfer) -> bool:
    return transfer.size > BLOCK


def _dry_run(
    journal: Journal, settings: Settings, request: UploadRequest, *, url: str, selection: Selection, emit: Emit
) -> UploadFinished:
    keys = PlannedKeys(journal, settings, destination=deliveries.destination_id(journal, url))
    keyed = (pair for page in deliveries.planned(journal) for pair in zip(page, keys.of(page), strict=True))
    failed = 0
    for file, key in islice(keyed, request.max_files):
        if isinstance(key, LayoutError):
            failed += 1
            emit(FileFailed(file.path, "", file.modality, FailureKind.REFUSED, key.message))
        else:
            emit(FilePlanned(path=file.path, key=key, modality=file.modality, size=file.size))
    return UploadFinished(
        submission=None,
        destination=url,
        delivered=Tally(),
        already_there=Tally(),
        failed=failed,
        remaining=deliveries.pending_tally(journal, url=url, selection=selection),
    )
