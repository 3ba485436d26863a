from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from chorus_upload.errors import AccessDenied, TransientError
from chorus_upload.storage.retry import Retry


@dataclass
class Time:
    """A clock that only moves when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def retry(self, *, patience: float = 900.0, draw: float = 0.5) -> Retry:
        return Retry(patience=patience, first=1.0, longest=8.0, clock=self.clock, sleep=self.sleep, draw=lambda: draw)


@dataclass
class Flaky:
    """Fails so often, then works."""

    failures: int
    error: TransientError = field(default_factory=lambda: TransientError("the service is busy"))
    calls: int = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def test_what_works_is_not_repeated() -> None:
    time, action = Time(), Flaky(0)
    assert time.retry().call(action) == "done"
    assert (action.calls, time.slept) == (1, [])


def test_waits_grow_to_a_limit() -> None:
    time, action = Time(), Flaky(6)
    assert time.retry().call(action) == "done"
    assert time.slept == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_the_jitter_is_full() -> None:
    quick, slow = Time(), Time()
    quick.retry(draw=0.0).call(Flaky(2))
    slow.retry(draw=0.99).call(Flaky(2))
    assert quick.slept == [0.0, 0.0]
    assert slow.slept == pytest.approx([0.99, 1.98])


def test_what_the_service_asks_for_is_the_least() -> None:
    time = Time()
    time.retry(draw=0.0).call(Flaky(1, TransientError("busy", retry_after=17.0)))
    assert time.slept == [17.0]


def test_gives_up_when_patience_is_over() -> None:
    time, action = Time(), Flaky(1000)
    with pytest.raises(TransientError, match=r"the service is busy \(gave up after 11 attempts in 30 s\)") as caught:
        time.retry(patience=30).call(action)
    assert sum(time.slept) == 30
    assert caught.value.__context__ is None


def test_does_not_begin_a_wait_that_is_too_long() -> None:
    time = Time()
    with pytest.raises(TransientError):
        time.retry(patience=30).call(Flaky(1, TransientError("busy", retry_after=3600.0)))
    assert time.slept == []


def test_only_the_transient_is_repeated() -> None:
    calls = 0

    def denied() -> None:
        nonlocal calls
        calls += 1
        raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        Time().retry().call(denied)
    assert calls == 1
