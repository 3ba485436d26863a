"""Files that a user names for output: what of those that are there may be replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli.invocation import Invocation
from chorus_upload.errors import ConfigError

if TYPE_CHECKING:
    from chorus_upload.config.settings import Settings

Force = Annotated[
    bool, typer.Option("--force", help="Replace the output file also if this program did not write what is there.")
]
IsOurs = Callable[[bytes], bool]
"""Tells from the first bytes of a file whether this program wrote it."""

_HEAD = 1 << 16
_SCRIPT = b"Uploads files to Azure Blob Storage with Microsoft's own tools"
_OLDER_SCRIPT = re.compile(
    rb"(#!/bin/bash\r?\n#|@echo off\r?\nsetlocal\r?\n@REM) script to upload files to azure for upload date \w+\r?\n"
)
"""The first lines of the older tool's scripts, in each of its releases that wrote any."""
_NAME_ANOTHER = "Name another file."


def require_replaceable(run: Invocation, path: Path, *, option: str, is_ours: IsOurs, force: bool) -> None:
    """Raise ConfigError for a file that must not be replaced, before anything is done.

    Those are the configuration, journals and credentials, what is in the central store, what is or would become a file
    of a source; and, without `force`, whatever this program did not write.
    """
    named = f"{option} {path}"
    require_nobodys(run.settings, path, named)
    if not path.exists():
        return
    if not path.is_file():
        raise ConfigError(f"{named} is not a file", hint=_NAME_ANOTHER)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}", hint=_NAME_ANOTHER) from error
    if head and not force and not is_ours(head):
        hint = f"{_NAME_ANOTHER[:-1]}, or add --force to replace it."
        raise ConfigError(f"{named} exists, and is nothing that this program wrote", hint=hint)


def require_nobodys(settings: Settings, path: Path, named: str) -> None:
    """Raise ConfigError for a place that is the program's own, or in the central store or a source."""
    if place := _taken_by(path, settings):
        raise ConfigError(f"{named} {place}", hint=_NAME_ANOTHER)


def is_script(head: bytes) -> bool:
    """Tell whether a file begins as a generated script, of this program or of the older tool."""
    return _SCRIPT in head or _OLDER_SCRIPT.match(head) is not None


def is_table(*columns: str) -> IsOurs:
    """Tell whether a file begins as a table with these columns, in CSV or in lines of JSON."""
    csv, json = ",".join(columns).encode(), (b'{"event"', b'{"%s"' % columns[0].encode())

    return lambda head: head.startswith((csv, *json))


def is_list(settings: Settings, knows: Callable[[str], bool]) -> IsOurs:
    """Tell whether a file begins with the path of a file that the journal `knows`, as a list of files does.

    A pattern may match any text. The older tool wrote the root of the source before each path.
    """
    roots = {site.location.path.replace("\\", "/").rstrip("/") + "/" for site in settings.sites.values()}

    def is_ours(head: bytes) -> bool:
        if head.startswith(b'{"event": "listed-file"'):
            return True
        try:
            first = head.partition(b"\0" if b"\0" in head else b"\n")[0].decode().rstrip("\r")
        except UnicodeDecodeError:
            return False
        older = first.replace("\\", "/")
        relative = [older.removeprefix(root) for root in roots if older.startswith(root)]
        return any(knows(path) for path in (first, *relative))

    return is_ours


def _taken_by(path: Path, settings: Settings) -> str | None:
    """Say what a place belongs to; None if it is free, or nobody's."""
    from chorus_upload.config.own_files import own_files

    own, real = own_files(settings), path.resolve()
    if own.covers(path):
        return "is the configuration, a journal, or holds credentials"
    if any(real.is_relative_to(store.resolve()) for store in own.stores):
        return "is in the central store"
    for site in settings.sites.values():
        if site.location.is_local:
            root = site.location.local_path.resolve()
            if real.is_relative_to(root) and site.has(real.relative_to(root).as_posix()):
                return f"{'is' if real.exists() else 'would become'} a file of the source of {site.modality}"
    return None
