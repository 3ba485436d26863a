"""Work in, outcomes out as they finish: the one interface behind which threads do the work.

What goes in is plain data, so that another pool (processes, a cluster) can take a thread pool's place.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, Self, TypeVar

from chorus_upload.errors import OutOfResources, StoppedAtOnce

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


AHEAD = 100
"""Pieces that lie ready for the threads, so that they have work while the caller is busy with outcomes."""


class Pool(Protocol):
    """Does pieces of work, each by one call of a function."""

    def run(
        self, do: Callable[[Work], Outcome], work: Iterable[Work]
    ) -> AbstractContextManager[Iterator[Outcome | None]]:
        """A block with the outcome of each piece as it finishes, in any order; None now and then while waiting.

        `work` is taken as it is needed, so it may be endless, and from the caller's thread, so it may use what
        belongs to that thread. An exception of `do` is raised by the iterator. Whichever way the block is left,
        pieces that have begun are waited for, except when somebody insists (StoppedAtOnce).
        """
        ...


class SerialPool:
    """One after the other in the caller's thread: for tests, and where a second thread would only wait."""

    @contextmanager
    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Iterator[Outcome | None]]:
        yield map(do, work)


class _Threads(Generic[Outcome]):
    """Threads with a bounded number of pieces taken but not finished; used from one thread.

    Leaving the block before all is done sets `stop`, for the pieces under way to see. What has not begun is forgotten.
    """

    def __init__(self, workers: int, stop: threading.Event) -> None:
        self._stop = stop
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="chorus")
        self._limit = workers + AHEAD
        self._finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self.unfinished = 0

    @property
    def is_full(self) -> bool:
        return self.unfinished >= self._limit

    def submit(self, do: Callable[[Work], Outcome], piece: Work) -> None:
        try:
            future = self._executor.submit(do, piece)
        except RuntimeError as error:
            raise OutOfResources.of(error) or error from error
        future.add_done_callback(self._finished.put)
        self.unfinished += 1

    def finished(self, *, timeout: float) -> Iterator[Outcome]:
        """Yield what has finished; waits for the first for so long, and for the others not at all."""
        while self.unfinished:
            try:
                future = self._finished.get(timeout=timeout) if timeout else self._finished.get_nowait()
            except queue.Empty:
                return
            timeout = 0
            self.unfinished -= 1
            yield future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[1] is not None or self.unfinished:
            self._stop.set()
        self._executor.shutdown(wait=not isinstance(exc[1], StoppedAtOnce), cancel_futures=True)


class ThreadPool:
    """`workers` threads, and at most `AHEAD` pieces of work more than that taken but not finished.

    `idle_seconds` is how long to wait for an outcome before yielding None, so that the caller can show
    progress and put what it has on disk. `stop` is set when a run ends early, for the pieces under way to see.
    """

    def __init__(self, workers: int, *, stop: threading.Event | None = None, idle_seconds: float = 0.2) -> None:
        self._workers = workers
        self._stop = stop or threading.Event()
        self._idle_seconds = idle_seconds

    @contextmanager
    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Iterator[Outcome | None]]:
        with _Threads[Outcome](self._workers, self._stop) as threads:
            outcomes = self._outcomes(threads, do, work)
            yield outcomes

    def _outcomes(
        self, threads: _Threads[Outcome], do: Callable[[Work], Outcome], work: Iterable[Work]
    ) -> Iterator[Outcome | None]:
        for piece in work:
            threads.submit(do, piece)
            while threads.is_full:
                yield from _or_none(threads.finished(timeout=self._idle_seconds))
        while threads.unfinished:
            yield from _or_none(threads.finished(timeout=self._idle_seconds))


def _or_none(outcomes: Iterator[Outcome]) -> Iterator[Outcome | None]:
    """The same, but one None when there is nothing."""
    empty = True
    for outcome in outcomes:
        empty = False
        yield outcome
    if empty:
        yield None


class AdaptivePool:
    """The caller's own thread for work that computes, many threads for work that waits or takes long.

    Python's threads wait for each other: reading many tiny files from a cache takes longer with two of them
    than with one, while a slow share or a large file is read faster by many. So short pieces are done in the
    caller's thread for as long as that computes for more than a quarter of its time, and by `workers` threads
    once it waits; when the many together keep a processor busy, nothing waits any more. Pieces for which
    `is_long` holds (they release the interpreter, and would keep the caller from reporting) go to threads.
    """

    WINDOW_SECONDS = 0.25
    BUSY_SHARE = 0.25

    def __init__(
        self,
        workers: int,
        *,
        is_long: Callable[[Any], bool],
        stop: threading.Event | None = None,
        idle_seconds: float = 0.2,
    ) -> None:
        self._workers = workers
        self._is_long = is_long
        self._stop = stop or threading.Event()
        self._idle_seconds = idle_seconds

    @contextmanager
    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Iterator[Outcome | None]]:
        with _Threads[tuple[Outcome, float]](self._workers, self._stop) as threads:
            outcomes = self._outcomes(threads, do, work)
            yield outcomes

    def _outcomes(
        self, threads: _Threads[tuple[Outcome, float]], do: Callable[[Work], Outcome], work: Iterable[Work]
    ) -> Iterator[Outcome | None]:
        def timed(piece: Work) -> tuple[Outcome, float]:
            processor = time.thread_time()
            return do(piece), time.thread_time() - processor

        waits = False
        # Seconds spent on pieces, and seconds of computing in them, since the last look.
        spent = computed = 0.0
        for piece in work:
            begun = time.monotonic()
            if waits or self._is_long(piece):
                threads.submit(timed, piece)
                while threads.is_full:
                    for result in _or_none(threads.finished(timeout=self._idle_seconds)):
                        computed += 0 if result is None else result[1]
                        yield None if result is None else result[0]
                spent += time.monotonic() - begun
            else:
                outcome, seconds = timed(piece)
                spent += time.monotonic() - begun
                computed += seconds
                yield outcome
            yield from (result[0] for result in threads.finished(timeout=0))
            if spent > self.WINDOW_SECONDS:
                waits = computed < spent * (1 - self.BUSY_SHARE if waits else self.BUSY_SHARE)
                spent = computed = 0.0
        while threads.unfinished:
            for result in _or_none(threads.finished(timeout=self._idle_seconds)):
                yield None if result is None else result[0]
