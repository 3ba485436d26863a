"""Progress in words: the same facts for the line of a log file and for the live display."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeGuard

from chorus_upload.cli.render.formats import count, counted, duration, percent, rate, size
from chorus_upload.cli.render.pace import Pace, PaceMeter, work
from chorus_upload.cli.render.sink import Progress, Style
from chorus_upload.cli.render.text import printable
from chorus_upload.events import DownloadProgressed, ReadProgressed, ScanProgressed, UploadProgressed, VerifyProgressed

Measured = ReadProgressed | UploadProgressed | VerifyProgressed | DownloadProgressed
"""The kinds of progress whose end may be known."""

_VERBS: dict[type[Measured], str] = {
    ReadProgressed: "Reading",
    UploadProgressed: "Sending",
    VerifyProgressed: "Reading back",
    DownloadProgressed: "Fetching",
}


class ProgressView(Protocol):
    """Shows what is going on, and single lines, on standard error."""

    def show(self, event: Progress) -> None:
        """Show that the work stands here now."""

    def line(self, text: str, style: Style) -> None:
        """Write a line that stays. `text` is printable."""

    def wait(self, place: str, text: str | None) -> None:
        """Show what is waited for at a place, instead of what was said of it before; None: nothing any more."""

    def pause(self) -> None:
        """Take down what moves, until the next `show`."""


class ProgressLines:
    """Progress as a line every now and then, for a log file or a pipe."""

    def __init__(
        self, write: Callable[[str], None], *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._next = clock() + every
        self._meter = PaceMeter()
        self._kind: type[object] = object

    def show(self, event: Progress) -> None:
        now = self._clock()
        if type(event) is not self._kind:
            self._kind = type(event)
            self._meter = PaceMeter()
        pace = measure(self._meter, now, event) if is_measured(event) else None
        if now >= self._next:
            self._next = now + self._every
            self._write(describe(event, pace))

    def line(self, text: str, style: Style) -> None:
        self._write(text)

    def wait(self, place: str, text: str | None) -> None:
        if text is not None:
            self._write(f"warning: {text}")

    def pause(self) -> None:
        """Nothing moves here."""


class NoProgress(ProgressLines):
    """Single lines only: for a user who wants quiet."""

    def show(self, event: Progress) -> None:
        """Show nothing."""


def is_measured(event: Progress) -> TypeGuard[Measured]:
    """Whether the end of the work is known: of a listing it is not."""
    return isinstance(event, Measured) and not (isinstance(event, VerifyProgressed) and not event.files_total)


def measure(meter: PaceMeter, now: float, event: Measured) -> Pace:
    """Let the meter take in an event."""
    return meter.measure(
        now, files=event.files, files_total=event.files_total, bytes_done=event.bytes, bytes_total=event.bytes_total
    )


def describe(event: Progress, pace: Pace | None) -> str:
    """Return one line, e.g. `Sending: 3 of 10 files, 1.2 GiB of 3.4 GiB, 35%, 12 MiB/s, 3 min 20 s left`."""
    match event:
        case ScanProgressed():
            found = f"{counted(event.files, 'file')} in {count(event.directories)} directories"
            return f"Listing {printable(event.root)}: {found}"
        case VerifyProgressed(files_total=0):
            return f"Checking the central store: {counted(event.objects, 'object')} listed"
        case ReadProgressed() | UploadProgressed() | VerifyProgressed() | DownloadProgressed():
            return f"{_VERBS[type(event)]}: {', '.join(facts(event, pace))}"


def facts(event: Measured, pace: Pace | None) -> list[str]:
    """Return files, bytes, share, rate and time left, as far as they are known."""
    known = [
        f"{count(event.files)} of {count(event.files_total)} files",
        f"{size(event.bytes)} of {size(event.bytes_total)}",
        share(event),
    ]
    if pace is not None and pace.files_per_second is not None and pace.bytes_per_second is not None:
        if work(files=event.files_total, volume=0) > event.bytes_total:
            # Of small files, "40 KiB/s" would look like a fault.
            known.append(f"{count(round(pace.files_per_second))} files/s")
        known.append(rate(pace.bytes_per_second))
    if pace is not None and pace.seconds_left is not None and event.files < event.files_total:
        known.append(f"{duration(pace.seconds_left)} left")
    return known


def share(event: Measured) -> str:
    """Return how much is done, files and bytes taken together."""
    return percent(*done_of(event))


def done_of(event: Measured) -> tuple[int, int]:
    """Return how much is done, and of how much: many small files move it as well as one large one."""
    return (
        work(files=event.files, volume=event.bytes),
        work(files=event.files_total, volume=event.bytes_total),
    )
