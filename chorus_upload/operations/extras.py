"""Files in the target of a download that the version does not have: named, and removed where that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from chorus_upload.config.own_files import own_files
from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import StorageError
from chorus_upload.events import Emit, ExtraFile, ExtraFiles, Level, Notice
from chorus_upload.journal.state import State
from chorus_upload.storage.target import Target

NAMED = 10
"""So many are named in the result."""

Agree = Callable[[ExtraFiles], bool]
"""Asked before anything is removed."""


def find_extras(state: State, target: Target, *, emit: Emit) -> list[str] | None:
    """The paths of what is in the target and not in the state; None when not all of the target could be looked at."""
    try:
        return [path for path in state.without(target.walk()) if not _is_of(state, target, path)]
    except StorageError as error:
        emit(Notice(f"what else is in {target} is not known: {error.message}", Level.WARNING))
        return None


def settle_extras(
    extras: list[str] | None, target: Target, settings: Settings, *, why_kept: str, agree: Agree, emit: Emit
) -> ExtraFiles | None:
    """Remove them, unless there is a reason `why_kept` not to, and tell of each; links and what is ours stay."""
    if extras is None:
        return None
    found = ExtraFiles(len(extras), tuple(extras[:NAMED]), why_kept=why_kept)
    if not extras or why_kept or not agree(found):
        return found
    is_protected = _Protection(settings)
    removed: list[str] = []
    for path in extras:
        detail = ""
        if is_protected(Path(str(target), path)):
            detail = "it is the program's own, or in the central store or a source"
        else:
            try:
                target.remove(path)
                removed.append(path)
            except StorageError as error:
                detail = error.message
        emit(ExtraFile(path, removed=not detail, detail=detail))
    first = tuple(removed[:NAMED]) or found.first
    return replace(found, first=first, removed=len(removed), kept=found.files - len(removed))


def _is_of(state: State, target: Target, path: str) -> bool:
    """Whether it is a file of the state under another spelling: some file systems know no case, or one Unicode form."""
    return any(target.is_same(path, other) for other in state.alike(path))


class _Protection:
    """What must never be removed, wherever the target is."""

    def __init__(self, settings: Settings) -> None:
        self._own = own_files(settings)
        self._directories = [Path(os.path.realpath(each)) for each in _directories(settings)]

    def __call__(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return self._own.covers(path) or any(real.is_relative_to(each) for each in self._directories)


def _directories(settings: Settings) -> Iterator[Path]:
    places: list[Location] = [settings.central.location, *(site.location for site in settings.sites.values())]
    yield from (place.local_path for place in places if place.is_local)
