"""`--json`: one event a line on standard output, for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from chorus_upload.cli.render.formats import iso_time
from chorus_upload.cli.render.records import as_json, event_name, fields_of, json_line
from chorus_upload.cli.render.reports import Result
from chorus_upload.cli.render.sink import Failure, Progress
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Report
from chorus_upload.events import Event, Level, Notice


class JsonSink:
    """Every event with all its fields, and the time at which it was shown; `quiet` leaves out progress and remarks.

    A failure is the last line. Log lines alone go to standard error.
    """

    def __init__(
        self, *, out: Stream, err: Stream, quiet: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._clock = clock

    def emit(self, event: Event) -> None:
        if self._quiet and (
            isinstance(event, Progress) or (isinstance(event, Notice) and event.level is not Level.WARNING)
        ):
            return
        at_us = int(self._clock() * 1_000_000)
        stamp = {"at_us": at_us, "at": iso_time(at_us)}
        self._out.line(json_line(event_name(event), {**stamp, **fields_of(event)}))

    def answer(self, result: Result) -> None:
        self.emit(result)

    def result(self, kind: str, values: Iterable[object], report: Callable[[], Report]) -> None:
        for value in values:
            fields = as_json(value)
            self._out.write(json_line(kind, fields if isinstance(fields, dict) else {"value": fields}) + "\n")
            if self._out.gone:
                break
        self._out.flush()

    def failure(self, failure: Failure) -> None:
        fields = {name: value for name, value in fields_of(failure).items() if name != "traceback" or value}
        self._out.line(json_line("error", fields))
        if self._out.unwritten:
            # Nothing more fits where the output goes.
            self._err.line(f"error: {failure.message}")

    def log(self, line: str) -> None:
        self._err.line(line)

    def pause(self) -> None:
        """Nothing moves here."""

    def close(self) -> None:
        self._out.flush()
