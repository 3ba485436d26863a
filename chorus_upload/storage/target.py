"""A directory into which files are brought back: each appears whole or not at all, and never outside of it."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat as modes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from chorus_upload.errors import ConfigError, StorageError
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.guard import try_lock
from chorus_upload.storage.keys import LEFTOVER_PREFIX
from chorus_upload.storage.local_errors import translated
from chorus_upload.storage.local_paths import make_below, path_below
from chorus_upload.storage.parts import new_part, remove_dead_parts
from chorus_upload.storage.publish import name_new
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.tries import local_tries, never_held

PARTS = f"{LEFTOVER_PREFIX}parts"
"""The directory, below the target, of files that are not complete."""

_BLOCK = 1 << 20
_FORGOTTEN_SECONDS = 7 * 86_400.0
_OPEN = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NOFOLLOW"))


class Unfinished:
    """A file on its way: what an earlier run left of it can be read, and what follows is written at its end."""

    def __init__(self, path: Path, file: io.FileIO, *, at: Path, name: str) -> None:
        self._path = path
        self._at = at
        self._name = name
        self.file = file
        self.is_published = False

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return os.fstat(self.file.fileno()).st_size

    def write(self, block: bytes) -> None:
        """Write at the end of what was read or written so far. StorageError when the disk does not take it."""
        with translated(f"writing {self._at}"):
            view = memoryview(block)
            while view:
                view = view[self.file.write(view) :]

    def begin_again(self) -> None:
        """Forget what is there."""
        with translated(f"writing {self._at}"):
            self.file.seek(0)
            self.file.truncate()

    def publish(self, *, mtime_us: int, replace: bool) -> None:
        """Give the file its name and time. Raises ObjectExists when the name is taken and `replace` is not said."""
        with translated(f"writing {self._at}"):
            # Its size and time will pass for it: they must not outlive the content in a power cut.
            os.fsync(self.file.fileno())
            if os.name == "nt":
                self.file.close()  # it renames no open file; elsewhere that keeps it locked until it has its name
            try:
                self._give_name(self._path, mtime_us=mtime_us, replace=replace)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # Below the target another disk is mounted.
                with self._copy_beside() as copy:
                    self._give_name(copy, mtime_us=mtime_us, replace=replace)
        self.is_published = True

    def _give_name(self, path: Path, *, mtime_us: int, replace: bool) -> None:
        os.utime(path, ns=(mtime_us * 1000, mtime_us * 1000))
        if replace:
            path.replace(self._at)
        else:
            name_new(path, self._at, self._name)

    @contextmanager
    def _copy_beside(self) -> Iterator[Path]:
        remove_dead_parts(self._at.parent, older_than=_FORGOTTEN_SECONDS)
        copy, raw = new_part(self._at.parent)
        try:
            with io.BufferedWriter(raw) as file, self._path.open("rb") as whole:
                shutil.copyfileobj(whole, file, _BLOCK)
                file.flush()
                os.fsync(file.fileno())
            yield copy
        finally:
            copy.unlink(missing_ok=True)


class Target:
    """The directory `root`, which is made when there is none. May be used by many threads, and processes, at once.

    Links to directories are not followed: whoever put one there does not get to say where files go.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root} is not a directory")
        if (self._root / PARTS).is_symlink():
            raise ConfigError(f"{root / PARTS} is a link, which leads elsewhere")
        self._written: set[Path] = set()
        with translated(f"making {root}"):
            (self._root / PARTS).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return str(self._root)

    def find(self, path: str) -> FileStat | None:
        """The file that is there. StorageError when it is none, or the path leads out or cannot be one here."""
        at = path_below(self._root, path)
        with translated(f"looking at {at}"):
            try:
                status = at.lstat()
            except FileNotFoundError:
                return None
        if not modes.S_ISREG(status.st_mode):
            raise StorageError(f"{at} is there, and is not a regular file")
        return FileStat(status.st_size, status.st_mtime_ns // 1000)

    def require_inside(self, path: str) -> None:
        """StorageError when the path leads out, or cannot be one here: links may have come since it was looked at."""
        path_below(self._root, path)

    def walk(self) -> Iterator[str]:
        """Yield the path of everything in it that is no directory; raises StorageError when not all can be seen.

        Links are not followed, and what is mounted below is not entered. What is unfinished is left out.
        """
        with translated(f"listing {self}"):
            device = self._root.stat().st_dev
        pending = [""]
        while pending:
            path = pending.pop()
            with translated(f"listing {self._root / path}"), os.scandir(self._root / path) as listing:
                for entry in sorted(listing, key=lambda each: each.name):
                    below = f"{path}/{entry.name}" if path else entry.name
                    if not entry.is_dir(follow_symlinks=False):
                        yield below
                    elif not entry.name.startswith(LEFTOVER_PREFIX) and _is_plain(entry, device):
                        pending.append(below)

    def is_same(self, path: str, other: str) -> bool:
        """Whether both are the name of one file that is there."""
        with suppress(OSError):
            return (self._root / path).samefile(self._root / other)
        return False

    def remove(self, path: str) -> None:
        """Remove a regular file, and the directories that it leaves empty.

        StorageError when it is none (a link is none), or when the path leads out.
        """
        if self.find(path) is None:
            return
        at = path_below(self._root, path)
        with translated(f"removing {at}"):
            at.unlink()
        with suppress(OSError):
            for above in at.parents:
                if above == self._root:
                    break
                above.rmdir()

    def open(self, path: str) -> BinaryIO:
        """Read the file that is there."""
        at = path_below(self._root, path)
        with translated(f"reading {at}"):
            return at.open("rb", buffering=0)

    def set_time(self, path: str, mtime_us: int) -> None:
        """Give the file that is there the time that it should have."""
        at = path_below(self._root, path)
        with translated(f"writing {at}"):
            os.utime(at, ns=(mtime_us * 1000, mtime_us * 1000))

    @contextmanager
    def unfinished(self, path: str, *, content: bytes, is_kept: bool) -> Iterator[Unfinished]:
        """What is there of the file that is to have `content` (a checksum), and the place for the rest.

        Unless it is published in the block it is removed after that; with `is_kept` it stays, for the next run.
        """
        at = path_below(self._root, path)
        with translated(f"writing {at}"):
            make_below(self._root, at.parent)
            place, file = self._part(path, content if is_kept else None)
        unfinished = Unfinished(place, file, at=at, name=path)
        try:
            with file:
                yield unfinished
        finally:
            if unfinished.is_published:
                self._written.add(at.parent)
            with suppress(FileNotFoundError):
                if unfinished.is_published or not is_kept or not place.stat().st_size:
                    place.unlink()

    def close(self, *, is_done: bool) -> None:
        """Remove the directory of unfinished files when it is empty; when all `is_done`, what was forgotten there, too.

        What another process may be working on is left to it, and so is what is kept for the next run.
        """
        with translated(f"writing {self}"):
            for directory in self._written:
                sync_directory(directory)
        parts = self._root / PARTS
        remove_dead_parts(parts, older_than=_FORGOTTEN_SECONDS)
        with suppress(OSError):
            for each in parts.iterdir() if is_done else ():
                if time.time() - each.stat().st_mtime > _FORGOTTEN_SECONDS:
                    each.unlink()
            parts.rmdir()

    def _part(self, path: str, content: bytes | None) -> tuple[Path, io.FileIO]:
        """A file of our own: the one that an earlier run left, unless another process works on it."""
        parts = self._root / PARTS
        for _ in local_tries():
            parts.mkdir(exist_ok=True)
            # Another process may have removed it again, just now.
            with suppress(FileNotFoundError):
                if content is not None and (kept := _kept(parts, path, content)):
                    return kept
                return new_part(parts)
        raise never_held(parts)


def _is_plain(entry: os.DirEntry[str], device: int) -> bool:
    """Whether a directory is one of this device, and no junction of Windows."""
    status = entry.stat(follow_symlinks=False)
    reparse = getattr(status, "st_file_attributes", 0) & modes.FILE_ATTRIBUTE_REPARSE_POINT
    # On Windows such a look gives no device.
    return not reparse and (os.name == "nt" or status.st_dev == device)


def _kept(parts: Path, path: str, content: bytes) -> tuple[Path, io.FileIO] | None:
    place = parts / f"{sha256(path.encode() + b'/' + content).hexdigest()[:32]}.part"
    for _ in local_tries():
        file = io.FileIO(os.open(place, _OPEN, 0o666), "r+b")
        if not try_lock(file.fileno()):
            file.close()
            return None
        # Whoever had it may have published it meanwhile, and with it the file that was locked here.
        with suppress(FileNotFoundError):
            if os.path.samestat(place.stat(), os.fstat(file.fileno())):
                return place, file
        file.close()
    raise never_held(place)
