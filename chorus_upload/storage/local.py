"""A directory as a store: what a cloud promises, made from links, renames and locks.

An object is a regular file below the root; a link to a file counts as the file, links to directories are
not part of the store. Three things need care:

- *Atomic*: a body is written to a hidden file in the directory of its key, synced, and only then given its
  name. `create_only` names it with a hard link, which fails when the name is taken, in one step.
- *Compare and replace*: there is no such system call, so every replacement and deletion happens under a
  lock on the directory (`guard.py`) that all processes of this tool take. Strangers who write into the
  store by other means are noticed when they changed the file before, not while, it is compared.
- *Etags* are the modification time in nanoseconds and the size. Clocks tick coarsely and inodes are used
  again, so `put` sets the time itself: never the same, and later than that of the file it replaces.
"""

from __future__ import annotations

import io
import os
import stat as modes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from chorus_upload.errors import ObjectNotFound, PreconditionFailed, StorageError
from chorus_upload.model import Twin
from chorus_upload.storage.bodies import blocks_of
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.guard import remove_dead_guard
from chorus_upload.storage.keys import LEFTOVER_PREFIX, check_key, is_text
from chorus_upload.storage.local_errors import translated
from chorus_upload.storage.local_paths import make_below, path_below
from chorus_upload.storage.parts import new_part, remove_dead_parts
from chorus_upload.storage.publish import (
    compare,
    create,
    etag_of,
    exclusive,
    replace,
    status_of,
)
from chorus_upload.storage.store import Capabilities, ObjectStream, Origin, Properties, StoredObject
from chorus_upload.storage.tries import local_tries, never_held

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 20
_LEFTOVER_AGE = 24 * 3600.0


