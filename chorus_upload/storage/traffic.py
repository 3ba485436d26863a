"""How much is sent at once: one level of concurrency, one budget of memory, one idea of speed for a whole run.

Files that go in one request and blocks of large files share all of it. The level finds itself: it is doubled while
that brings more throughput, stays where it stops doing so, is tried again now and then, and is halved when the
service is overloaded (429, 503) or falls silent. (The same idea as TCP's slow start and congestion avoidance,
RFC 5681, with throughput instead of lost packets as what is watched.)
"""

from __future__ import annotations

import mmap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chorus_upload.errors import TransientError
from chorus_upload.storage.bandwidth import Throttle

_FIRST_LEVEL = 4
_MOST_BYTES = 48 << 20
# A request is worth its bytes and this many more: for small files, what counts is how many of them go out.
_REQUEST_WORTH = 1 << 16
_WINDOW_SECONDS = 0.5
# By how much a doubled level has to raise the throughput to be kept. At first each window decides, and what differs
# by chance must not; later it is the mean of some, else the level would rise by chance step by step, for ever.
_GAIN_AT_FIRST = 1.25
_GAIN = 1.1
_MEAN_OF = 4
# For how many windows a level is kept before a higher one is tried again.
_KEEP = 20
_KEEP_AFTER_OVERLOAD = 60
# A service that wants to be left alone for longer is asked what it thinks of that now.
_PATIENCE = 900.0
# After how many seconds those who wait look up, although nobody called them: it may be that the run is to end.
_LOOK_SECONDS = 0.5

_LEAST_SILENCE = 60.0
_MOST_SILENCE = 900.0
# What may be on its way and not yet acknowledged, beyond what we see of it: in buffers of routers and proxies.
_HIDDEN_BYTES = 4 << 20
_UNKNOWN_SPEED = 64 << 10
_SLOWEST_SPEED = 1 << 12
_LARGE = 1 << 18
# The size of blocks of all but enormous files: their memory is kept for the next one.
_BUFFER = 8 << 20


