"""How much is sent at once finds itself, within bounds that nothing exceeds, and nobody waits for ever."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chorus_upload.errors import TransientError
from chorus_upload.storage.traffic import Traffic
from tests.randomness import examples

KIB, MIB = 1 << 10, 1 << 20
FIRST = 4


class Clock:
    """A clock that somebody else turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulation:
    """A service with `places`, each of which answers one request after the other, in `seconds` on average.

    As many requests as may be are under way all the time. `noise` is by how much the times of answers differ.
    """

    traffic: Traffic
    clock: Clock
    places: int
    seconds: float = 0.1
    size: int = 100
    noise: float = 0.5
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311
    levels: list[tuple[float, int]] = field(default_factory=list)
    most: int = 0
    _under_way: list[tuple[float, int, AbstractContextManager[None]]] = field(default_factory=list)
    _busy_until: list[float] = field(default_factory=list)
    _count: int = 0

    def run(self, seconds: float, *, at_once: int = 1 << 30) -> None:
        """Go on for so long, with `at_once` requests or as many as may be."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            while len(self._under_way) < min(self.traffic.level, at_once):
                self._send()
            self.clock.now, _, request = heapq.heappop(self._under_way)
            request.__exit__(None, None, None)
            self.levels.append((self.clock.now, self.traffic.level))

    def settled(self, last: float) -> int:
        """The level that held the longest in the last so many seconds."""
        held: Counter[int] = Counter()
        since = self.clock.now - last
        for (begin, level), (end, _) in zip(self.levels, self.levels[1:], strict=False):
            if begin >= since:
                held[level] += round(1000 * (end - begin))
        return held.most_common(1)[0][0]

    def _send(self) -> None:
        request = self.traffic.request(self.size)
        request.__enter__()
        self._count += 1
        begin = self.clock.now
        if len(self._busy_until) >= self.places:
            begin = max(begin, heapq.heappop(self._busy_until))
        end = begin + self.seconds * (1 + self.noise * self.chance.uniform(-1, 1))
        heapq.heappush(self._busy_until, end)
        heapq.heappush(self._under_way, (end, self._count, request))
        self.most = max(self.most, len(self._under_way))


def simulated(places: int, most: int, *, seconds: float = 0.1, size: int = 100, noise: float = 0.5) -> Simulation:
    clock = Clock()
    return Simulation(Traffic(most, clock=clock), clock, places, seconds, size, noise)


def refuse(traffic: Traffic, retry_after: float | None = None) -> None:
    """One more request, which the service refuses."""
    with suppress(OSError), traffic.request(100):
        traffic.overloaded(retry_after)
        raise OSError


class TestTheLevel:
    def test_it_begins_low(self) -> None:
        assert Traffic(256).level == FIRST
        assert Traffic(1).level == 1

    def test_it_is_doubled_while_that_helps(self) -> None:
        service = simulated(1000, 64)
        service.run(10)
        levels = [level for _, level in service.levels]
        assert list(dict.fromkeys(levels)) == [4, 8, 16, 32, 64]

    @pytest.mark.parametrize("seed", range(3))
    def test_it_stays_where_more_does_not_help(self, seed: int) -> None:
        """Chance differences must not let it rise step by step."""
        service = simulated(16, 256)
        service.chance.seed(seed)
        service.run(400)
        assert service.settled(200) == 16
        assert service.most <= 64

    def test_it_looks_again_now_and_then(self) -> None:
        service = simulated(16, 256)
        service.run(60)
        service.places = 1000
        service.run(60)
        assert service.traffic.level == 256

    # Chance plays a part in this, and so the examples are always the same.
    @settings(max_examples=examples(40), deadline=None, derandomize=True)
    @given(
        places=st.integers(1, 100),
        most=st.integers(1, 256),
        seconds=st.floats(0.2, 10),
        size=st.sampled_from([0, 100, 70_000, 8 * MIB]),
        noise=st.floats(0.2, 0.4),
    )
    @example(places=1, most=256, seconds=0.2, size=100, noise=0.2)
    @example(places=6, most=256, seconds=10, size=8 * MIB, noise=0.2)
    @example(places=100, most=256, seconds=0.2, size=8 * MIB, noise=0.4)
    def test_it_ends_near_what_the_service_can_do(
        self, places: int, most: int, seconds: float, size: int, noise: float
    ) -> None:
        service = simulated(places, most, seconds=seconds, size=size, noise=noise)
        # It is looked at after half a second, and after twice as many answers as are waited for at once.
        look = max(0.5, 4 * seconds, 2 * FIRST * seconds / places)
        service.run(60 * look)
        assert service.most <= most
        settled = service.settled(20 * look)
        assert settled >= min(most, places) / 2
        # The next power of two is less than twice as much; another doubling may come by chance.
        assert settled <= max(FIRST, 4 * places)

    def test_while_there_is_little_to_do_it_does_not_grow(self) -> None:
        service = simulated(1000, 256)
        service.run(60, at_once=3)
        assert service.traffic.level == FIRST
        service.run(60)
        assert service.traffic.level == 256

    def test_what_fails_is_no_throughput(self) -> None:
        clock = Clock()
        traffic = Traffic(256, clock=clock)
        for _ in range(1000):
            with suppress(OSError), traffic.request(MIB):
                clock.now += 0.1
                raise OSError
        assert traffic.level == FIRST


class TestOverload:
    @pytest.fixture
    def service(self) -> Simulation:
        """One that is worth a level of 64."""
        service = simulated(64, 64)
        service.run(30)
        assert service.traffic.level == 64
        return service

    def test_it_is_halved_and_tried_again_much_later(self, service: Simulation) -> None:
        service.run(0.1, at_once=1)
        refuse(service.traffic)
        assert service.traffic.level == 32
        service.run(20)
        assert service.traffic.level == 32
        service.run(40)
        assert service.traffic.level == 64

    def test_a_burst_of_refusals_counts_once(self) -> None:
        clock = Clock()
        traffic = Traffic(16, clock=clock)
        for _ in range(64):
            refuse(traffic)
            clock.now += 0.005
        assert traffic.level == FIRST // 2

    def test_requests_that_were_sent_before_it_was_known_count_with_it(self) -> None:
        """They may take long to be refused, longer than any pause between two bursts."""
        clock = Clock()
        traffic = Traffic(16, clock=clock)
        begun, refused = threading.Semaphore(0), threading.Semaphore(0)
        turns = [threading.Semaphore(0) for _ in range(4)]

        def send(number: int) -> None:
            with suppress(OSError), traffic.request(MIB):
                begun.release()
                turns[number].acquire(timeout=120)
                traffic.overloaded(None)
                refused.release()
                raise OSError

        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                pool.submit(send, number)
            for _ in turns:
                assert begun.acquire(timeout=120)
            for turn in turns:
                clock.now += 2.0
                turn.release()
                assert refused.acquire(timeout=120)
        assert traffic.level == 2
        clock.now += 2.0
        with traffic.request(MIB):
            clock.now += 1.0
            traffic.overloaded(None)
        assert traffic.level == 1

    def test_it_is_never_less_than_one(self) -> None:
        clock = Clock()
        traffic = Traffic(16, clock=clock)
        for _ in range(20):
            refuse(traffic)
            clock.now += 1
        assert traffic.level == 1

    def test_a_service_that_is_overloaded_at_once_is_left_alone_at_once(self) -> None:
        traffic = Traffic(16)
        refuse(traffic)
        assert traffic.level == FIRST // 2


class TestPauses:
    def test_everybody_waits_for_as_long_as_the_service_asked_for(self) -> None:
        traffic = Traffic(16)
        begun: list[float] = []

        def send() -> None:
            with traffic.request(100):
                begun.append(time.monotonic())

        until = time.monotonic() + 0.7
        refuse(traffic, 0.7)
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(send)
        assert min(begun) >= until
        assert max(begun) < until + 3

    def test_a_shorter_pause_does_not_end_a_longer_one(self) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock, stop=stopped())
        with traffic.request(1):
            for seconds in (10, 1, 0, None):
                traffic.overloaded(seconds)
        clock.now = 9
        with pytest.raises(TransientError), traffic.request(1):
            pass
        clock.now = 10
        with traffic.request(1):
            pass

    def test_nobody_is_sent_away_for_ever(self) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock)
        refuse(traffic, 10**9)
        clock.now = 3600
        with traffic.request(1):
            pass


def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


class TestTheEnd:
    @pytest.mark.parametrize("why", ["pause", "others"])
    def test_waiting_ends_with_the_run(self, why: str) -> None:
        stop = threading.Event()
        traffic = Traffic(1, stop=stop)
        failures: list[BaseException] = []
        begun = threading.Semaphore(0)

        def send() -> None:
            begun.release()
            try:
                with traffic.request(100):
                    pass
            except TransientError as error:
                failures.append(error)

        threads = [threading.Thread(target=send) for _ in range(8)]
        with traffic.request(100):
            if why == "pause":
                traffic.overloaded(1000)
            for thread in threads:
                thread.start()
            for _ in threads:
                begun.acquire()
            stop.set()
            since = time.monotonic()
            for thread in threads:
                thread.join(10)
            assert time.monotonic() - since < 5
        assert len(failures) == 8

    def test_those_before_us_who_give_up_make_room(self) -> None:
        stop = threading.Event()
        traffic = Traffic(1, stop=stop)
        with traffic.request(1), ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(traffic.request(1).__enter__) for _ in range(4)]
            stop.set()
            assert all(isinstance(each.exception(10), TransientError) for each in waiting)
        stop.clear()
        with traffic.request(1):
            pass


class TestTurns:
    @pytest.mark.parametrize("threads", [1, 5, 40])
    def test_no_more_than_may_be_are_under_way(self, threads: int) -> None:
        traffic = Traffic(8)
        watched = Watched()

        def send(number: int) -> None:
            with suppress(ZeroDivisionError), traffic.request(100), watched.holding(1):
                assert watched.held <= traffic.level
                time.sleep(0.0005)
                1 // (number % 7)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(send, range(1000)))
        assert 1 <= watched.most <= 8

    def test_everybody_gets_one(self) -> None:
        """Many small files must not keep the blocks of a large one from being sent."""
        traffic = Traffic(2)
        counts: Counter[int] = Counter()
        end = time.monotonic() + 1.5

        def send(number: int) -> None:
            while time.monotonic() < end:
                with traffic.request(100):
                    time.sleep(0.001)
                counts[number] += 1

        threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert min(counts[number] for number in range(12)) > max(counts.values()) / 2

    def test_a_higher_level_is_used_at_once(self) -> None:
        traffic = Traffic(64)
        watched = Watched()
        end = time.monotonic() + 8

        def send() -> None:
            while time.monotonic() < end and watched.most <= FIRST:
                with traffic.request(100), watched.holding(1):
                    time.sleep(0.005)

        threads = [threading.Thread(target=send) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert FIRST < watched.most <= traffic.level


class Watched:
    """How much of something is held, and was: amounts, and by how many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.held = self.most = self.holders = 0
        self.past: list[tuple[int, int]] = []

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        with self._lock:
            self.held += amount
            self.holders += 1
            self.past.append((self.held, self.holders))
            self.most = max(self.most, self.held)
        try:
            yield
        finally:
            with self._lock:
                self.held -= amount
                self.holders -= 1


