"""How a finished file gets the name of its key: in one step, under the right conditions, and for good."""

from __future__ import annotations

import errno
import io
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from chorus_upload.errors import ObjectExists, PreconditionFailed, StorageError
from chorus_upload.storage.guard import LocksUnsupported, guarded

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


def create(unfinished: Path, file: io.FileIO, path: Path, key: str) -> os.stat_result:
    """Give `unfinished`, open as `file`, the name `path` unless it is taken (then ObjectExists), and a time of its own.

    Content and time are on the disk before the name is.
    """
    if os.name == "nt":
        _close_for_windows(file)
    status = _stamp(unfinished, None)
    if not file.closed:
        settle(file)
    name_new(unfinished, path, key)
    return status


def name_new(unfinished: Path, path: Path, key: str) -> None:
    """Give `unfinished` the name `path`, beside the one that it has, unless that is taken (then ObjectExists)."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        # Over NFS the answer to a link can get lost, and the repeated request then meets its own result.
        if unfinished.stat().st_nlink != 2:
            raise ObjectExists(f"{key} exists") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _create_without_links(unfinished, path, key)


def _create_without_links(unfinished: Path, path: Path, key: str) -> None:
    """FAT, and some network shares, have no links; there, looking and renaming under the guard are one step.

    Reserving the name itself (O_EXCL) would show everybody an empty object until the body takes its place,
    and would leave it there for good if this process died in between.
    """
    with guarded(path.parent):
        if os.path.lexists(path):
            raise ObjectExists(f"{key} exists")
        unfinished.rename(path)


def replace(unfinished: Path, file: io.FileIO, path: Path, *, if_match: str | None, key: str) -> os.stat_result:
    """Put `unfinished`, open as `file`, in the place of `path`, if that is what `if_match` says.

    PreconditionFailed if it is not. Content and time are on the disk before the name is.
    """
    settle(file)
    if os.name == "nt":
        _close_for_windows(file)
    with exclusive(path.parent, needed=if_match is not None):
        before = status_of(path)
        if if_match is not None:
            compare(before, if_match, key)
        status = _stamp(unfinished, before)
        if not file.closed:
            os.fsync(file.fileno())
        unfinished.replace(path)
    return status


def _close_for_windows(file: io.FileIO) -> None:
    """It renames no open file, and closing one that was written to may change its time."""
    os.fsync(file.fileno())
    file.close()


@contextmanager
def exclusive(directory: Path, *, needed: bool) -> Iterator[None]:
    """The guard of `directory`; without locks in this file system none, unless it is `needed`.

    What is not guarded then needs no guard: without locks no conditional write is ever accepted.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(guarded(directory))
        except LocksUnsupported:
            if needed:
                raise
        yield


def compare(status: os.stat_result | None, if_match: str, key: str) -> None:
    if status is None:
        raise PreconditionFailed(f"{key} is gone")
    if etag_of(status) != if_match:
        raise PreconditionFailed(f"{key} is not the object that was expected: it has been replaced since")


def status_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamp(unfinished: Path, before: os.stat_result | None) -> os.stat_result:
    """Give the file a time that no other content of its key has had, and later than `before`.

    The last digits are drawn, because some clocks give the same nanosecond twice; the steps grow until the
    file system, which may know only even seconds, keeps a later time.
    """
    now = time.time_ns() // 1_000_000 * 1_000_000 + secrets.randbelow(1_000_000)
    if before is not None:
        now = max(now, before.st_mtime_ns + 1_000)
    for step in (0, 1_000_000, 1_000_000_000, 2_000_000_000):
        os.utime(unfinished, ns=(now + step, now + step))
        status = unfinished.stat()
        if before is None or status.st_mtime_ns > before.st_mtime_ns:
            return status
    raise StorageError(f"{unfinished.parent} does not keep the times of its files: it cannot be used as a store")


def settle(file: io.FileIO) -> None:
    """Put the content on the disk and out of memory, so that whoever reads it back reads the disk."""
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def etag_of(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
