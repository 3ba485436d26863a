"""Uploads leave room on the line: never more than the limit, nearly all of it, and the timetable is kept."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.storage.bandwidth import Throttle

KIB, MIB = 1024, 1024**2
EVENING = datetime(2026, 6, 15, 17, 55).astimezone()


class VirtualTime:
    """A clock that stands still while any thread of `run` works, and jumps to the next one's end of sleep."""

    def __init__(self, begin: datetime = EVENING) -> None:
        self._begin = begin.timestamp()
        self._seconds = 0.0
        self._changed = threading.Condition()
        self._awake = 0
        self._ends: list[float] = []

    def clock(self) -> float:
        return self._seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._begin + self._seconds).astimezone()

    def sleep(self, seconds: float) -> None:
        with self._changed:
            end = self._seconds + seconds
            heapq.heappush(self._ends, end)
            self._pause()
            self._changed.wait_for(lambda: self._seconds >= end)

    def run(self, *work: Callable[[], object]) -> None:
        """Do all of `work` at once, each in a thread of its own."""

        def do(one: Callable[[], object]) -> None:
            try:
                one()
            finally:
                with self._changed:
                    self._pause()

        self._awake = len(work)
        threads = [threading.Thread(target=do, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def throttle(self, limit: str, *, stop: threading.Event | None = None) -> Throttle:
        return Throttle(BandwidthLimit.parse(limit), stop=stop, clock=self.clock, now=self.now, sleep=self.sleep)

    def _pause(self) -> None:
        self._awake -= 1
        if self._awake or not self._ends:
            return
        self._seconds = self._ends[0]
        while self._ends and self._ends[0] <= self._seconds:
            heapq.heappop(self._ends)
            self._awake += 1
        self._changed.notify_all()


class Line:
    """What went out, and when."""

    def __init__(self, time: VirtualTime, throttle: Throttle) -> None:
        self._time = time
        self._throttle = throttle
        self.sent: list[tuple[float, int]] = []

    def send(self, *, seconds: float, size: int | None = None) -> int:
        """Send for so long, in pieces of `size` or as the throttle advises; how many bytes that were."""
        total = 0
        while self._time.clock() < seconds:
            count = size or self._throttle.piece()
            self._throttle.take(count)
            self.sent.append((self._time.clock(), count))
            total += count
        return total

    def between(self, begin: float, end: float) -> int:
        return sum(count for moment, count in self.sent if begin < moment <= end)


# --- The limit is kept


@pytest.mark.parametrize("threads", [1, pytest.param(3, marks=pytest.mark.thorough), 50])
@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        ("1k", KIB),
        pytest.param("40 kB/s", 40_000, marks=pytest.mark.thorough),
        pytest.param("2M", 2 * MIB, marks=pytest.mark.thorough),
        ("100 Mbit/s", 12_500_000),
    ],
)
def test_any_minute_has_what_is_allowed(limit: str, rate: float, threads: int) -> None:
    time = VirtualTime()
    line = Line(time, time.throttle(limit))

    time.run(*[lambda: line.send(seconds=100)] * threads)

    minutes = [line.between(second, second + 60) / (60 * rate) for second in range(40)]
    assert min(minutes) >= 0.95
    assert max(minutes) <= 1.05


def test_no_second_has_much_more_than_is_allowed() -> None:
    time = VirtualTime()
    line = Line(time, time.throttle("2M"))

    time.run(*[lambda: line.send(seconds=30)] * 20)

    assert max(line.between(tenth / 10, tenth / 10 + 1) for tenth in range(290)) <= 2 * MIB * 1.26


def test_a_fast_line_is_used_although_no_wait_is_that_short() -> None:
    time = VirtualTime()
    line = Line(time, time.throttle("1 GB/s"))

    time.run(*[lambda: line.send(seconds=2)] * 4)

    assert line.between(0, 2) == pytest.approx(2e9, rel=0.01)


def test_many_small_files_count_as_much_as_large_ones() -> None:
    time = VirtualTime()
    line = Line(time, time.throttle("100 kB/s"))

    time.run(*[lambda: line.send(seconds=60, size=700)] * 16, lambda: line.send(seconds=60, size=9_000))

    assert line.between(0, 60) == pytest.approx(6_000_000, rel=0.05)


def test_a_pause_is_not_made_up_for() -> None:
    time = VirtualTime()
    throttle = time.throttle("1M")
    line = Line(time, throttle)

    def work() -> None:
        throttle.take(1)
        time.sleep(3600)
        line.send(seconds=3610)

    time.run(work)

    assert line.between(0, 3601) <= MIB * 1.26
    assert line.between(3600.5, 3610) == pytest.approx(9.5 * MIB, rel=0.05)


