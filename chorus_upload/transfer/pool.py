"""Work in, outcomes out as they finish: the one interface behind which threads do the work.

What goes in is plain data, so that another pool (processes, a cluster) can take a thread pool's place.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


class Pool(Protocol):
    """Does pieces of work, each by one call of a function."""

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        """Yield the outcome of each piece as it finishes, in any order; None now and then while waiting.

        `work` is taken as it is needed, so it may be endless, and from the caller's thread, so it may use
        what belongs to that thread. An exception of `do` is raised here and ends the run; so does closing
        the iterator. Either way, pieces that have begun are waited for.
        """
        ...


class SerialPool:
    """One after the other in the caller's thread: for tests, and where a second thread would only wait."""

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        yield from map(do, work)


class _Threads(Generic[Outcome]):
    """Threads with a bounded number of pieces taken but not finished; used from one thread."""

    def __init__(self, workers: int, idle_seconds: float) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="chorus")
        self._finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._limit = 2 * workers
        self._idle_seconds = idle_seconds
        self.unfinished = 0

    @property
    def is_full(self) -> bool:
        return self.unfinished >= self._limit

    def submit(self, do: Callable[[Work], Outcome], piece: Work) -> None:
        self._executor.submit(do, piece).add_done_callback(self._finished.put)
        self.unfinished += 1

    def finished(self, *, wait: bool) -> Iterator[Outcome | None]:
        """Yield what has finished; with `wait` at least one, or None when that takes long."""
        while self.unfinished:
            try:
                future = self._finished.get(timeout=self._idle_seconds) if wait else self._finished.get_nowait()
            except queue.Empty:
                if not wait:
                    return
                yield None
                continue
            wait = False
            self.unfinished -= 1
            yield future.result()

    def close(self) -> None:
        """Forget what has not begun, and wait for what has."""
        self._executor.shutdown(cancel_futures=True)


class ThreadPool:
    """`workers` threads, and at most twice as many pieces of work taken but not finished.

    `idle_seconds` is how long to wait for an outcome before yielding None, so that the caller can show
    progress and put what it has on disk.
    """

    def __init__(self, workers: int, *, idle_seconds: float = 0.2) -> None:
        self._workers = workers
        self._idle_seconds = idle_seconds

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        threads: _Threads[Outcome] = _Threads(self._workers, self._idle_seconds)
        try:
            for piece in work:
                threads.submit(do, piece)
                if threads.is_full:
                    yield from threads.finished(wait=True)
            while threads.unfinished:
                yield from threads.finished(wait=True)
        finally:
            threads.close()


class AdaptivePool:
    """Threads for what waits or takes long; the caller's own thread for the rest.

    Python's threads wait for each other: reading many tiny files from a cache with several of them takes
    far longer than with one, while a slow share or a large file is read faster by many. So short pieces are
    done in the caller's thread for as long as that computes more than it waits, and by threads once it
    waits; when the threads together keep a processor busy, nothing waits any more. Pieces for which `is_long`
    holds (they release the interpreter, and would keep the caller from reporting) always go to threads.
    """

    WINDOW_SECONDS = 0.25
    BUSY_SHARE = 0.25

    def __init__(self, workers: int, *, is_long: Callable[[Any], bool], idle_seconds: float = 0.2) -> None:
        self._workers = workers
        self._is_long = is_long
        self._idle_seconds = idle_seconds

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        threads: _Threads[tuple[Outcome, float]] = _Threads(self._workers, self._idle_seconds)

        def timed(piece: Work) -> tuple[Outcome, float]:
            begun = time.thread_time()
            return do(piece), time.thread_time() - begun

        waits = False
        # Seconds at work and seconds of computing in it: of this thread, or of all threads over the same time.
        worked = computed = 0.0
        try:
            for piece in work:
                begun = time.monotonic()
                if waits or self._is_long(piece):
                    threads.submit(timed, piece)
                    results: Iterable[tuple[Outcome, float] | None] = threads.finished(wait=threads.is_full)
                else:
                    results = chain([timed(piece)], threads.finished(wait=False))
                for result in results:
                    if result is None:
                        yield None
                        continue
                    outcome, seconds = result
                    computed += seconds
                    worked += time.monotonic() - begun
                    yield outcome
                    begun = time.monotonic()
                if worked > self.WINDOW_SECONDS:
                    waits = computed < self.BUSY_SHARE * worked
                    worked = computed = 0.0
            while threads.unfinished:
                for result in threads.finished(wait=True):
                    yield None if result is None else result[0]
        finally:
            threads.close()