class TestRoom:
    @settings(max_examples=examples(25), deadline=None)
    @given(sizes=st.lists(st.integers(1, 150), min_size=1, max_size=60), threads=st.integers(1, 12))
    def test_the_budget_is_kept_except_by_one_that_is_larger(self, sizes: list[int], threads: int) -> None:
        traffic = Traffic(4, most_bytes=100)
        watched = Watched()

        def work(size: int) -> None:
            with traffic.room(size), watched.holding(size):
                time.sleep(0.0003)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, sizes))
        assert all(held <= 100 or holders == 1 for held, holders in watched.past)
        with traffic.room(100):
            pass

    def test_one_that_is_larger_is_alone(self) -> None:
        traffic = Traffic(4, most_bytes=100)
        events: list[str] = []

        def large() -> None:
            with traffic.room(1000):
                events.append("large")

        def small() -> None:
            with traffic.room(10):
                events.append("small")

        with ThreadPoolExecutor(8) as pool:
            with traffic.room(50):
                first = pool.submit(large)
                wait_for(lambda: traffic._space.is_waited_in)
                rest = [pool.submit(small) for _ in range(6)]
                time.sleep(0.1)
                # Those that came later would fit, but it must not wait for ever.
                assert events == []
            for each in (first, *rest):
                each.result(10)
        assert events == ["large"] + ["small"] * 6

    def test_a_failure_gives_it_back(self) -> None:
        traffic = Traffic(4, most_bytes=100)
        for _ in range(3):
            with pytest.raises(OSError, match="x"), traffic.room(90):
                raise OSError("x")

    def test_it_may_be_given_back_elsewhere(self) -> None:
        traffic = Traffic(4, most_bytes=100)
        with ThreadPoolExecutor(1) as pool:
            returned = []
            for _ in range(20):
                traffic.take_room(60)
                returned.append(pool.submit(traffic.give_room_back, 60))
            assert [each.result(10) for each in returned] == [None] * 20


