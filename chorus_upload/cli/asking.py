"""Asking a person before something is done that cannot be undone."""

from __future__ import annotations

import sys

import typer

from chorus_upload.cli.invocation import Invocation
from chorus_upload.cli.render.stream import Stream
from chorus_upload.errors import EXIT_OK, ConfigError


def require_somebody(run: Invocation, told: str, *, hint: str) -> None:
    """Raise ConfigError with what would have been `told` where nobody can be asked."""
    if run.options.json or not sys.stdin.isatty():
        raise ConfigError(f"{told}; nothing was done, since nobody can be asked without a terminal", hint=hint)


def require_agreement(run: Invocation, question: str) -> None:
    """Ask; typer.Exit when the answer is no."""
    if not is_agreed(run, question):
        raise typer.Exit(EXIT_OK)


def is_agreed(run: Invocation, question: str) -> bool:
    """Ask, and return whether the answer is yes."""
    run.sink.pause()
    return _agrees(f"{question} [y/N]: ")


def _agrees(question: str) -> bool:
    """Ask on standard error. Who closes the input instead of answering has interrupted the command."""
    asked = Stream(sys.stderr)
    asked.write(question)
    asked.flush()
    answer = sys.stdin.readline()
    if not answer:
        asked.line("")
        raise typer.Abort
    return answer.strip().lower() in ("y", "yes")
