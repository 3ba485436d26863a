from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from chorus_upload.cli.render import formats


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (930 * 1024**3, "930 GiB"),
        (5 * 1024**5, "5.00 PiB"),
        (2**80, "1048576 EiB"),
    ],
)
def test_sizes_in_binary_units(number: int, shown: str) -> None:
    assert formats.size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (9.97, "10 s"),
        (200.4, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (190_000, "2 d 4 h"),
        (math.inf, "?"),
    ],
)
def test_durations_in_their_two_largest_units(seconds: float, shown: str) -> None:
    assert formats.duration(seconds) == shown


def test_a_hundred_percent_only_when_it_is_done() -> None:
    assert formats.percent(999, 1000) == "99%"
    assert formats.percent(1000, 1000) == "100%"
    assert formats.percent(0, 0) == "100%"


def test_one_and_many() -> None:
    assert formats.files(1) == "1 file"
    assert formats.files(12_345) == "12,345 files"


@pytest.mark.usefixtures("kolkata")
def test_times_are_local_with_their_offset() -> None:
    at_us = 1_767_225_600_123_456

    assert formats.local_time(at_us) == "2026-01-01 05:30:00 +05:30"
    assert formats.iso_time(at_us) == "2026-01-01T05:30:00.123456+05:30"


def test_a_file_may_carry_a_time_that_no_calendar_holds() -> None:
    assert formats.iso_time(10**18) is None
    assert formats.local_time(10**18) == "1000000000000000000 us"
    assert formats.iso_time(-(10**15)) is not None
