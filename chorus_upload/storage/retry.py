"""Patience with a service or a network that fails for a while: the one place that waits and tries again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from chorus_upload.errors import TransientError

T = TypeVar("T")

# The jitter spreads clients out, it protects no secret; a generator of our own leaves random.seed() to its users.
_jitter = random.Random()  # noqa: S311


@dataclass(frozen=True, slots=True)
class Retry:
    """How long, and in which rhythm, a request is repeated. All times are seconds.

    The n-th wait is drawn evenly from 0 to `first * 2**n`, at most `longest` ("full jitter": of many clients
    that were cut off together no two come back together), and is never shorter than what the service asked for.
    When the next wait would end more than `patience` seconds after the first failure, the last error stands.
    `clock`, `sleep` and `draw` (0 ≤ x < 1) are there for tests and for whoever has to end a wait early.
    """

    patience: float = 900.0
    first: float = 0.5
    longest: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = _jitter.random

    def call(self, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called many times; only a TransientError is repeated."""
        failing_since = None
        attempts = 0
        while True:
            try:
                return action()
            except TransientError as error:
                failure = error
            attempts += 1
            # From the first failure on: a large body may take longer than that to send, and break off at its end.
            if failing_since is None:
                failing_since = self.clock()
            wait = self._wait(attempts, failure.retry_after)
            spent = self.clock() - failing_since
            if spent + wait > self.patience:
                raise TransientError(
                    f"{failure.message} (gave up after {attempts} attempts in {spent:.0f} s)",
                    hint=failure.hint,
                    retry_after=failure.retry_after,
                    foreign_status=failure.foreign_status,
                )
            self.sleep(wait)

    def _wait(self, attempts: int, asked: float | None) -> float:
        # The exponent is bounded only to keep the power a float.
        bound = min(self.longest, self.first * 2.0 ** min(attempts - 1, 60))
        return self.draw() * bound + (asked or 0.0)
