"""A place that keeps silent is told of: what, why and until when; and once when it responds again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from chorus_upload.errors import AccessDenied, HostUnknown, HostUnresolved, StorageError, TransientError
from chorus_upload.model import CredentialsAwaited, PlaceResponds, PlaceSilent, RequestsFail
from chorus_upload.storage.liveness import Liveness
from chorus_upload.storage.retry import UNKNOWN_HOST_SECONDS, Retry

NOW = 1_700_000_000.0


@dataclass
class Watched:
    """A place, and a clock that moves when somebody sleeps; every half second somebody looks."""

    seconds: float = 1_000.0
    told: list[PlaceSilent | RequestsFail | PlaceResponds | CredentialsAwaited] = field(default_factory=list)
    liveness: Liveness = field(init=False)

    def __post_init__(self) -> None:
        self.liveness = Liveness(
            "acct.example (az://c)",
            look_at="azure_account_name",
            tell=self.told.append,
            clock=lambda: self.seconds,
            now=lambda: NOW + self.seconds - 1_000,
        )

    def sleep(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds = min(end, self.seconds + 0.5)
            self.liveness.look()

    def retry(self, *, patience: float = 900.0, aside: float | None = None) -> Retry:
        return Retry(
            patience=patience,
            first=1.0,
            longest=8.0,
            aside=aside,
            clock=lambda: self.seconds,
            sleep=self.sleep,
            draw=lambda: 0.5,
            liveness=self.liveness,
        )

    def silences(self) -> list[PlaceSilent]:
        return [each for each in self.told if isinstance(each, PlaceSilent)]


def _failing(error: StorageError) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_place_that_responds_is_not_told_of() -> None:
    place = Watched()

    assert place.retry().call(lambda: "done") == "done"
    with pytest.raises(AccessDenied):
        place.retry().call(partial(_failing(AccessDenied("no"))))
    place.sleep(100)

    assert place.told == []


def test_a_request_that_hangs_is_told_of_after_five_seconds() -> None:
    place = Watched()

    place.retry().call(lambda: place.sleep(12))

    silent, longer, responds = place.told
    assert isinstance(silent, PlaceSilent)
    assert isinstance(longer, PlaceSilent)
    assert (silent.place, silent.seconds, silent.look_at) == ("acct.example (az://c)", 5.0, "azure_account_name")
    assert "no response" in silent.reason
    assert silent.until_us is None
    assert longer.seconds == 10.0
    assert responds == PlaceResponds("acct.example (az://c)", 12.0)


def test_what_fails_for_long_is_told_with_its_reason_and_not_too_often() -> None:
    place = Watched()

    with pytest.raises(TransientError, match="gave up"):
        place.retry(patience=300).call(_failing(TransientError("connection refused")))

    silences = place.silences()
    assert [round(each.seconds) for each in silences] == [5, 10, 20, 40, 80, 160]
    assert {each.reason for each in silences} == {"connection refused"}
    assert {each.until_us for each in silences} == {int((NOW + 300) * 1e6)}


def test_the_time_until_which_it_is_tried_again_is_kept() -> None:
    """Each try hangs, as with a host that accepts and never answers: nothing is tried later than was said."""
    place = Watched()
    begun: list[float] = []

    def hang() -> None:
        begun.append(NOW + place.seconds - 1_000)
        place.sleep(8)
        raise TransientError("timed out")

    with pytest.raises(TransientError, match="gave up"):
        place.retry(patience=14).call(hang)

    told = [each.until_us for each in place.silences()]
    assert told[0] is None
    assert set(told[1:]) == {int((NOW + 22) * 1e6)}
    assert len(begun) > 2
    assert max(begun) <= NOW + 22


def test_while_bytes_move_nothing_is_wrong() -> None:
    place = Watched()

    def slow() -> None:
        for _ in range(20):
            place.sleep(4)
            place.liveness.moved()

    place.retry().call(slow)

    assert place.told == []


def test_while_others_get_responses_one_failure_is_no_silence() -> None:
    place = Watched()
    attempts: list[float] = []

    def unlucky() -> None:
        attempts.append(place.seconds)
        place.liveness.responded()
        if len(attempts) < 6:
            raise TransientError("reset")

    place.retry().call(unlucky)

    assert place.silences() == []


def test_a_request_that_fails_while_others_succeed_is_told_of_until_it_is_over() -> None:
    """A gateway that lets some methods through and others not: nothing moves, and the place responds."""
    place = Watched()

    def refused() -> None:
        place.liveness.responded()
        raise TransientError("something between here and the service responded")

    with pytest.raises(TransientError, match="gave up"):
        place.retry(aside=60).call(refused)

    *fails, over = place.told
    assert [(each.requests, round(each.seconds)) for each in fails if isinstance(each, RequestsFail)] == [
        (1, 5),
        (1, 10),
        (1, 20),
        (1, 40),
    ]
    assert len(fails) == 4
    assert over == RequestsFail("acct.example (az://c)", 0, 0.0, "", 0)
    first = fails[0]
    assert isinstance(first, RequestsFail)
    assert first.reason == "something between here and the service responded"
    assert first.until_us == pytest.approx((NOW + 60) * 1e6, abs=1e6)


def test_failures_that_pass_quickly_are_not_told_of() -> None:
    place = Watched()
    attempts = iter([TransientError("reset"), TransientError("reset"), None])

    def unlucky() -> None:
        place.liveness.responded()
        if error := next(attempts):
            raise error

    place.retry().call(unlucky)

    assert place.told == []


def test_a_name_that_does_not_resolve_is_told_at_once_and_given_up_soon() -> None:
    place = Watched()

    with pytest.raises(HostUnknown, match="gave up"):
        place.retry().call(_failing(HostUnknown("no such host")))

    assert place.silences()[0].seconds == 0
    assert place.silences()[0].until_us == int((NOW + UNKNOWN_HOST_SECONDS) * 1e6)
    assert place.seconds - 1_000 <= UNKNOWN_HOST_SECONDS


@pytest.mark.parametrize(
    ("error", "has_responded"),
    [(HostUnknown("no such host"), True), (HostUnresolved("the name service does not respond"), False)],
    ids=["resolved before", "no name service"],
)
def test_a_name_that_resolved_or_cannot_be_looked_up_is_waited_for(
    error: HostUnresolved, *, has_responded: bool
) -> None:
    """The network is away for a while: that is what patience is for."""
    place = Watched()
    if has_responded:
        place.retry().call(lambda: None)

    with pytest.raises(HostUnresolved):
        place.retry(patience=300).call(_failing(error))

    assert place.seconds - 1_000 > 290


def test_an_object_in_trouble_is_set_aside_while_the_place_responds() -> None:
    place = Watched()
    asked: list[float] = []
    place.liveness.ask = lambda: place.retry().call(lambda: asked.append(place.seconds))

    with pytest.raises(TransientError, match="gave up"):
        place.retry(aside=60).call(_failing(TransientError("a page", foreign_status=403)))

    assert 60 <= place.seconds - 1_000 < 90
    assert len(asked) == 1


def test_nothing_is_set_aside_while_the_place_is_away() -> None:
    place = Watched()
    asked: list[float] = []

    def ask() -> None:
        asked.append(place.seconds)
        raise TransientError("away")

    place.liveness.ask = lambda: place.retry().call(ask)

    with pytest.raises(TransientError):
        place.retry(patience=600, aside=60).call(_failing(TransientError("away")))

    assert place.seconds - 1_000 > 590
    # One request now and then, and none of them is repeated.
    assert 10 < len(asked) < 40


def test_many_threads_tell_of_one_place_once() -> None:
    place = Watched()
    together = threading.Barrier(4)

    def hang() -> None:
        with place.liveness.pending():
            together.wait(10)
            together.wait(10)

    threads = [threading.Thread(target=hang) for _ in range(3)]
    for thread in threads:
        thread.start()
    together.wait(10)
    place.sleep(7)
    together.wait(10)
    for thread in threads:
        thread.join(10)

    assert len(place.told) == 1
