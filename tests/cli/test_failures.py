"""What ended a command, in words: an interruption stays one, whatever came of it."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing, suppress

import pytest

from chorus_upload.cli.failures import failure_of, what_ended
from chorus_upload.cli.interruption import interrupted_by_signals, was_interrupted
from chorus_upload.errors import EXIT_INTERRUPTED, JournalError, StoppedAtOnce


def raised_while(first: type[BaseException]) -> BaseException:
    """What ended a block that had trouble with tidying up after it was ended by `first`."""
    try:
        try:
            raise first
        finally:
            _tidy_up()
    except JournalError as error:
        return error


def _tidy_up() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("DROP VIEW judged")
        except sqlite3.OperationalError as error:
            raise JournalError("the journal cannot be used") from error


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, StoppedAtOnce])
def test_trouble_with_tidying_up_after_an_interruption(interruption: type[BaseException]) -> None:
    error = raised_while(interruption)

    assert type(what_ended(error)) is interruption
    failure = failure_of(error, verbose=True, redact=str)
    assert (failure.code, failure.exit_code) == ("Interrupted", EXIT_INTERRUPTED)
    assert "no such view" in (failure.traceback or "")


def test_trouble_after_other_trouble_is_what_it_is() -> None:
    error = raised_while(ValueError)

    assert what_ended(error) is error
    assert failure_of(error, verbose=False, redact=str).exit_code == JournalError.exit_code


@pytest.mark.parametrize("came", [False, True])
def test_what_a_library_makes_of_an_interruption(*, came: bool) -> None:
    with suppress(KeyboardInterrupt), interrupted_by_signals():
        if came:
            os.kill(os.getpid(), signal.SIGTERM)

    assert was_interrupted() == came
    failure = failure_of(RuntimeError("Error calling function"), verbose=False, redact=str, interrupted=came)
    assert (failure.exit_code == EXIT_INTERRUPTED) == came
    assert "RuntimeError: Error calling function" in failure.message
