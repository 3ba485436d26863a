"""What a service holds as a source: the objects below a prefix are its files, and a slash makes directories."""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from chorus_upload.errors import NotAsStored, ObjectNotFound, PreconditionFailed, StoppedAtOnce, StorageError
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.ahead import AheadStream, ReadAhead
from chorus_upload.storage.keys import check_key
from chorus_upload.storage.source import READINGS, Directory, Entry, FileReplaced, FileStat, SmallFile
from chorus_upload.storage.store import ObjectStream, Origin, RangedStore, Store, StoredObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_AHEAD = 8
"""So many parts of files are fetched before they are asked for, of all files together."""
_HELD = 10_000
"""So many entries are held back to be told by directory: a listing goes through them in an order of its own."""


class CloudSource:
    """The objects of `store`, which is closed with this. See `Source`.

    What the service lists is what is known without reading: size, time of the last change, and an MD5 where it has
    one. A file that is being read is the object as it was when it was opened; large ones are fetched in parts of `part`
    bytes, some of them ahead.
    """

    def __init__(self, store: Store, *, part: int = 4 << 20) -> None:
        self._store = store
        self._ahead = ReadAhead(store, part=part, most=_AHEAD) if isinstance(store, RangedStore) else None

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def service(self) -> str | None:
        return self._store.service

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def is_sequential(self) -> bool:
        return False

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`: one listing, in pages. The empty objects that stand for directories are left out."""
        held: dict[str, Directory] = {"": Directory("", [], [], {})}
        number = 0
        for found in self._store.scan():
            if found.key.endswith("/") and not found.size:
                continue
            path, name = posixpath.split(found.key)
            try:
                check_key(found.key)
            except StorageError as error:
                # Its directory may have no proper name itself.
                held[""].problems.append(Problem(ProblemKind.INVALID_NAME, found.key, error.message))
                continue
            directory = held.setdefault(path, Directory(path, [], [], {}))
            directory.entries.append(Entry(name, found.size, found.time_us))
            if found.checksum is not None:
                cast(dict[str, bytes], directory.claims)[name] = found.checksum.md5
            number += 1
            if number % _HELD == 0:
                yield from held.values()
                held = {"": Directory("", [], [], {})}
        yield from held.values()

    def stat(self, path: str) -> FileStat | None:
        with as_file(path):
            found = self._store.stat(path)
        return None if found is None else _state(found)

    def read_small(self, path: str, *, size: int) -> SmallFile:
        for _ in range(READINGS):
            with self._opened(path) as stream, as_file(path):
                data, stored = stream.read(size + 1), stream.stored
            found, said = _md5(data), stored.md5
            if said is None or said == found or len(data) != stored.size:
                return SmallFile(data, _state(stored))
        raise NotAsStored.of(path, found=found, said=said)

    def origin(self, path: str) -> Origin | None:
        with as_file(path):
            return self._store.origin(path)

    def open(self, path: str) -> BinaryIO:
        stream = self._opened(path)
        ahead = self._ahead
        if ahead is None or stream.stored.size <= 2 * ahead.part:
            return as_stream(stream, path)
        with stream, as_file(path):
            first = stream.read(ahead.part)
        return cast(BinaryIO, _File(AheadStream(ahead, stream.stored, first), path))

    def open_stat(self, stream: BinaryIO) -> FileStat:
        return _state(cast(_File, stream).stored)

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        return cast(_File, stream).stored.md5

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._ahead is not None:
            self._ahead.close(wait=not isinstance(exc[1], StoppedAtOnce))
        self._store.__exit__(*exc)

    def _opened(self, path: str) -> ObjectStream:
        with as_file(path):
            return self._store.open(path)


class _File(io.RawIOBase):
    """An object that is being read, whose trouble is that of a file."""

    def __init__(self, stream: ObjectStream | AheadStream, path: str) -> None:
        super().__init__()
        self._stream = stream
        self._path = path

    @property
    def stored(self) -> StoredObject:
        return self._stream.stored

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with as_file(self._path):
            return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def as_stream(stream: ObjectStream, path: str) -> BinaryIO:
    """The stream of an object as that of a file."""
    return cast(BinaryIO, _File(stream, path))


def _state(stored: StoredObject) -> FileStat:
    return FileStat(stored.size, stored.time_us)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


@contextmanager
def as_file(path: str) -> Iterator[None]:
    """What is the matter with one object, as it would be with a file; what concerns all of them passes."""
    try:
        yield
    except ObjectNotFound:
        raise FileNotFoundError(path) from None
    except PreconditionFailed:
        raise FileReplaced(f"{path} was replaced while it was read") from None
