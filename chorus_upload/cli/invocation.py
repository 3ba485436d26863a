"""One run of the program: the global options, the settings, the sink, and the journal of a command."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chorus_upload.cli.arguments import seconds_of
from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.logs import end_logging, set_up_logging
from chorus_upload.cli.render.choose import choose_sink
from chorus_upload.cli.render.records import json_line
from chorus_upload.cli.render.sink import Sink
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.secrets import Redactor, secrets_in
from chorus_upload.events import (
    CredentialsAwaited,
    Event,
    ExtraFile,
    FileFailed,
    FileNotDownloaded,
    FilesMarked,
    Level,
    Notice,
    PlaceSilent,
    ProblemFound,
    RequestsFail,
)
from chorus_upload.storage.liveness import listen

if TYPE_CHECKING:
    from chorus_upload.config.settings import Settings
    from chorus_upload.operations.custody import JournalSession


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """What stands before the command."""

    config: Path | None = None
    verbose: bool = False
    json: bool = False
    quiet: bool = False


class Invocation:
    """What all commands of this run share. It is made before the command line is read and configured by it."""

    def __init__(self) -> None:
        self.redact = Redactor()
        self.needs_attention = 0
        """How many problems were reported that may keep a file out of the journal."""
        self._emitting = threading.RLock()
        self.configure(GlobalOptions())
        listen(self.emit)

    def configure(self, options: GlobalOptions) -> None:
        """Take over the global options."""
        self.options = options
        set_up_logging(self._log, self._warn, verbose=options.verbose, redact=self.redact)

    @cached_property
    def sink(self) -> Sink:
        """What shows things, made when there is something to show: a help page needs none."""
        options = self.options
        return choose_sink(
            json=options.json, quiet=options.quiet, verbose=options.verbose, program=_as_started(options)
        )

    def _log(self, line: str) -> None:
        self.sink.log(line)

    def _warn(self, text: str) -> None:
        self.emit(Notice(text, Level.WARNING))

    def close(self) -> None:
        """Leave the terminal as it was, and log no more."""
        end_logging()
        listen(None)
        if "sink" in vars(self):
            self.sink.close()

    def show_page(self, name: str, text: str) -> None:
        """Show a text that was asked for: as it is, or as one line of JSON."""
        out = Stream(sys.stdout)
        out.write(json_line(name, {"text": text}) + "\n" if self.options.json else text)
        out.flush()

    @cached_property
    def settings(self) -> Settings:
        """The settings, loaded when first asked for; what loading noticed is shown. Raises ConfigError."""
        from chorus_upload.config.loading import load

        settings = load(self.options.config, environ=os.environ)
        self.redact.learn(secrets_in(settings.model_dump()))
        for warning in settings.warnings:
            self.emit(Notice(warning, Level.WARNING))
        return settings

    def wait_for_credentials(self, text: str | None) -> None:
        """Have the rest of this run wait so long for new credentials when some have expired. Raises ConfigError."""
        if text is not None:
            self.__dict__["settings"] = self.settings.model_copy(update={"credential_seconds": seconds_of(text)})

    def emit(self, event: Event) -> None:
        """Show an event, and count what a person has to look at.

        The keeper of the lock, and whoever waits for a place, calls it from another thread.
        """
        with self._emitting:
            if isinstance(event, ProblemFound) and event.problem.kind.needs_attention:
                self.needs_attention += 1
            self.sink.emit(self._without_secrets(event))

    def _without_secrets(self, event: Event) -> Event:
        """Mask secrets in the events that may repeat what a service said: it may have said a whole URL."""
        match event:
            case Notice():
                return replace(event, text=self.redact(event.text))
            case PlaceSilent() | RequestsFail() | CredentialsAwaited():
                return replace(event, reason=self.redact(event.reason))
            case FileFailed() | FileNotDownloaded() | ExtraFile():
                return replace(event, detail=self.redact(event.detail))
            case FilesMarked():
                # An address may have been given in the place of a path.
                refused = {self.redact(path): self.redact(why) for path, why in event.refused.items()}
                return replace(event, refused=refused)
            case _:
                return event

    @contextmanager
    def session(
        self,
        context: typer.Context,
        *,
        local_journal: Path | None = None,
        local_only: bool = False,
        read_only: bool = False,
        recorded: bool = False,
    ) -> Iterator[JournalSession]:
        """Hold the journal for the command of `context`, which goes into the history with its arguments."""
        from chorus_upload.operations.custody import journal_session

        arguments = {name: self.redact(text) for name, text in given_arguments(context).items()}
        with journal_session(
            self.settings,
            command=command_name(context),
            arguments=arguments,
            emit=self.emit,
            local_journal=local_journal,
            local_only=local_only,
            read_only=read_only,
            recorded=recorded,
        ) as session:
            yield session


def _as_started(options: GlobalOptions) -> str:
    """The program with the configuration that was named, so that a proposed command finds it again."""
    return PROGRAM if options.config is None else f"{PROGRAM} -c {shlex.quote(str(options.config))}"


def command_name(context: typer.Context) -> str:
    """Return e.g. `journal update`."""
    return context.command_path.removeprefix(PROGRAM).strip()


def given_arguments(context: typer.Context) -> dict[str, str]:
    """Return the options of a command that say something, as they are typed and in words."""
    names = {each.name: max(each.opts, key=len).lstrip("-") for each in context.command.params}
    arguments = {}
    for name, value in context.params.items():
        if value is None or value is False or value in ([], ()):
            continue
        if isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = "true" if value is True else str(value)
        arguments[names[name]] = text
    return arguments


def current(context: typer.Context) -> Invocation:
    """Return the run that a command belongs to."""
    return context.ensure_object(Invocation)
