"""Where a key is in a directory, and certainly nowhere else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from chorus_upload.errors import StorageError
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.keys import LEFTOVER_PREFIX, check_key
from chorus_upload.storage.names import refused_by_windows

_IS_WINDOWS = os.name == "nt"


def path_below(root: Path, key: str) -> Path:
    """Where `key` is, certainly below `root`; StorageError when a directory cannot hold such a key.

    What leads there over a link is refused, too. Nothing is made.
    """
    parts = check_key(key).split("/")
    if any(part.startswith(LEFTOVER_PREFIX) for part in parts):
        raise StorageError(f"{key}: names that begin with {LEFTOVER_PREFIX} are used by the store itself")
    if _IS_WINDOWS:
        for part in parts:
            if reason := refused_by_windows(part):
                raise StorageError(f"{key}: Windows does not take this name: {reason}")
    path = root
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise StorageError(f"{key}: {path} is a link; links to directories are not part of a store")
    return path / parts[-1]


def make_below(root: Path, directory: Path) -> None:
    """Make `directory` and those above it, below `root`, as far as they are missing; `root` itself is not made."""
    missing, above = [], directory
    while above != root and not above.is_dir():
        missing.append(above)
        above = above.parent
    for each in reversed(missing):
        # The parent may be gone again, which the caller finds out soon enough.
        with suppress(FileExistsError, FileNotFoundError):
            each.mkdir()
            sync_directory(each.parent)
