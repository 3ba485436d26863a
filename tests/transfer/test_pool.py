"""Pools: every piece is done once, in bounded numbers, whatever pool does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from chorus_upload.errors import StoppedAtOnce
from chorus_upload.transfer.pool import AHEAD, AdaptivePool, Pool, SerialPool, ThreadPool

POOLS = {
    "serial": SerialPool(),
    "threads": ThreadPool(3, idle_seconds=0.01),
    "adaptive": AdaptivePool(3, is_long=lambda piece: piece % 2 == 0, idle_seconds=0.01),
}
every_pool = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)


@every_pool
def test_every_piece_has_one_outcome(pool: Pool) -> None:
    with pool.run(lambda piece: piece * 10, range(100)) as running:
        outcomes = [outcome for outcome in running if outcome is not None]

    assert sorted(outcomes) == [piece * 10 for piece in range(100)]


@every_pool
def test_work_is_taken_from_the_callers_thread_and_only_as_needed(pool: Pool) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            assert threading.current_thread() is threading.main_thread()
            taken += 1
            yield taken

    with pool.run(lambda piece: piece, endless()) as running:
        first = [outcome for outcome in (next(running) for _ in range(50)) if outcome is not None]

    assert first
    assert taken <= 50 + 3 + 1 + AHEAD


@every_pool
def test_an_error_ends_the_run_and_waits_for_what_has_begun(pool: Pool) -> None:
    running = set[int]()

    def fail_at_three(piece: int) -> int:
        running.add(piece)
        time.sleep(0.01)
        running.discard(piece)
        if piece == 3:
            raise ValueError("three")
        return piece

    with pytest.raises(ValueError, match="three"), pool.run(fail_at_three, range(100)) as outcomes:
        list(outcomes)

    assert running == set()


def test_a_pool_of_threads_says_when_there_is_nothing_to_say() -> None:
    released = threading.Event()

    def wait(piece: int) -> int:
        released.wait(10)
        return piece

    with ThreadPool(1, idle_seconds=0.01).run(wait, [1]) as running:
        assert next(running) is None
        released.set()
        assert [outcome for outcome in running if outcome is not None] == [1]


@pytest.mark.parametrize("ending", [StoppedAtOnce, KeyboardInterrupt, None])
def test_only_who_insists_does_not_wait_for_what_has_begun(ending: type[BaseException] | None) -> None:
    """Wherever the caller is at that time: with the pool, or with what it does about an outcome."""
    stop, released, ended = threading.Event(), threading.Event(), threading.Event()

    def wait(piece: int) -> int:
        stop.wait(10)
        released.wait(10)
        ended.set()
        return piece

    threading.Timer(0.2, released.set).start()
    with suppress(KeyboardInterrupt), ThreadPool(1, stop=stop, idle_seconds=0.01).run(wait, [1]) as running:
        assert next(running) is None
        if ending is not None:
            raise ending

    assert stop.is_set()
    assert ended.is_set() == (ending is not StoppedAtOnce)
    assert ended.wait(10)


def test_work_that_waits_is_given_to_many_threads() -> None:
    busiest = 0
    running = 0
    lock = threading.Lock()

    def wait(piece: int) -> int:
        nonlocal busiest, running
        with lock:
            running += 1
            busiest = max(busiest, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return piece

    with AdaptivePool(8, is_long=lambda piece: False).run(wait, range(300)) as running_pool:
        outcomes = list(running_pool)

    assert len(outcomes) >= 300
    assert busiest > 4


def test_work_that_computes_stays_in_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine that does nothing else: time passes only while we compute.
    alone = SimpleNamespace(monotonic=time.thread_time, thread_time=time.thread_time)
    monkeypatch.setattr("chorus_upload.transfer.pool.time", alone)
    threads = set()

    def compute(piece: int) -> int:
        threads.add(threading.current_thread().name)
        return sum(range(20_000))

    with AdaptivePool(8, is_long=lambda piece: False).run(compute, range(300)) as outcomes:
        list(outcomes)

    assert threads == {threading.main_thread().name}
