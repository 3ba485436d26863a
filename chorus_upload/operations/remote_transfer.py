"""`remote upload` and `remote download`: files to the central store and back, without the journal."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.config.own_files import OwnFiles, own_files
from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.events import (
    DownloadFinished,
    Emit,
    FileDelivered,
    FileFailed,
    Level,
    Notice,
    RemoteUploaded,
    Tally,
    UploadProgressed,
)
from chorus_upload.model import Delivered, FailureKind, Outcome, Retrieval, Transfer
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.receiving import Receiving
from chorus_upload.operations.remote import central_store, clean, objects, require_not_the_journal
from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.keys import join_key
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_directory, open_store, require_supported
from chorus_upload.storage.source import Source
from chorus_upload.storage.store import ComputedBy, StoredObject
from chorus_upload.storage.target import Target
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import ThreadPool
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.receiver import Receiver
from chorus_upload.transfer.sender import Sender, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How files are copied: with what is below directories, and in the place of what is there."""

    recursive: bool = False
    overwrite: bool = False


# --- upload ------------------------------------------------------------------------------------------------------


def upload(
    settings: Settings, paths: Sequence[Path], *, to: str, options: Options, emit: Emit, stop: threading.Event
) -> RemoteUploaded:
    """Put files and (`recursive`) directories below `to`, each under its own name, and prove that they arrived.

    Trouble with single files is told. Raises ConfigError for what cannot be sent at all, StorageError when nothing
    can be delivered, KeyboardInterrupt when `stop` is set meanwhile.
    """
    begun = time.monotonic()
    require_supported(settings)
    with ExitStack() as stack:
        sources, work = _work(stack, paths, own_files(settings), to=clean(to), recursive=options.recursive, emit=emit)
        require_not_the_journal(settings, (transfer.key for transfer in work))
        traffic = Traffic(
            settings.num_threads,
            throttle=Throttle(settings.bandwidth_limit, stop=stop),
            stop=stop,
            patience=settings.retry_seconds,
        )
        store = stack.enter_context(
            open_store(settings.central.location, Network.of(settings), traffic=traffic, stop=stop)
        )
        store.probe()
        meter = Meter()
        terms = Terms(accept_size=settings.accept_size_evidence, replace=options.overwrite, tier=settings.central.tier)
        sender = Sender(sources, store, terms, meter=meter, traffic=traffic, stop=stop)
        counts = _Counts(Tally(len(work), sum(transfer.size for transfer in work)), meter, emit)

        def send(transfer: Transfer) -> Outcome | None:
            try:
                return None if stop.is_set() else sender.send(transfer)
            except Stopped:
                return None

        with ThreadPool(settings.num_threads, stop=stop).run(send, work) as outcomes:
            for outcome in outcomes:
                counts.take(outcome)
        if stop.is_set():
            raise KeyboardInterrupt
    return RemoteUploaded(store.url, counts.sent, counts.there, sum(counts.failures.values()), time.monotonic() - begun)


def _work(
    stack: ExitStack, paths: Sequence[Path], own: OwnFiles, *, to: str, recursive: bool, emit: Emit
) -> tuple[dict[str, Source], list[Transfer]]:
    """The sources by their roots, and what is to be sent of them."""
    sources: dict[str, Source] = {}
    work: dict[str, Transfer] = {}
    for path in paths:
        # Not resolved: what is typed as a link keeps the name of the link.
        full = Path(os.path.abspath(path))  # noqa: PTH100
        if not full.exists():
            raise ConfigError(f"there is no file {path}")
        if own.covers(full):
            raise ConfigError(f"{path} is the program's own, or holds credentials: it is not sent")
        if full.is_dir() and not recursive:
            raise ConfigError(f"{path} is a directory", hint="-r takes all that is below it.")
        root = full if full.is_dir() else full.parent
        if str(root) not in sources:
            sources[str(root)] = stack.enter_context(open_directory(root, own=own))
        source = sources[str(root)]
        lead = join_key(to, full.name) if full.is_dir() and full.name else to
        found = _below(source, emit=emit) if full.is_dir() else _one(source, full.name)
        for name, size, mtime_us in found:
            key = join_key(lead, name)
            if key in work:
                raise ConfigError(
                    f"two files would become {key}", hint="Send them one by one, each --to a place of its own."
                )
            work[key] = Transfer(len(work), str(root), name, key, size, mtime_us)
    return sources, sorted(work.values(), key=lambda transfer: -transfer.size)


def _one(source: Source, name: str) -> Iterator[tuple[str, int, int]]:
    state = source.stat(name)
    if state is None:
        raise ConfigError(f"{name} is not a regular file")
    yield name, state.size, state.mtime_us


def _below(source: Source, *, emit: Emit) -> Iterator[tuple[str, int, int]]:
    for directory in source.walk():
        for problem in directory.problems:
            emit(Notice(f"left out: {problem.path} ({problem.kind})", Level.WARNING))
        for entry in directory.entries:
            yield join_key(directory.path, entry.name), entry.size, entry.mtime_us


class _Counts:
    """What became of the files."""

    def __init__(self, total: Tally, meter: Meter, emit: Emit) -> None:
        self._total = total
        self._meter = meter
        self._emit = emit
        self._pace = Pace(0.2)
        self.sent = Tally()
        self.there = Tally()
        self.failures: Counter[FailureKind] = Counter()

    def take(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, Delivered):
            one = Tally(1, outcome.transfer.size)
            if outcome.sent:
                self.sent += one
            else:
                self.there += one
            self._emit(FileDelivered.of(outcome))
        elif outcome is not None:
            self.failures[outcome.kind] += 1
            self._emit(FileFailed.of(outcome))
        if self._pace.is_due():
            under_way, current = self._meter.snapshot()
            done = self.sent + self.there
            self._emit(
                UploadProgressed(
                    files=done.files + sum(self.failures.values()),
                    files_total=self._total.files,
                    bytes=done.bytes + under_way,
                    bytes_total=self._total.bytes,
                    current=current,
                )
            )


# --- download ----------------------------------------------------------------------------------------------------


def download(
    settings: Settings, paths: Sequence[str], *, to: Path, options: Options, emit: Emit, stop: threading.Event
) -> DownloadFinished:
    """Bring objects and (`recursive`) what is below directories to `to`, each under its own name.

    As `file download`, but what they ought to be is only what the store says of them.
    """
    begun = time.monotonic()
    with central_store(settings, stop=stop) as store:
        found = {each.name: each.stored for each in objects(store, paths, recursive=options.recursive)}
        target = Target(to)
        wanted = Tally(len(found), sum(stored.size for stored in found.values()))
        run = Receiving(wanted, store, emit)
        receiver = Receiver(store, target, overwrite=options.overwrite, reread=False, stop=stop, on_bytes=run.under_way)
        work = (_retrieval(name, stored) for name, stored in found.items())
        try:
            run.receive_all(receiver, work, ThreadPool(settings.num_threads, stop=stop), stop)
        finally:
            target.close(is_done=run.is_done)
        return run.finished(version=None, origin=store.url, target=str(target), seconds=time.monotonic() - begun)


def _retrieval(name: str, stored: StoredObject) -> Retrieval:
    checksum = stored.checksum
    # What only some client has claimed may be wrong, and that is none of our business here.
    md5 = checksum.md5 if checksum is not None and checksum.computed_by is ComputedBy.SERVICE else None
    return Retrieval("", name, stored.key, stored.size, stored.time_us, None, md5)