# --- Everybody gets a turn


def test_threads_share_evenly() -> None:
    time = VirtualTime()
    line = Line(time, time.throttle("1M"))
    totals: list[int] = []

    time.run(*[lambda: totals.append(line.send(seconds=100))] * 7)

    assert max(totals) - min(totals) <= 2 * MIB // 8


def test_who_asks_first_goes_first() -> None:
    time = VirtualTime()
    throttle = time.throttle("1M")
    went: list[int] = []

    def ask(number: int, size: int) -> Callable[[], None]:
        def work() -> None:
            time.sleep(0.01 * (number + 1))
            throttle.take(size)
            went.append(number)

        return work

    # A small request behind a large one does not overtake it.
    time.run(*[ask(number, MIB if number % 2 == 0 else 100) for number in range(10)])

    assert went == list(range(10))


# --- The timetable


def test_in_the_evening_the_limit_ends_also_for_who_is_waiting() -> None:
    time = VirtualTime()
    throttle = time.throttle("08:00,1k 18:00,off")
    ended: list[float] = []

    def work() -> None:
        throttle.take(100 * MIB)
        ended.append(time.clock())

    time.run(*[work] * 5)

    # It was 17:55 at the beginning.
    assert min(ended) >= 300
    assert max(ended) <= 302


@pytest.mark.parametrize("threads", [1, 16])
def test_a_new_limit_holds_from_its_time_on(threads: int) -> None:
    time = VirtualTime()
    line = Line(time, time.throttle("08:00,2M 18:00,200k 18:02,1M"))

    time.run(*[lambda: line.send(seconds=540)] * threads)

    assert line.between(180, 300) == pytest.approx(120 * 2 * MIB, rel=0.05)
    assert line.between(310, 420) == pytest.approx(110 * 200 * KIB, rel=0.05)
    assert line.between(430, 540) == pytest.approx(110 * MIB, rel=0.05)


def test_in_the_morning_the_limit_begins() -> None:
    time = VirtualTime(datetime(2026, 6, 15, 7, 59).astimezone())
    throttle = time.throttle("08:00,1M 18:00,off mon-fri")
    line = Line(time, throttle)

    def work() -> None:
        assert throttle.is_active
        for _ in range(100):
            throttle.take(throttle.piece())
        assert time.clock() == 0
        time.sleep(60)
        line.send(seconds=120)

    time.run(work)

    assert line.between(60, 120) == pytest.approx(60 * MIB, rel=0.05)


# --- No limit, and no more time


@pytest.mark.parametrize("limit", [None, BandwidthLimit.parse("off"), BandwidthLimit.parse("08:00,off mon-fri")])
def test_without_a_limit_nothing_is_held_back(limit: BandwidthLimit | None) -> None:
    slept: list[float] = []
    throttle = Throttle(limit, sleep=slept.append)

    throttle.take(1 << 40)

    assert not throttle.is_active
    assert throttle.piece() == 256 * KIB
    assert slept == []


@pytest.mark.parametrize(
    ("limit", "piece"), [("1k", KIB), ("64k", 8 * KIB), ("1 MB/s", 125_000), ("2M", 256 * KIB), ("1 GB/s", 256 * KIB)]
)
def test_a_piece_is_small_when_the_limit_is_low(limit: str, piece: int) -> None:
    assert Throttle(BandwidthLimit.parse(limit)).piece() == piece


def test_nothing_asked_for_is_no_wait() -> None:
    slept: list[float] = []

    Throttle(BandwidthLimit.parse("1k"), sleep=slept.append).take(0)

    assert slept == []


def test_a_run_that_is_to_end_waits_no_more() -> None:
    stop = threading.Event()
    throttle = Throttle(BandwidthLimit.parse("1k"), stop=stop)
    threads = [threading.Thread(target=throttle.take, args=(MIB,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert all(thread.is_alive() for thread in threads)

    stop.set()

    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    begun = time.monotonic()
    throttle.take(MIB)
    assert time.monotonic() - begun < 1


# --- With a real clock


def test_eight_threads_on_a_real_clock() -> None:
    throttle = Throttle(BandwidthLimit.parse("4 MB/s"))
    left = [10_000_000 // 8] * 8

    def send(number: int) -> None:
        while left[number]:
            count = min(left[number], 64 * KIB)
            throttle.take(count)
            left[number] -= count

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - begun == pytest.approx(2.5, rel=0.1)