class Traffic:
    """Shared by all threads of a run. `most_requests` is never exceeded; `most_bytes` only by a single larger block.

    `throttle` holds back bytes as they go out. Once `stop` is set, waiting for a turn raises TransientError. Whatever a
    service asks for, nobody pauses for longer than `patience` seconds.
    """

    def __init__(
        self,
        most_requests: int,
        *,
        most_bytes: int = _MOST_BYTES,
        throttle: Throttle | None = None,
        stop: threading.Event | None = None,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.throttle = throttle
        self._patience = patience
        self._most = most_requests
        self._most_bytes = most_bytes
        self.stop = stop or threading.Event()
        self._clock = clock
        self._turns = _Queue()
        self._own = threading.local()
        self._under_way = 0
        self._paused_until = 0.0
        self._level = _Level(most_requests, now=clock())
        self._speed = float(_UNKNOWN_SPEED)
        self._space = _Queue()
        self._bytes = 0
        self._spare: list[mmap.mmap] = []

    @property
    def level(self) -> int:
        """How many requests may be under way at present."""
        return self._level.now

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Hold `size` bytes of the budget of memory; waits until they are free."""
        self.take_room(size)
        try:
            yield
        finally:
            self.give_room_back(size)

    def take_room(self, size: int) -> None:
        """As `room`, for whoever gives it back in another place. What is larger than the budget waits for all of it."""
        with self._space.lock:
            self._space.wait(lambda: _LOOK_SECONDS if self._bytes and self._bytes + size > self._most_bytes else 0.0)
            self._bytes += size

    def give_room_back(self, size: int) -> None:
        """Free what `take_room` took."""
        with self._space.lock:
            self._bytes -= size
            self._space.call()

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        """One request with a body of `size` bytes, from getting its turn to its answer; an exception is no success."""
        with self._turns.lock:
            self._turns.wait(self._seconds_to_wait)
            self._under_way += 1
        self._own.begun = begun = self._clock()
        try:
            yield
        except BaseException:
            with self._turns.lock:
                self._under_way -= 1
                self._turns.call()
            raise
        ended = self._clock()
        with self._turns.lock:
            was_full = self._under_way >= self._level.now or self._turns.is_waited_in
            self._under_way -= 1
            self._level.finished(size, now=ended, was_full=was_full)
            if size >= _LARGE:
                self._speed += 0.2 * (size / max(ended - begun, 1e-6) - self._speed)
            self._turns.call()

    def buffer(self, size: int) -> Buffer:
        """Memory for a block of `size` bytes, out of the budget; waits for it."""
        self.take_room(size)
        with self._space.lock:
            memory = self._spare.pop() if size <= _BUFFER and self._spare else None
        try:
            return Buffer(self, size, memory or mmap.mmap(-1, max(size, _BUFFER)))
        except BaseException:
            self.give_room_back(size)
            raise

    def take_back(self, memory: mmap.mmap, size: int) -> None:
        """The memory of a buffer is free for the next one."""
        with self._space.lock:
            is_kept = len(memory) == _BUFFER and len(self._spare) < self._most_bytes // _BUFFER
            if is_kept:
                self._spare.append(memory)
        if not is_kept:
            memory.close()
        self.give_room_back(size)

    def overloaded(self, retry_after: float | None) -> None:
        """The service has too much to do: send less at once, and nothing at all for as long as it asked for.

        As `fell_silent`, to be called within `request`.
        """
        with self._turns.lock:
            now = self._clock()
            self._level.overloaded(now=now, begun=self._begun(now))
            if retry_after:
                self._paused_until = max(self._paused_until, now + min(retry_after, self._patience))

    def fell_silent(self) -> None:
        """A request timed out: expect less speed from now on, and send less at once."""
        with self._turns.lock:
            now = self._clock()
            if self._level.overloaded(now=now, begun=self._begun(now)):
                self._speed = max(_SLOWEST_SPEED, self._speed / 2)

    def silence(self, size: int) -> float:
        """For how many seconds nothing may move in a request of that size before it counts as lost.

        It follows from the speed that large bodies had: what lies hidden in buffers on the way needs that time.
        """
        hidden = min(size, _HIDDEN_BYTES)
        return min(_MOST_SILENCE, _LEAST_SILENCE + 4 * hidden / self._speed)

    def _begun(self, now: float) -> float:
        """When the request of this thread began."""
        begun: float = getattr(self._own, "begun", now)
        return begun

    def _seconds_to_wait(self) -> float:
        pause = self._paused_until - self._clock()
        if pause <= 0 and self._under_way < self._level.now:
            return 0.0
        if self.stop.is_set():
            raise TransientError("given up, because the run is to end")
        return min(pause, _LOOK_SECONDS) if pause > 0 else _LOOK_SECONDS


class Buffer:
    """Memory for one block, used again and again: new memory for each would be scattered over the heaps of threads."""

    def __init__(self, traffic: Traffic, size: int, memory: mmap.mmap) -> None:
        self._traffic = traffic
        self._size = size
        self._memory = memory
        self.view = memoryview(memory)[:size]

    def give_back(self) -> None:
        """It must not be used any more."""
        self.view.release()
        self._traffic.take_back(self._memory, self._size)


class _Queue:
    """Whoever comes first goes first. The methods are called with `lock` held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._waiting: deque[threading.Condition] = deque()

    def wait(self, seconds: Callable[[], float]) -> None:
        """Return when nobody is before us and `seconds()` is 0; it is asked again after as many, or when called."""
        if not self._waiting and not seconds():
            return
        me = threading.Condition(self.lock)
        self._waiting.append(me)
        try:
            while (left := seconds()) or self._waiting[0] is not me:
                me.wait(left or _LOOK_SECONDS)
        finally:
            self._waiting.remove(me)
            self.call()

    @property
    def is_waited_in(self) -> bool:
        return bool(self._waiting)

    def call(self) -> None:
        """Something is free: let the first look."""
        if self._waiting:
            self._waiting[0].notify()


class _Level:
    """How many requests may be under way; not safe for threads by itself."""

    def __init__(self, most: int, *, now: float) -> None:
        self._most = most
        self.now = min(_FIRST_LEVEL, most)
        self._before: tuple[int, float] | None = None
        self._windows: deque[tuple[int, float]] = deque(maxlen=_MEAN_OF)
        self._wait = self._look = 1
        self._gain = _GAIN_AT_FIRST
        self._ignored = 0
        self._overloaded_at = float("-inf")
        self._begin_window(now)

    def finished(self, size: int, *, now: float, was_full: bool) -> None:
        """A request succeeded; `was_full` tells that as many as may be were under way, or waited."""
        if self._ignored:
            self._ignored -= 1
            self._window_began = now
            return
        self._work += size + _REQUEST_WORTH
        self._requests += 1
        self._full += was_full
        seconds = now - self._window_began
        if seconds < _WINDOW_SECONDS or self._requests < 2 * self.now:
            return
        # While there was not enough to do, the level was not what limited the throughput.
        if self._full * 2 >= self._requests:
            self._windows.append((self._work, seconds))
            self._judge()
        self._begin_window(now)

    def overloaded(self, *, now: float, begun: float) -> bool:
        """Halve, if it counts: of many requests that fail for one and the same reason only one does.

        Those that had `begun` before the last time were sent when nobody knew.
        """
        if begun <= self._overloaded_at or now - self._overloaded_at < _WINDOW_SECONDS:
            return False
        self._overloaded_at = now
        self.now = max(1, self.now // 2)
        self._settle(_KEEP_AFTER_OVERLOAD)
        self._begin_window(now)
        return True

    def _judge(self) -> None:
        self._wait -= 1
        if self._wait:
            return
        work, seconds = map(sum, zip(*self._windows, strict=True))
        rate = work / seconds
        if self._before is not None:
            level, rate_then = self._before
            if rate < rate_then * self._gain:
                self.now = level
                self._settle(_KEEP)
                return
        self._before = (self.now, rate)
        self.now = min(self._most, self.now * 2)
        self._windows.clear()
        self._wait = self._look
        # Until all that is under way was sent at the new level, the throughput is of both.
        self._ignored = self.now

    def _settle(self, windows: int) -> None:
        """Keep the level for so long."""
        self._before = None
        self._windows.clear()
        self._wait = windows
        self._look, self._gain = _MEAN_OF, _GAIN
        self._ignored = 0

    def _begin_window(self, now: float) -> None:
        self._window_began = now
        self._work = self._requests = self._full = 0
