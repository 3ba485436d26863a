"""`file upload`: send what the central store has not got, prove each file, record the proof.

::

    plan (journal, largest first) ──▶ pool of senders ──▶ outcomes ──▶ one writer ──▶ journal
                                                                          └──▶ manifest and journal copy

Nothing is recorded that was not proven. What was proven and not recorded (a kill) is recognised by reading
it back, and not sent again. A submission that is interrupted stays open, and the next upload goes on with it.
"""

from __future__ import annotations

import csv
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import LayoutError, StorageError
from chorus_upload.events import (
    Emit,
    FileDelivered,
    FileFailed,
    FilePlanned,
    Notice,
    Tally,
    UploadFinished,
    UploadPlanned,
    UploadProgressed,
)
from chorus_upload.journal import deliveries, submissions
from chorus_upload.journal.deliveries import PendingFile, Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.submissions import Submission
from chorus_upload.journal.who import Who
from chorus_upload.layout import new_version_label
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, Outcome, Transfer
from chorus_upload.operations.central import Keys, destination_url, is_cloud_journal, transfer_of
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.scanning import open_sources
from chorus_upload.operations.selecting import require_version, selected_modalities
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store
from chorus_upload.storage.store import Store
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import Pool, ThreadPool
from chorus_upload.transfer.publish import publish
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.sender import Sender

RECORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """What the user asked for. `max_files` is a total over all modalities; None means no limit."""

    version: str | None = None
    modalities: tuple[str, ...] | None = None
    max_files: int | None = None
    dry_run: bool = False


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
    permission, an expired credential, no container); what was delivered before that is recorded. When `stop`
    is set, small files under way are finished and recorded, large ones given up, and KeyboardInterrupt raised.
    """
    stop = stop or threading.Event()
    begun = time.monotonic()
    modalities = selected_modalities(settings, request.modalities)
    require_version(journal, request.version)
    selection = Selection(version=request.version, modalities=modalities)
    url = destination_url(settings.central.location)
    pending = deliveries.plan(journal, url=url, selection=selection, limit=request.max_files)
    if request.dry_run:
        emit(UploadPlanned(submission="", destination=url, pending=pending, dry_run=True))
        return _dry_run(journal, settings, request, selection=selection, emit=emit)

    submission = submissions.begin(
        journal, url=url, label=new_version_label(datetime.now().astimezone()), who=Who.here()
    )
    emit(UploadPlanned(submission=submission.label, destination=url, pending=pending))
    with ExitStack() as stack:
        _, sources = stack.enter_context(open_sources(settings, modalities))
        store = stack.enter_context(open_store(settings.central.location, Network.of(settings), stop=stop))
        meter = Meter()
        sender = Sender(sources, store, accept_size=settings.accept_size_evidence, meter=meter, stop=stop)
        run = _Run(journal, settings, submission, sender, meter=meter, total=pending, emit=emit, stop=stop)
        run.send_all(pool or ThreadPool(settings.num_threads, stop=stop), at_most=request.max_files)
        if stop.is_set():
            raise KeyboardInterrupt
        manifests = [
            _leave_proof(journal, settings, submission, store, version=version)
            for version in submissions.versions_written(journal, submission)
        ]
    submissions.complete(journal, submission)
    return UploadFinished(
        submission=submission.label if manifests else None,
        destination=url,
        delivered=run.sent,
        already_there=run.already_there,
        failed=sum(run.failures.values()),
        remaining=deliveries.pending_tally(journal, url=url, selection=Selection(modalities=modalities)),
        failures=run.failures,
        evidence=run.evidence,
        manifests=tuple(manifests),
        seconds=time.monotonic() - begun,
    )


def _dry_run(
    journal: Journal, settings: Settings, request: UploadRequest, *, selection: Selection, emit: Emit
) -> UploadFinished:
    keys, url = Keys(settings), destination_url(settings.central.location)
    failed = 0
    for file in islice(chain.from_iterable(deliveries.planned(journal)), request.max_files):
        try:
            key = keys.key(modality=file.modality, path=file.path, version=file.version)
        except LayoutError as error:
            failed += 1
            emit(FileFailed(file.path, "", file.modality, FailureKind.REFUSED, error.message))
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


class _Run:
    """One pass over the plan: feeds the pool, records what is proven, tells what happens."""

    def __init__(
        self,
        journal: Journal,
        settings: Settings,
        submission: Submission,
        sender: Sender,
        *,
        meter: Meter,
        total: Tally,
        emit: Emit,
        stop: threading.Event,
    ) -> None:
        self._journal = journal
        self._submission = submission
        self._sender = sender
        self._keys = Keys(settings)
        self._url = destination_url(settings.central.location)
        self._most_unrecorded = settings.page_size
        self._meter = meter
        self._total = total
        self._emit = emit
        self._stop = stop
        self._distrusted: list[int] = []
        self._unrecorded: list[Delivered] = []
        self.sent = Tally()
        self.already_there = Tally()
        self.failures: Counter[FailureKind] = Counter()
        self.evidence: Counter[Evidence] = Counter()

    def send_all(self, pool: Pool, *, at_most: int | None) -> None:
        """Deliver the plan, or `at_most` so many files of it: those that fail do not count."""
        transfers = self._transfers()
        while True:
            delivered = self.sent.files + self.already_there.files
            batch = list(islice(transfers, at_most - delivered)) if at_most is not None else None
            if batch != []:
                self._send_batch(pool, transfers if batch is None else batch)
            if not batch or self._stop.is_set():
                return

    def _send_batch(self, pool: Pool, transfers: Iterable[Transfer]) -> None:
        """What concerns every file ends it: what is under way is finished, then it is raised."""
        trouble: StorageError | None = None
        record_pace, report_pace = Pace(RECORD_SECONDS), Pace(0.2)
        told = False
        try:
            for outcome in pool.run(self._send, transfers):
                match outcome:
                    case Delivered():
                        self._unrecorded.append(outcome)
                    case Failed():
                        self._fail(outcome)
                    case StorageError():
                        self._stop.set()
                        trouble = trouble or outcome
                if len(self._unrecorded) >= self._most_unrecorded or record_pace.is_due():
                    self._record()
                if report_pace.is_due():
                    self._report()
                if self._stop.is_set() and trouble is None and not told:
                    told = True
                    self._emit(Notice("stopping: small files on their way are finished; once more stops at once"))
        finally:
            self._record()
            deliveries.distrust(self._journal, self._distrusted)
            self._report()
        if trouble is not None:
            raise trouble

    def _send(self, transfer: Transfer) -> Outcome | StorageError | None:
        """Runs in the threads of the pool; None when the run was stopped before this file began."""
        if self._stop.is_set():
            return None
        try:
            return self._sender.send(transfer)
        except Stopped:
            return None
        except StorageError as error:
            return error

    def _transfers(self) -> Iterator[Transfer]:
        earlier = deliveries.superseded_content(self._journal)
        for page in deliveries.planned(self._journal):
            keyed: list[tuple[PendingFile, str]] = []
            for file in page:
                try:
                    keyed.append((file, self._keys.key(modality=file.modality, path=file.path, version=file.version)))
                except LayoutError as error:
                    self._fail(Failed(transfer_of(file, key=""), FailureKind.REFUSED, error.message))
            superseded = deliveries.superseded_etags(self._journal, url=self._url, keys=[key for _, key in keyed])
            for file, key in keyed:
                if self._stop.is_set():
                    return
                yield transfer_of(file, key=key, replaces=superseded.get(key), superseded=earlier.get(file.id, ()))

    def _fail(self, outcome: Failed) -> None:
        self.failures[outcome.kind] += 1
        if outcome.kind is FailureKind.CHANGED:
            # Its time and size may not show it: without this the next update would find nothing to do.
            self._distrusted.append(outcome.transfer.file_id)
        self._emit(FileFailed.of(outcome))

    def _record(self) -> None:
        """Put what is proven into the journal, and only then say so."""
        if not self._unrecorded:
            return
        deliveries.record(self._journal, self._submission, self._unrecorded)
        for done in self._unrecorded:
            size = Tally(1, done.transfer.size)
            self.sent += size if done.sent else Tally()
            self.already_there += Tally() if done.sent else size
            self.evidence[done.evidence] += 1
            self._emit(FileDelivered.of(done))
        self._unrecorded.clear()

    def _report(self) -> None:
        under_way, current = self._meter.snapshot()
        unrecorded = sum(done.transfer.size for done in self._unrecorded)
        done = self.sent + self.already_there
        self._emit(
            UploadProgressed(
                files=done.files + sum(self.failures.values()) + len(self._unrecorded),
                files_total=self._total.files,
                bytes=done.bytes + unrecorded + under_way,
                bytes_total=self._total.bytes,
                current=current,
            )
        )


def manifest_key(version: str, submission: str) -> str:
    """Where the manifest of a submission is, in each version folder that it wrote to."""
    return f"{version}/manifest-{submission}.csv"


def _leave_proof(journal: Journal, settings: Settings, submission: Submission, store: Store, *, version: str) -> str:
    """Put the manifest and a copy of the journal into a version folder; gives the manifest's key."""
    with tempfile.TemporaryDirectory(prefix="chorus-upload-", dir=journal.path.parent) as directory:
        manifest = Path(directory) / "manifest.csv"
        with manifest.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", "size", "md5", "evidence", "delivered"])
            for record in deliveries.of_submission(journal, submission, version=version):
                when = datetime.fromtimestamp(record.delivered_us / 1e6, tz=UTC).isoformat()
                writer.writerow([record.key, record.size, record.md5.hex(), record.evidence.value, when])
        key = manifest_key(version, submission.label)
        publish(store, key, manifest)
        if not is_cloud_journal(settings, f"{version}/{settings.journal.cloud_name}"):
            copy = Path(directory) / "journal.db"
            journal.copy_to(copy)
            publish(store, f"{version}/{settings.journal.cloud_name}", copy)
    return key
