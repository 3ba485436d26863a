"""Work in, outcomes out as they finish: the one interface behind which threads do the work.

What goes in is plain data, so that another pool (processes, a cluster) can take a thread pool's place.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="chorus")
        self._limit = 2 * workers
        self._finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self.unfinished = 0

    @property
    def is_full(self) -> bool:
        return self.unfinished >= self._limit

    def submit(self, do: Callable[[Work], Outcome], piece: Work) -> None:
        self._executor.submit(do, piece).add_done_callback(self._finished.put)
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
        threads: _Threads[Outcome] = _Threads(self._workers)
        try:
            for piece in work:
                threads.submit(do, piece)
                while threads.is_full:
                    yield from _or_none(threads.finished(timeout=self._idle_seconds))
            while threads.unfinished:
                yield from _or_none(threads.finished(timeout=self._idle_seconds))
        finally:
            threads.close()


def _or_none(outcomes: Iterator[Outcome]) -> Iterator[Outcome | None]:
    """The same, but one None when there is nothing."""
    empty = True
    for outcome in outcomes:
        empty = False
        yield outcome
    if empty:
        yield None


class AdaptivePool:
    """One thread for work that computes, many for work that waits or takes long.

    Python's threads wait for each other: reading many tiny files from a cache with several of them takes
    far longer than with one, while a slow share or a large file is read faster by many. So short pieces go
    to one thread for as long as that computes for more than a quarter of its time, and to `workers` threads
    once it waits; when the many together keep a processor busy, nothing waits any more. Pieces for which
    `is_long` holds (they release the interpreter) always go to the many.
    """

    WINDOW_SECONDS = 0.25
    BUSY_SHARE = 0.25

    def __init__(self, workers: int, *, is_long: Callable[[Any], bool], idle_seconds: float = 0.2) -> None:
        self._workers = workers
        self._is_long = is_long
        self._idle_seconds = idle_seconds

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        def timed(piece: Work) -> tuple[Outcome, float, float]:
            wall, processor = time.monotonic(), time.thread_time()
            outcome = do(piece)
            return outcome, time.monotonic() - wall, time.thread_time() - processor

        one: _Threads[tuple[Outcome, float, float]] = _Threads(1)
        many: _Threads[tuple[Outcome, float, float]] = _Threads(self._workers)
        waits = False
        since, worked, computed = time.monotonic(), 0.0, 0.0
        try:
            for piece in work:
                threads = many if waits or self._is_long(piece) else one
                threads.submit(timed, piece)
                while threads.is_full:
                    for result in _or_none(threads.finished(timeout=self._idle_seconds)):
                        if result is not None:
                            worked += result[1]
                            computed += result[2]
                        yield None if result is None else result[0]
                yield from (result[0] for result in many.finished(timeout=0))
                elapsed = time.monotonic() - since
                if elapsed > self.WINDOW_SECONDS and worked:
                    waits = computed < elapsed * (1 - self.BUSY_SHARE) if waits else computed < worked * self.BUSY_SHARE
                    since, worked, computed = time.monotonic(), 0.0, 0.0
            for threads in (one, many):
                while threads.unfinished:
                    for result in _or_none(threads.finished(timeout=self._idle_seconds)):
                        yield None if result is None else result[0]
        finally:
            one.close()
            many.close()
