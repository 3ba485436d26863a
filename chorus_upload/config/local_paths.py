"""Paths on this machine, as people write them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_LONGEST_NAME = 255
_LONGEST_PATH = 4_095
_BESIDE = len(".20260301120000-999-journal")
"""What is put behind the name of a local journal for the files that belong to it."""


def expanded(text: str) -> Path:
    """A local path, `~` expanded. `~somebody`, whom this machine does not know, stays, and so is not found."""
    # The method of Path raises for somebody who is not known.
    return Path(os.path.expanduser(text))  # noqa: PTH111


def read_regular(path: Path, *, most: int = -1) -> bytes:
    """Return the content of a regular file, of a longer one `most` bytes.

    OSError for anything else: a pipe would be waited for without end.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(most)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_length(path: Path, *, is_journal: bool = False) -> None:
    """Raise ValueError when no file system takes such a path: then each question about it would be an error."""
    longest = _LONGEST_NAME - (_BESIDE if is_journal else 0)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"is longer than the {_LONGEST_PATH:,} bytes that a path can have")
    if any(len(os.fsencode(part)) > longest for part in path.parts):
        raise ValueError(f"has a name of more than the {longest} bytes that it can have here")
