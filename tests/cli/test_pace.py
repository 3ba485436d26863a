from __future__ import annotations

import pytest

from chorus_upload.cli.render.pace import PaceMeter
from chorus_upload.cli.render.progress import facts, measure, share
from chorus_upload.events import UploadProgressed

MIB = 1024**2


def test_nothing_is_claimed_before_something_was_measured() -> None:
    pace = PaceMeter().measure(0.0, files=0, files_total=10, bytes_done=0, bytes_total=MIB)

    assert pace.bytes_per_second is None
    assert pace.seconds_left is None


def test_a_steady_transfer() -> None:
    meter = PaceMeter()
    for second in range(11):
        pace = meter.measure(
            float(second), files=0, files_total=1, bytes_done=second * 10 * MIB, bytes_total=1_000 * MIB
        )

    assert pace.bytes_per_second == pytest.approx(10 * MIB)
    assert pace.seconds_left == pytest.approx(90, rel=0.01)


def test_many_small_files_count_although_they_have_no_bytes() -> None:
    meter = PaceMeter()
    for second in range(11):
        pace = meter.measure(float(second), files=second * 100, files_total=10_000, bytes_done=0, bytes_total=0)

    assert pace.seconds_left == pytest.approx(90)


def test_the_rate_forgets_what_was_long_ago() -> None:
    meter = PaceMeter()
    meter.measure(0.0, files=0, files_total=1, bytes_done=0, bytes_total=1_000 * MIB)
    for second in range(1, 100):
        pace = meter.measure(float(second), files=0, files_total=1, bytes_done=500 * MIB, bytes_total=1_000 * MIB)

    assert pace.bytes_per_second == 0
    assert pace.seconds_left is None


def test_bytes_that_are_taken_back_start_a_new_measurement() -> None:
    meter = PaceMeter()
    meter.measure(0.0, files=0, files_total=1, bytes_done=100 * MIB, bytes_total=200 * MIB)
    meter.measure(1.0, files=0, files_total=1, bytes_done=150 * MIB, bytes_total=200 * MIB)
    pace = meter.measure(2.0, files=0, files_total=1, bytes_done=0, bytes_total=200 * MIB)

    assert pace.bytes_per_second is None


def test_small_files_move_the_bar_beside_a_large_one() -> None:
    event = UploadProgressed(
        files=50_000, files_total=100_001, bytes=50_000_000, bytes_total=10_100_000_000, current=()
    )

    assert share(event) == "36%"
    meter = PaceMeter()
    measure(meter, 0.0, UploadProgressed(0, 100_001, 0, 10_100_000_000, ()))
    assert "5,000 files/s" in facts(event, measure(meter, 10.0, event))
