"""What users type, made regular: the place of global options, lists of files, names of modalities."""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chorus_upload.errors import ConfigError
from chorus_upload.events import Emit, Level, Notice

if TYPE_CHECKING:
    from chorus_upload.config.settings import Settings
    from chorus_upload.operations.destination import Choice

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_WAIT = 7 * 86_400
_FLAGS = frozenset({"--json", "--quiet", "-v", "--verbose"})
_WITH_VALUE = frozenset({"-c", "--config"})


def hoist_global_options(arguments: Sequence[str]) -> list[str]:
    """Move the global options to the front, so that they may stand after the command as well as before it.

    What follows `--` is left alone. A file that is called `--json` has to be given as `--file=--json`.
    """
    front: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument in _FLAGS or argument.startswith("--config="):
            front.append(argument)
        elif argument in _WITH_VALUE:
            front += [argument, *([value] if (value := next(remaining, None)) is not None else [])]
        else:
            rest.append(argument)
    return front + rest


def seconds_of(text: str) -> float:
    """Return the seconds of a time as people type it: 90s, 30m, 12h or 2d, at most a week. Raises ConfigError."""
    found = re.fullmatch(r"([0-9]{1,6})\s*([smhd])", text.strip().lower())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_WAIT:
        raise ConfigError(f"{text!r} is not a time from 1s to 7d", hint="Write 90s, 30m, 12h or 2d.")
    return float(seconds)


def chosen_modalities(settings: Settings, text: str | None, *, emit: Emit) -> tuple[str, ...] | None:
    """Return the configured names that `--modalities` asks for; None when it was not given.

    A name that is not configured is left out with a warning: one line of cron may serve several sites. Raises
    ConfigError when none is left: before a journal is taken, not after.
    """
    if text is None:
        return None
    from chorus_upload.operations.selecting import selected_modalities

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    configured = f"Configured are: {', '.join(settings.modalities)}."
    if not names:
        raise ConfigError("--modalities names none", hint=configured)
    known = {name.casefold() for name in settings.modalities}
    unknown = tuple(name for name in dict.fromkeys(names) if name.casefold() not in known)
    if unknown and len(unknown) < len(dict.fromkeys(names)):
        emit(Notice(f"unknown modality, left out: {', '.join(unknown)}. {configured}", Level.WARNING))
        names = tuple(name for name in names if name not in unknown)
    return selected_modalities(settings, names)


def chosen_destination(*, same: bool, new: bool) -> Choice | None:
    """Return what the user says of a central store that has changed; None for nothing. ConfigError for both."""
    from chorus_upload.operations.destination import Choice

    if same and new:
        raise ConfigError("--same-destination and --new-destination exclude each other")
    return Choice.SAME if same else Choice.NEW if new else None


def chosen_paths(given: Sequence[str] | None, file_list: Path | None) -> list[str] | None:
    """Return the paths of `--file` and `--file-list` together, each once; None when neither was given."""
    if not given and file_list is None:
        return None
    listed = [] if file_list is None else parse_file_list(_read(file_list))
    paths = list(dict.fromkeys([*(given or ()), *listed]))
    if not paths:
        raise ConfigError(f"{file_list} names no file")
    return paths


def parse_file_list(data: bytes) -> list[str]:
    """Return the paths of a list: separated by NUL bytes if there is one, else one a line.

    A byte order mark decides the encoding, as Windows editors and shells write it; else it is UTF-8, and bytes
    that are not are kept.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "surrogatepass")
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if "\0" in text:
        return [path for path in text.split("\0") if path]
    # Not splitlines(): a name may hold one of the rarer separators that it splits at.
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line]


def _read(file_list: Path) -> bytes:
    try:
        if str(file_list) == "-":
            return sys.stdin.buffer.read()
        with file_list.open("rb") as file:
            # A shell gives a pipe for what another command says. A device would be read without end.
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise ConfigError(f"the file list {file_list} is a device, and no list")
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot read the file list {file_list}: {error.strerror}") from error
