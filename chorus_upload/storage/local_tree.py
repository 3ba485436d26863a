"""The files below a directory, reached without following any link that is not to be followed.

A directory may be swapped for a link between two looks at it. Where the system can, files are opened by the descriptor
of their directory, to which no link has led, and not by a path that would have to be checked before.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

OPEN_FILE = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOCTTY", 0)
    # A file that was swapped for a pipe must not hang the run: opening one waits for a writer.
    | getattr(os, "O_NONBLOCK", 0)
)
# A directory that was swapped for a link since it was listed is not entered.
OPEN_DIRECTORY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_DIRECTORY", 0)
LEADS_OUTSIDE = "a link to a file outside of the source, which is not sent: follow_links = true sends it"

_BELOW_DESCRIPTOR = {os.open, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_THROUGH_LINK = "leads through a link to a directory, which is not followed"
_IS_A_LINK = (errno.ELOOP, errno.EMLINK)
"""What systems say to O_NOFOLLOW."""
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

T = TypeVar("T")


class _ThroughLink(OSError):
    """A directory of the source is a link, or has become one."""


class _OpenDirectory:
    """The directory `path`, opened without following any link below the root. Closed when nobody has it any more."""

    descriptor: int | None = None

    def __init__(self, root: str, path: str) -> None:
        self.path = path
        descriptor = os.open(root, OPEN_DIRECTORY)
        for part in path.split("/") if path else ():
            above = descriptor
            try:
                descriptor = os.open(part, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            except OSError:
                if modes.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
                    raise _ThroughLink(errno.ELOOP, _THROUGH_LINK, path) from None
                raise
            finally:
                os.close(above)
        self.descriptor = descriptor

    def __del__(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


class LocalTree:
    """The tree below `root`, an absolute path. Paths of files are POSIX and relative to it.

    Every method raises OSError for a path that would lead out of the tree, which a damaged journal could ask for, and
    without `follow_links` also where a link has come to stand in its way. A link to a file of the tree is that file.
    """

    def __init__(self, root: str, *, follow_links: bool) -> None:
        self.root = root
        self._follow_links = follow_links
        # Files come directory by directory: each thread keeps the last one.
        self._last = threading.local()

    def join(self, path: str) -> str:
        """Where `path` is, as the system writes it; nothing is checked."""
        if not path:
            return self.root
        return f"{self.root}{os.sep}{path if os.sep == '/' else path.replace('/', os.sep)}"

    def open(self, path: str) -> int:
        """A descriptor of what is at `path`."""
        if self._follow_links or not _BELOW_DESCRIPTOR:
            return os.open(self._full(path), OPEN_FILE)
        return self._at(path, lambda name, above: os.open(name, OPEN_FILE | os.O_NOFOLLOW, dir_fd=above))

    def stat(self, path: str) -> os.stat_result:
        """The state of what is at `path`."""
        if self._follow_links or not _BELOW_DESCRIPTOR:
            return Path(self._full(path)).stat()

        def look(name: str, above: int) -> os.stat_result:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            if modes.S_ISLNK(status.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            return status

        return self._at(path, look)

    def inside(self, path: str) -> str | None:
        """The path without links of what is behind a link; None when that is not in the tree."""
        root, target = os.path.realpath(self.root), os.path.realpath(self.join(path))
        if not target.startswith(root.rstrip(os.sep) + os.sep):
            return None
        return os.path.relpath(target, root).replace(os.sep, "/")

    def let_go(self) -> None:
        """Close the directory that this thread used last; other threads do at their end."""
        self._last = threading.local()

    def _at(self, path: str, do: Callable[[str, int], T]) -> T:
        """Do something with a file, by its name and the descriptor of its directory."""
        try:
            return self._below(path, do)
        except _ThroughLink:
            raise
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
        target = self.inside(path)
        if target is None:
            raise OSError(errno.ELOOP, LEADS_OUTSIDE, path)
        if target == path:
            raise OSError(errno.ELOOP, "a link to itself", path)
        return self._below(target, do)

    def _below(self, path: str, do: Callable[[str, int], T]) -> T:
        directory, _, name = path.rpartition("/")
        _require_inside(directory, name, path)
        last: _OpenDirectory | None = getattr(self._last, "directory", None)
        if last is not None and last.path == directory and last.descriptor is not None:
            try:
                return do(name, last.descriptor)
            except OSError as error:
                # Another directory may be in its place by now.
                if error.errno not in _MISSING:
                    raise
        self._last.directory = last = None
        last = _OpenDirectory(self.root, directory)
        self._last.directory = last
        return do(name, last.descriptor or 0)

    def _full(self, path: str) -> str:
        """Where `path` is, after making sure that its directory is one of the tree."""
        directory, slash, name = path.rpartition("/")
        _require_inside(directory, name, path)
        known, full = getattr(self._last, "checked", ("", ""))
        if slash + directory != known or not full:
            full = self._check_directory(directory)
            self._last.checked = (slash + directory, full)
        full = f"{full}{os.sep}{name}"
        if not self._follow_links and Path(full).is_symlink() and self.inside(path) is None:
            raise OSError(errno.ELOOP, LEADS_OUTSIDE, path)
        return full

    def _check_directory(self, directory: str) -> str:
        if not self._follow_links:
            full = self.root
            for part in directory.split("/") if directory else ():
                full = f"{full}{os.sep}{part}"
                if modes.S_ISLNK(os.lstat(full).st_mode):
                    raise OSError(errno.ELOOP, _THROUGH_LINK, directory)
        return self.join(directory)


def _require_inside(directory: str, name: str, path: str) -> None:
    """OSError unless a directory and a name in it can only be below the root."""
    if (
        name in ("", ".", "..")
        or (directory and not {"", ".", ".."}.isdisjoint(directory.split("/")))
        or "\0" in path
        or (os.sep != "/" and (os.sep in path or ":" in path))
    ):
        raise OSError(errno.EINVAL, "not a path inside the source", path)
