"""One process of this tool at a time may compare and replace inside a directory."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chorus_upload.errors import StorageError
from chorus_upload.storage.keys import LEFTOVER_PREFIX
from chorus_upload.storage.tries import local_tries, never_held

GUARD_NAME = f"{LEFTOVER_PREFIX}guard"

# Some network file systems give a whole process one lock, so the threads of this one queue up here first.
_threads = threading.Lock()


class LocksUnsupported(StorageError):
    """The file system cannot lock files at all."""


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Hold the guard of `directory` while the body runs; waits for others as long as they need.

    The guard is a lock of the operating system on a hidden file, not the existence of that file: when its
    holder dies, the lock is gone with it. Raises LocksUnsupported where the file system has no locks, and
    FileNotFoundError when there is no such directory.
    """
    path = directory / GUARD_NAME
    with _threads:
        descriptor = _take(path)
        try:
            yield
        finally:
            _give_back(descriptor, path)


def remove_dead_guard(directory: Path) -> None:
    """Remove the guard that a killed process has left in `directory`. Waits for nobody."""
    path = directory / GUARD_NAME
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            if try_lock(descriptor) and is_still(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _take(path: Path) -> int:
    for _ in local_tries():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            lock(descriptor)
            # The previous holder removes the file before letting go, and then this lock is on a file that
            # nobody else will ever see: only the lock on the file that is there now counts.
            if is_still(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise never_held(path)


def is_still(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that is at `path` now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False when somebody else has it locked, or files cannot be."""
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def lock(descriptor: int) -> None:
        """Lock an open file until it is closed; waits as long as it takes. Raises LocksUnsupported."""
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError as error:  # LK_LOCK itself gives up after ten seconds
                if error.errno not in (errno.EDEADLK, errno.EACCES):
                    raise LocksUnsupported(f"files cannot be locked here: {error.strerror}") from error
                time.sleep(0.01)
            else:
                return

    def _give_back(descriptor: int, path: Path) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)
        # An open file cannot be removed on Windows: this succeeds only when nobody waits for the guard.
        with suppress(OSError):
            path.unlink()

else:
    import fcntl

    _NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False when somebody else has it locked, or files cannot be."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def lock(descriptor: int) -> None:
        """Lock an open file until it is closed; waits as long as it takes. Raises LocksUnsupported."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise LocksUnsupported(f"files cannot be locked here: {error.strerror}") from error
            raise

    def _give_back(descriptor: int, path: Path) -> None:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