class TestBuffers:
    @pytest.mark.parametrize("sizes", [(100, 5000), (8 * MIB, 3), (9 * MIB, 8 * MIB)])
    def test_nobody_else_writes_into_ours(self, sizes: tuple[int, ...]) -> None:
        traffic = Traffic(4, most_bytes=40 * MIB)
        watched = Watched()

        def work(number: int) -> None:
            size = sizes[number % len(sizes)]
            buffer = traffic.buffer(size)
            with watched.holding(size):
                assert len(buffer.view) == size
                for place in (0, size // 2, size - 1):
                    buffer.view[place] = number % 256
                time.sleep(0.001)
                assert {buffer.view[place] for place in (0, size // 2, size - 1)} == {number % 256}
            buffer.give_back()
            with pytest.raises(ValueError, match="released"):
                buffer.view[0]

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(work, range(300)))
        assert max(held for held, _ in watched.past) <= 40 * MIB
        with traffic.room(40 * MIB):
            pass

    def test_memory_that_is_not_there_is_not_held(self) -> None:
        traffic = Traffic(4, most_bytes=100)
        for _ in range(3):
            with pytest.raises((OSError, OverflowError)):
                traffic.buffer(1 << 62)
        with traffic.room(100):
            pass


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class TestDeadlocks:
    @pytest.mark.parametrize("seed", range(3))
    def test_files_and_blocks_with_all_kinds_of_trouble_come_to_an_end(self, seed: int) -> None:
        """As uploads do it: files take room for blocks, and other threads send these and give the room back."""
        traffic = Traffic(6, most_bytes=100)
        chance = random.Random(seed)  # noqa: S311
        trouble = [chance.choice(["", "", "", "failure", "overload", "pause", "silence"]) for _ in range(600)]
        sizes = [chance.choice([1, 5, 30, 99, 130]) for _ in range(600)]
        watched, answered = Watched(), list[int]()

        def send(number: int) -> None:
            try:
                with suppress(OSError), traffic.request(sizes[number] * MIB), watched.holding(1):
                    time.sleep(0.0002)
                    match trouble[number]:
                        case "failure":
                            raise OSError
                        case "overload":
                            traffic.overloaded(None)
                            raise OSError
                        case "pause":
                            traffic.overloaded(0.002)
                            raise OSError
                        case "silence":
                            traffic.fell_silent()
                            raise OSError
            finally:
                traffic.give_room_back(sizes[number])
                answered.append(number)

        with ThreadPoolExecutor(6) as blocks, ThreadPoolExecutor(10) as files:

            def upload(first: int) -> None:
                for number in range(first, first + 20):
                    traffic.take_room(sizes[number])
                    blocks.submit(send, number)

            for each in [files.submit(upload, first) for first in range(0, 600, 20)]:
                each.result(20)
        assert sorted(answered) == list(range(600))
        assert watched.most <= 6
        begun = time.monotonic()
        with traffic.room(100), traffic.request(1):
            assert time.monotonic() - begun < 1


class TestSilence:
    """For how long nothing may move before a request counts as lost."""

    @pytest.mark.parametrize("size", [0, 100, 300_000, 4 * MIB, 4000 * MIB])
    def test_there_are_bounds(self, size: int) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock)
        for seconds in (0.0, 0.001, 1.0, 1000.0, 10.0**9):
            for _ in range(50):
                with traffic.request(8 * MIB):
                    clock.now += seconds
                assert 60 <= traffic.silence(size) <= 900
        for _ in range(50):
            traffic.fell_silent()
            clock.now += 1
            assert 60 <= traffic.silence(size) <= 900

    def test_what_lies_hidden_needs_time(self) -> None:
        traffic = Traffic(4)
        waits = [traffic.silence(size) for size in (0, 100, 10 * KIB, MIB, 4 * MIB, 400 * MIB)]
        assert waits == sorted(waits)
        assert waits[0] == 60
        assert waits[3] > 2 * 60
        assert waits[4] == waits[5], "no more than that lies hidden"

    def test_on_a_fast_line_it_is_short(self) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock)
        before = traffic.silence(8 * MIB)
        for _ in range(30):
            with traffic.request(8 * MIB):
                clock.now += 1
        assert traffic.silence(8 * MIB) < 65 < before

    def test_on_a_slow_line_it_is_long(self) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock)
        for _ in range(30):
            with traffic.request(MIB):
                clock.now += 60
        assert traffic.silence(8 * MIB) > 600

    def test_small_files_say_nothing_about_the_line(self) -> None:
        clock = Clock()
        traffic = Traffic(4, clock=clock)
        before = traffic.silence(8 * MIB)
        for _ in range(100):
            with traffic.request(10):
                clock.now += 5
        assert traffic.silence(8 * MIB) == before

    def test_after_silence_more_is_expected_once(self) -> None:
        clock = Clock()
        traffic = Traffic(16, clock=clock)
        for _ in range(30):
            with traffic.request(8 * MIB):
                clock.now += 8
        before = traffic.silence(8 * MIB)
        # The line breaks, and all that is under way falls silent.
        for _ in range(16):
            traffic.fell_silent()
        assert before < traffic.silence(8 * MIB) < 2 * before
        assert traffic.level == 2
