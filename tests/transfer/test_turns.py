"""Files of a tape are read one at a time, in order, by however many threads; and nobody waits for ever."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chorus_upload.transfer.pool import ThreadPool
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.turns import Turns


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_readings_are_in_order_and_one_at_a_time(workers: int) -> None:
    """Some files are never read, some fail, some are read twice, and all take different times."""
    dice = random.Random(workers)  # noqa: S311
    turns = Turns(threading.Event())
    read: list[int] = []
    inside = threading.Lock()
    plans = {number: dice.choice(["read", "read", "read", "skip", "fail", "again"]) for number in range(400)}
    pauses = {number: dice.random() * 0.002 for number in plans}

    def announced() -> Iterator[int]:
        for number in plans:
            turns.announce(number)
            yield number

    def work(number: int) -> None:
        try:
            time.sleep(pauses[number])
            if plans[number] == "skip":
                return
            with turns.turn(number):
                assert inside.acquire(blocking=False)
                read.append(number)
                inside.release()
                if plans[number] == "fail":
                    return
            time.sleep(pauses[number])
            if plans[number] == "again":
                with turns.turn(number):
                    pass
        finally:
            turns.leave(number)

    with ThreadPool(workers).run(work, announced()) as outcomes:
        list(outcomes)
    assert read == [number for number, plan in plans.items() if plan != "skip"]


def test_who_was_not_announced_does_not_wait() -> None:
    turns = Turns(threading.Event())
    turns.announce(1)
    went = []
    with turns.turn(2):
        went.append(2)
    turns.leave(3)
    assert went == [2]


def test_when_the_run_is_to_end_nobody_waits() -> None:
    stop = threading.Event()
    turns = Turns(stop)
    turns.announce(1)
    turns.announce(2)

    def wait() -> str:
        try:
            with turns.turn(2):
                return "read"
        except Stopped:
            return "stopped"

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        time.sleep(0.1)
        assert not waiting.done()
        stop.set()
        assert waiting.result(5) == "stopped"
