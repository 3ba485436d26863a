"""A signal that comes at an odd moment is no less an interruption."""

from __future__ import annotations

import signal
import time

import pytest

from chorus_upload.cli.interruption import interrupted_by_signals, stopped_by_signals
from chorus_upload.errors import StoppedAtOnce


class Tidying:
    """Something that is interrupted while Python tidies it up."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def work() -> None:
    tidying = Tidying()
    del tidying
    # Long enough for one who is not interrupted.
    end = time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.001)


def test_an_interruption_while_python_tidies_up_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    with interrupted_by_signals(), pytest.raises(KeyboardInterrupt):
        work()
    assert capfd.readouterr().err == ""


def test_neither_is_the_second_one_that_insists() -> None:
    with stopped_by_signals() as stop, pytest.raises(StoppedAtOnce):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        work()
