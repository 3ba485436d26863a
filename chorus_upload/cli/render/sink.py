"""What every way of showing things can do: the one interface between commands and their output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from chorus_upload.cli.render.reports import Result
from chorus_upload.cli.render.tables import Report
from chorus_upload.events import (
    DownloadProgressed,
    Event,
    ReadProgressed,
    ScanProgressed,
    UploadProgressed,
    VerifyProgressed,
)

Progress = ScanProgressed | ReadProgressed | UploadProgressed | VerifyProgressed | DownloadProgressed


class Style(StrEnum):
    """What a line is, for a view that has colours."""

    PLAIN = "plain"
    WARNING = "warning"
    ERROR = "error"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command ended, ready to be shown: it holds no secret. `code` names the kind of error."""

    code: str
    exit_code: int
    message: str
    hint: str | None = None
    traceback: str | None = None


class Sink(Protocol):
    """Shows events, results and failures."""

    def emit(self, event: Event) -> None:
        """Take in an event of an operation. Costs little: it may be called for each of a million files."""

    def answer(self, result: Result) -> None:
        """Show the event that is the answer to the command itself."""

    def result(self, kind: str, values: Iterable[object], report: Callable[[], Report]) -> None:
        """Show a result that was asked for: `values` one by one under the name `kind`, or the report of them."""

    def failure(self, failure: Failure) -> None:
        """Say why the command ends here."""

    def log(self, line: str) -> None:
        """Show a line of the log, from any thread."""

    def pause(self) -> None:
        """Leave the terminal to somebody else (a question, data) until the next event."""

    def close(self) -> None:
        """Show nothing more; nothing is left moving on the terminal. May be called twice."""
