"""What the operating system says, in the words of this program: the one place that translates OSError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from chorus_upload.errors import AccessDenied, ChorusError, ObjectNotFound, OutOfResources, StorageError, StoreFull

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


def translate(error: OSError, *, doing: str) -> ChorusError:
    """`error`, which happened while `doing` (like "writing a/b.csv"), as an error of a store, or of this machine."""
    if exhausted := OutOfResources.of(error):
        return exhausted
    reason = f"{doing}: {error.strerror or error}"
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(reason)
    if error.errno in _DENIED:
        return AccessDenied(reason, hint="Ask whoever owns the directory for permission to write and read in it.")
    if error.errno in _FULL:
        return StoreFull(reason, hint="Make room on the disk, then repeat the command.")
    if isinstance(error, NotADirectoryError):
        return StorageError(reason, hint="A part of the path is a file; in a directory it cannot hold anything.")
    if error.errno in _NAME:
        return StorageError(reason, hint="The file system does not take this name.")
    return StorageError(reason)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Whatever OSError the body raises leaves as an error of ours that says what was being done."""
    try:
        yield
    except OSError as error:
        raise translate(error, doing=doing) from error
