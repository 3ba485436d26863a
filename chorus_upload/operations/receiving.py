"""Feeds the pool of receivers, and counts and tells what comes of the files."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from chorus_upload.errors import AccessDenied, StorageError
from chorus_upload.events import (
    DownloadFinished,
    DownloadProgressed,
    Emit,
    EndedEarly,
    FileDownloaded,
    FileNotDownloaded,
    Tally,
)
from chorus_upload.model import NotRetrieved, Retrieval, RetrievalFailure, Retrieved
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.refusals import MOST_DENIED, Refusals
from chorus_upload.storage.store import Store
from chorus_upload.transfer.pool import Pool
from chorus_upload.transfer.receiver import Receiver


class Receiving:
    """One run. `wanted` is what is to be brought back."""

    def __init__(self, wanted: Tally, store: Store, emit: Emit) -> None:
        self._wanted = wanted
        self._emit = emit
        self._refusals = Refusals(store.probe)
        # By path and modality; written by the receivers' threads, each for its own file.
        self._under_way: dict[tuple[str, str], int] = {}
        self.fetched = Tally()
        self.was_there = Tally()
        self.failures: Counter[RetrievalFailure] = Counter()
        self.is_done = False

    def under_way(self, wanted: Retrieval, size: int) -> None:
        """A file has come so far."""
        self._under_way[wanted.modality, wanted.path] = size

    def receive_all(self, receiver: Receiver, files: Iterator[Retrieval], pool: Pool, stop: threading.Event) -> None:
        """Have all files brought back. What concerns every file ends it: it is raised."""
        pace = Pace(0.2)

        def work() -> Iterator[Retrieval]:
            for wanted in files:
                if stop.is_set():
                    return
                yield wanted

        with pool.run(receiver.receive, work()) as outcomes:
            for outcome in outcomes:
                match outcome:
                    case Retrieved():
                        self._received(outcome)
                    case NotRetrieved():
                        self._failed(outcome)
                if pace.is_due():
                    self._report()
        if stop.is_set():
            raise KeyboardInterrupt
        self._report()
        self.is_done = not self.failures

    @property
    def until_now(self) -> EndedEarly:
        """How far it is."""
        done = self.fetched + self.was_there
        return EndedEarly("fetched or there already", done, self._wanted, sum(self.failures.values()))

    def finished(self, *, version: str | None, origin: str, target: str, seconds: float) -> DownloadFinished:
        """What it came to."""
        return DownloadFinished(
            version=version,
            origin=origin,
            target=target,
            fetched=self.fetched,
            was_there=self.was_there,
            failures={kind: self.failures[kind] for kind in RetrievalFailure if self.failures[kind]},
            seconds=seconds,
        )

    def _received(self, done: Retrieved) -> None:
        self._under_way.pop((done.retrieval.modality, done.retrieval.path), None)
        self._refusals.accepted()
        one = Tally(1, done.retrieval.size)
        if done.was_there:
            self.was_there += one
        else:
            self.fetched += one
        self._emit(FileDownloaded.of(done))

    def _failed(self, failed: NotRetrieved) -> None:
        self._under_way.pop((failed.retrieval.modality, failed.retrieval.path), None)
        trouble: StorageError | None = None
        match failed.kind:
            case RetrievalFailure.TRANSIENT:
                trouble = self._refusals.gave_up()
            case RetrievalFailure.MISSING:
                # Whether it is the whole container or directory that is gone, or out of reach.
                trouble = self._refusals.missing()
            case RetrievalFailure.DENIED if self._refusals.denied() == MOST_DENIED:
                trouble = AccessDenied(failed.detail, hint="Reading has to be allowed for all of the central path.")
        if trouble is not None:
            raise trouble
        self.failures[failed.kind] += 1
        self._emit(FileNotDownloaded.of(failed))

    def _report(self) -> None:
        done = self.fetched + self.was_there
        # A copy in one step: receivers add to it meanwhile.
        under_way = self._under_way.copy()
        self._emit(
            DownloadProgressed(
                files=done.files + sum(self.failures.values()),
                files_total=self._wanted.files,
                bytes=done.bytes + sum(under_way.values()),
                bytes_total=self._wanted.bytes,
                current=tuple(path for _, path in under_way),
            )
        )
