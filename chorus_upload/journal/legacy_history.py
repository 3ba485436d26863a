"""Takes over the history of a journal of the older tool: what was typed becomes options, and no credential stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from chorus_upload.journal.legacy import OldCommand, moment_us

Redact = Callable[[str], str]
"""Masks what looks like a credential in a text."""

_MASK = "***"
_OPTION = re.compile(r"(?:^|(?<=\s))--(?P<name>[\w-]+)(?:[ =]+(?!--)(?P<value>.*?))?(?=\s+--|\s*\Z)", re.DOTALL)
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential|connection|signature|(?:^|-)sas(?:-|$)")


def command_of(old: OldCommand, *, redact: Redact, not_before_us: int) -> tuple[int, str, str, float | None]:
    """Time (microseconds), name, arguments (JSON) and duration (seconds) of a command.

    One without a readable time gets `not_before_us`, that of the one before it.
    """
    begun_us = moment_us(old.when)
    arguments = dict[str, str]()
    for typed in (_words(old.common), _words(old.parameters)):
        arguments.update(_options(typed, redact=redact))
    if sources := _words(old.sources):
        arguments["sources"] = redact(sources)
    if destination := _words(old.destination):
        arguments["destination"] = redact(destination)
    return (
        not_before_us if begun_us is None else begun_us,
        redact(_words(old.command)) or "unknown",
        json.dumps(arguments),
        _seconds(old.duration),
    )


def _options(typed: str, *, redact: Redact) -> Iterator[tuple[str, str]]:
    for found in _OPTION.finditer(typed):
        name, value = found["name"].replace("_", "-"), (found["value"] or "").strip()
        if name.endswith("-command"):
            # How the older tool's parser remembers the word that is part of the command's name.
            continue
        yield name, _MASK if value and _SECRET.search(name) else redact(value) or "true"
    if rest := " ".join(_OPTION.sub("", typed).split()):
        yield "parameters", redact(rest)


def _words(stored: object) -> str:
    # The older tool wrote Python's None as a word.
    return "" if stored in (None, "None") else str(stored).strip()


def _seconds(stored: object) -> float | None:
    try:
        return float(str(stored))
    except ValueError:
        return None
