"""Holding back what is sent, so that uploads leave room for whoever else needs the line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from chorus_upload.config.bandwidth import BandwidthLimit

# How much of a pause is made up for afterwards: enough for senders that were late, too little to be felt as a surge.
_CREDIT_SECONDS = 0.25
# A wait is cut into pieces of at most so many seconds: after each it is seen what the timetable says now.
_LONGEST_WAIT = 1.0
# Shorter ones cost more than they are worth; the credit makes up for what is late.
_SHORTEST_WAIT = 0.001
# The smallest is so small because, at a low limit, each of many threads must have its turn before the service at the
# other end takes it for dead.
_PIECES_PER_SECOND = 8
_SMALLEST_PIECE = 1 << 10
_LARGEST_PIECE = 1 << 18


def _local_time() -> datetime:
    return datetime.now().astimezone()


class Throttle:
    """One limit for all threads that send. May be used by many at once; they get their turns in the order of asking.

    What counts is content: bytes of files, without what the network adds. Over a minute the limit is kept to within
    5 %, provided that no thread asks for much more than a `piece` at a time. Once `stop` is set nobody waits any more.

    `clock` (seconds), `now` (a local time, for the timetable) and `sleep` are there for tests. When `sleep` is not
    given, a wait ends the moment that `stop` is set.
    """

    def __init__(
        self,
        limit: BandwidthLimit | None,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _local_time,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._limit = None if limit is None or limit.is_off else limit
        self._stop = stop or threading.Event()
        self._clock = clock
        self._now = now
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        # Bytes since the beginning: asked for by `take`, and allowed to go by the time of the last look.
        self._asked = 0
        self._allowed = 0.0
        self._rate: float | None = None
        self._looked = clock()

    @property
    def is_active(self) -> bool:
        """Whether there is a limit at any time; if not, nothing is ever held back."""
        return self._limit is not None

    def piece(self) -> int:
        """How many bytes to ask for at a time, so that they flow evenly."""
        rate = self._rate_now()
        if rate is None:
            return _LARGEST_PIECE
        return int(min(max(rate / _PIECES_PER_SECOND, _SMALLEST_PIECE), _LARGEST_PIECE))

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may be sent.

        A thread's turn has come when all that was asked for up to then, its own included, is allowed.
        """
        if self._limit is None or count <= 0:
            return
        with self._lock:
            self._look()
            self._asked += count
            turn = self._asked
        while not self._stop.is_set():
            with self._lock:
                rate = self._look()
                missing = turn - self._allowed
            if rate is None or missing <= 0:
                return
            self._sleep(min(max(missing / rate, _SHORTEST_WAIT), _LONGEST_WAIT))

    def _rate_now(self) -> float | None:
        return None if self._limit is None else self._limit.rate_at(self._now())

    def _look(self) -> float | None:
        """Allow what the time since the last look is worth; the rate from now on."""
        looked = self._clock()
        if self._rate is not None:
            self._allowed += self._rate * (looked - self._looked)
        self._looked = looked
        self._rate = rate = self._rate_now()
        if rate is None:
            self._allowed = float(self._asked)
        else:
            self._allowed = min(self._allowed, self._asked + rate * _CREDIT_SECONDS)
        return rate