class LocalStore:
    """Objects as files below `root`, which has to exist: a share that is not mounted is not an empty store.

    Nor is what appears when it is unmounted: from the first look on it has to be the same directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._found: tuple[int, int] | None = None
        self._swept: set[Path] = set()
        self._sweeping = threading.Lock()

    @property
    def url(self) -> str:
        return str(self._root)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_create=True, service_checksum=False, transit_checksum=False, one_request_limit=0)

    @property
    def service(self) -> str | None:
        return None

    def probe(self) -> None:
        with translated(f"looking at {self.url}"):
            self._check_root()

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.scan`. A file whose name is not UTF-8 has no key and is no object."""
        start = check_key(prefix.rpartition("/")[0]) if "/" in prefix.lstrip("/") else ""
        pending = [start]
        while pending:
            directory = pending.pop()
            with translated(f"listing {directory or self.url}"):
                found = self._list(directory, pending)
            pending = [each for each in pending if f"{each}/".startswith(prefix)]
            yield from (each for each in found if each.key.startswith(prefix))

    def browse(self, directory: str = "") -> Iterator[StoredObject | str]:
        """See `Store.browse`; directories without objects are told, too."""
        below: list[str] = []
        start = check_key(directory) if directory else ""
        with translated(f"listing {directory or self.url}"):
            found = self._list(start, below)
        yield from found
        yield from (f"{each}/" for each in below)

    def stat(self, key: str) -> StoredObject | None:
        path = self._path(key)
        with translated(f"looking at {key}"):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                return None
        return _describe(key, status) if modes.S_ISREG(status.st_mode) else None

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        path = self._path(key)
        stored = self.stat(key)
        if stored is None:
            raise ObjectNotFound(f"there is no {key} in {self.url}")
        self._sweep(path.parent)
        with translated(f"opening {key}"):
            reader = _Reader(path, key)
            reader.seek(offset)
            return ObjectStream(reader, stored, buffer_size=_BLOCK)

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        """See `Store.put`; a directory has no place for properties."""
        path = self._path(key)
        with self._unfinished(path, key) as (unfinished, file):
            for block in blocks_of(body, size=size, block_size=_BLOCK):
                with translated(f"writing {key}"):
                    _write(file, block)
            with translated(f"writing {key}"):
                if path.is_dir():
                    raise StorageError(f"{key} is a directory in {self.url}")
                # It stays open, and so locked, until it has its name.
                if create_only:
                    status = create(unfinished, file, path, key)
                else:
                    status = replace(unfinished, file, path, if_match=if_match, key=key)
                sync_directory(path.parent)
        self._check_root()
        return _describe(key, status)

    def origin(self, key: str) -> Origin | None:
        """Nobody but us could copy a file."""
        return None

    def copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
    ) -> StoredObject | None:
        return None

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        path = self._path(key)
        with translated(f"deleting {key}"):
            try:
                with exclusive(path.parent, needed=if_match is not None):
                    if if_match is not None:
                        compare(status_of(path), if_match, key)
                    path.unlink()
                    # A lock that was given back must not be there again after a power cut.
                    sync_directory(path.parent)
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                if if_match is not None:
                    raise PreconditionFailed(f"{key} is gone") from None
                return
            self._remove_empty(path.parent)

    def close(self) -> None:
        """Nothing is held open between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _path(self, key: str) -> Path:
        """Where `key` is, certainly below the root; StorageError when this store cannot hold such a key."""
        return path_below(self._root, key)

    def _check_root(self) -> None:
        with translated(f"looking at {self.url}"):
            status = status_of(self._root)
        if status is None or not modes.S_ISDIR(status.st_mode):
            raise ObjectNotFound(
                f"there is no directory {self.url}", hint="Create it, or mount the share that it is on."
            )
        # What is below a mount point must not be taken for the share that was just unmounted from it.
        found = (status.st_dev, status.st_ino)
        self._found = self._found or found
        if self._found != found:
            raise ObjectNotFound(f"{self.url} is another directory than before", hint="Was its share unmounted?")

    def _list(self, directory: str, pending: list[str]) -> list[StoredObject]:
        """The objects of one directory; adds its subdirectories to `pending`."""
        found: list[StoredObject] = []
        try:
            with os.scandir(self._root / directory) as entries:
                for entry in entries:
                    key = f"{directory}/{entry.name}" if directory else entry.name
                    if entry.name.startswith(LEFTOVER_PREFIX) or not is_text(key):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(key)
                    elif entry.is_file():
                        with suppress(FileNotFoundError):  # deleted since: not an object any more
                            found.append(_describe(key, entry.stat()))
        except (FileNotFoundError, NotADirectoryError):
            # Also gone, or never there (a prefix that nothing begins with); unless everything is.
            self._check_root()
        return found

    @contextmanager
    def _unfinished(self, path: Path, key: str) -> Iterator[tuple[Path, io.FileIO]]:
        """A new hidden file beside `path`, open for writing, and removed when it was not given its name."""
        self._check_root()
        try:
            with translated(f"writing {key}"):
                unfinished, file = self._new_file(path.parent)
            try:
                with file:
                    yield unfinished, file
            finally:
                with suppress(FileNotFoundError):
                    unfinished.unlink()
        finally:
            if not os.path.lexists(path):
                self._remove_empty(path.parent)

    def _new_file(self, directory: Path) -> tuple[Path, io.FileIO]:
        for _ in local_tries():
            make_below(self._root, directory)
            self._sweep(directory)
            try:
                return new_part(directory)
            except FileNotFoundError:
                # Somebody deleted the last object of this directory, and the directory with it, just now.
                self._check_root()
        raise never_held(directory)

    def _sweep(self, directory: Path) -> None:
        """Remove what killed processes left in `directory`, once for each that is written to or read back from."""
        with self._sweeping:
            if directory in self._swept:
                return
            self._swept.add(directory)
        remove_dead_parts(directory, older_than=_LEFTOVER_AGE)
        remove_dead_guard(directory)

    def _remove_empty(self, directory: Path) -> None:
        """Remove `directory` and those above it, below the root, as far as they are empty."""
        with suppress(OSError):
            while directory != self._root:
                directory.rmdir()
                directory = directory.parent


class _Reader(io.FileIO):
    """A file whose errors are those of a store."""

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, "rb")
        self._key = key

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with translated(f"reading {self._key}"):
            return super().readinto(buffer) or 0

    def readall(self) -> bytes:
        with translated(f"reading {self._key}"):
            return super().readall() or b""


def _write(file: io.FileIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _describe(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key=key, size=status.st_size, etag=etag_of(status), time_us=status.st_mtime_ns // 1000)
