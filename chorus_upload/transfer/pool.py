"""Work in, outcomes out as they finish: the one interface behind which threads do the work.

What goes in is plain data, so that another pool (processes, a cluster) can take a thread pool's place.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

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


class ThreadPool:
    """`workers` threads, and at most twice as many pieces of work taken but not finished.

    `idle_seconds` is how long to wait for an outcome before yielding None, so that the caller can show
    progress and put what it has on disk.
    """

    def __init__(self, workers: int, *, idle_seconds: float = 0.2) -> None:
        self._workers = workers
        self._idle_seconds = idle_seconds

    def run(self, do: Callable[[Work], Outcome], work: Iterable[Work]) -> Iterator[Outcome | None]:
        finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        waiting = iter(work)
        unfinished = 0
        executor = ThreadPoolExecutor(self._workers, thread_name_prefix="chorus")
        try:
            while True:
                for piece in islice(waiting, 2 * self._workers - unfinished):
                    executor.submit(do, piece).add_done_callback(finished.put)
                    unfinished += 1
                if not unfinished:
                    return
                try:
                    future = finished.get(timeout=self._idle_seconds)
                except queue.Empty:
                    yield None
                    continue
                unfinished -= 1
                yield future.result()
        finally:
            executor.shutdown(cancel_futures=True)
