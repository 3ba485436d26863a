"""Directories that a command may not write to: where the only copy of something is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from chorus_upload.config.own_files import own_files
from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.storage.mounts import mounts, shown_at


def require_apart(settings: Settings, target: Path, *, replaces: bool, names: Iterable[str] | None = None) -> None:
    """Raise ConfigError when `target` is, lies in, or holds a local store, source or directory of a journal.

    Directories are told apart by what they are, whatever leads there: links, mounts and other spellings count, where
    Linux says so also a mount of what is in such a directory, be it the target's or below it. A
    source that was lost may be brought back in its place, as long as nothing in it is replaced. Where it is known
    which `names` will be written, the target may hold such a directory, but none of them may be in there.
    """
    for directory, name in _stores(settings):
        if _is_within(target, directory):
            raise _refused(target, directory, name)
    for directory, name in _sources(settings):
        if not _is_within(target, directory):
            continue
        if not _is_within(directory, target):
            raise _refused(target, directory, name)
        if replaces:
            raise ConfigError(
                f"{target} is {name}: files would be replaced or removed that may be only there",
                hint="Leave --overwrite and --delete-extra out, which brings back only what is missing, or name another"
                " directory.",
            )
    if names is not None:
        _require_free(settings, target, names)
        return
    everywhere = (*_stores(settings), *_sources(settings), *_journals(settings), *_mounted(settings, target))
    for directory, name in everywhere:
        is_there = _is_within(target, directory) and name.startswith("the source")
        if _is_within(directory, target) and not is_there:
            raise _refused(target, directory, name)


def _require_free(settings: Settings, target: Path, names: Iterable[str]) -> None:
    """Raise ConfigError when one of these names below `target` is that of a file of ours, or leads into a store."""
    own = own_files(settings)
    stored = (*_stores(settings), *_sources(settings), *_mounted(settings, target))
    held = [directory for directory, _ in stored if not _is_within(target, directory)]
    root = os.path.realpath(target)
    taken = [
        os.path.relpath(path, root).casefold() + "/"
        for path in map(os.path.realpath, (*held, *own.secrets, *own.journals))
        if Path(path).is_relative_to(root)
    ]
    for name in names if taken else ():
        written = f"{name}/".casefold()
        if any(written.startswith(each) for each in taken):
            raise ConfigError(
                f"{target / name} is the program's own, or is in the central store or a source: it is not written over",
                hint="Name another directory.",
            )


def _stores(settings: Settings) -> Iterator[tuple[Path, str]]:
    if settings.central.location.is_local:
        yield settings.central.location.local_path, "the central store"


def _sources(settings: Settings) -> Iterator[tuple[Path, str]]:
    for site in settings.sites.values():
        if site.location.is_local:
            yield site.location.local_path, f"the source of {site.modality}"


def _journals(settings: Settings) -> Iterator[tuple[Path, str]]:
    yield settings.journal.local_path.parent, "the directory of the local journal"
    if settings.journal.cloud.is_local:
        yield settings.journal.cloud.local_path.parent, "the directory of the journal"


def _mounted(settings: Settings, target: Path) -> Iterator[tuple[Path, str]]:
    """The parts of stores and sources that are mounted below `target`, but for those that it is itself in."""
    root = Path(os.path.realpath(target))
    for point in (each.point for each in mounts() if each.point.is_relative_to(root)):
        for directory, name in (*_stores(settings), *_sources(settings)):
            if _is_within(point, directory) and not _is_within(target, directory):
                yield point, f"a part of {name}"


def _refused(target: Path, directory: Path, name: str) -> ConfigError:
    how = "is" if _is_same(target, directory) else "holds" if _is_within(directory, target) else "is in"
    return ConfigError(
        f"{target} {how} {name}{'' if how == 'is' else f' ({directory})'}: what is there must not be written over",
        hint="Name a directory of its own.",
    )


def _is_same(one: Path, other: Path) -> bool:
    return _is_within(one, other) and _is_within(other, one)


def _is_within(inner: Path, outer: Path) -> bool:
    """Whether one directory is the other or lies in it, as far as they are there, and by their names beyond that."""
    inner, outer = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    above = [inner, *inner.parents]
    if outer in above:
        return True
    try:
        wanted = outer.stat()
    except OSError:
        return False
    for each in above:
        try:
            found = each.stat()
        except OSError:
            continue
        if os.path.samestat(found, wanted):
            return True
    there = mounts()
    shown, wanted_there = shown_at(inner, there), shown_at(outer, there)
    return bool(shown and wanted_there and shown[0] == wanted_there[0] and shown[1].is_relative_to(wanted_there[1]))
