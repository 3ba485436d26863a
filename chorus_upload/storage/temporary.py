"""Directories for copies of journals that are only looked at; what a killed command leaves is removed by the next."""

from __future__ import annotations

import os
import shutil
import stat as modes
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chorus_upload.storage.guard import is_still, try_lock
from chorus_upload.storage.tries import local_tries, never_held

_PREFIX = "chorus-upload-"
_OLD_SECONDS = 86_400.0


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that only its owner can look into, and that is gone after the block.

    What killed commands of the same user have left of theirs is removed first: a journal names patients. A directory
    is locked while it is used, so that what nobody has locked is known to be dead; where that is not possible, it has
    to be old.
    """
    _remove_dead()
    for _ in local_tries():
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
            if os.name == "nt":
                yield Path(name)
                return
            try:
                descriptor = os.open(name, os.O_RDONLY)
            except FileNotFoundError:
                # Somebody has taken it for dead.
                continue
            try:
                try_lock(descriptor)
                # Before it was locked somebody may have taken it for dead.
                if is_still(Path(name), descriptor):
                    yield Path(name)
                    return
            finally:
                os.close(descriptor)
    raise never_held(Path(tempfile.gettempdir()))


def _remove_dead() -> None:
    with suppress(OSError):
        for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove_if_dead(directory)


def _remove_if_dead(directory: Path) -> None:
    status = directory.lstat()
    if not modes.S_ISDIR(status.st_mode) or (os.name != "nt" and status.st_uid != os.getuid()):
        return
    if time.time() - status.st_mtime > _OLD_SECONDS:
        shutil.rmtree(directory)
    elif os.name != "nt":
        descriptor = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if try_lock(descriptor):
                shutil.rmtree(directory)
        finally:
            os.close(descriptor)
