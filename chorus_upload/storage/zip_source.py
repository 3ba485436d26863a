"""A zip archive as a source: its directory lists it, and each member is read where it is."""

from __future__ import annotations

import errno
import io
import os
import stat as modes
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from chorus_upload.errors import DeletionRefused, ObjectNotFound, StorageError
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage import members
from chorus_upload.storage.outer import OpenedFile, Outer, not_listed
from chorus_upload.storage.source import Directory, FileReplaced, FileStat, SmallFile
from chorus_upload.storage.store import Origin

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 1 << 20
_HELD_WHOLE = 64 << 20
"""An archive up to this size is held in memory where it can only be read from its beginning."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MARK = b"PK\x03\x04"
# So much more than in the directory may stand before a member; it decides only how much is fetched at once.
_ROOM_FOR_MORE = 1 << 10
_UNIX = 3
_ENCRYPTED = 1
# Unpacking another kind takes memory without a bound: the library gives all that a piece of input holds at once.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_TIMESTAMP, _NTFS = 0x5455, 0x000A
_NTFS_EPOCH_US = 11_644_473_600_000_000


class ZipSource:
    """The members of the zip archive `outer`, below its directory `inner`. See `Source`.

    The directory of the archive is held in memory. Members are those of the archive as it was when that was read:
    when the archive is replaced, reading raises FileReplaced. Of a name that is there twice the last counts. A member
    whose checksum is wrong raises OSError with its last bytes.
    """

    def __init__(self, outer: Outer, inner: str) -> None:
        self._outer = outer
        self._inner = inner
        self._lock = threading.Lock()
        self._opened: OpenedFile | None = None
        self._whole: bytes | None = None
        self._members: dict[str, zipfile.ZipInfo] | None = None
        self._repeated: list[str] = []

    @property
    def url(self) -> str:
        return f"zip://{self._inner}::{self._outer.url}"

    @property
    def service(self) -> str | None:
        return None

    @property
    def is_remote(self) -> bool:
        return self._outer.is_remote

    @property
    def is_sequential(self) -> bool:
        return False

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`. Raises StorageError when the archive is damaged or not complete."""
        try:
            found = self._index()
        except FileReplaced:
            raise StorageError(f"{self.url} was replaced while it was listed", hint="Repeat the command.") from None
        except FileNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise not_listed(self.url, self._opened, error) from None
        collector = members.Collector()
        for path in self._repeated:
            detail = "the archive has several of this name; the last is taken"
            yield from collector.problem(Problem(ProblemKind.INVALID_NAME, members.shown(path), detail))
        for path, info in found.items():
            if problem := members.refused(path) or _refused(info, path):
                yield from collector.problem(problem)
            else:
                # Members are held against it when they are read.
                yield from collector.file(path, info.file_size, _mtime_of(info), claim=info.CRC.to_bytes(4, "big"))
        yield from collector.rest()
        if collector.is_empty and self._inner:
            raise DeletionRefused(
                f"the source {self.url} cannot be listed: nothing in the archive is below {self._inner}",
                hint="Is the path inside the archive right? Nothing was recorded.",
            )

    def stat(self, path: str) -> FileStat | None:
        """See `Source.stat`. FileReplaced when the archive is another one by now."""
        info = self._index().get(path)
        self._open_outer().require_same()
        return None if info is None or members.refused(path) or _refused(info, path) else _state_of(info)

    def read_small(self, path: str, *, size: int) -> SmallFile:
        with self.open(path) as stream:
            data = bytearray()
            while len(data) <= size and (piece := stream.read(size + 1 - len(data))):
                data += piece
            return SmallFile(bytes(data), self.open_stat(stream))

    def origin(self, path: str) -> Origin | None:
        """No service copies it."""
        return None

    def open(self, path: str) -> BinaryIO:
        info = self._index().get(path)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if problem := members.refused(path) or _refused(info, path):
            raise OSError(errno.EINVAL, problem.detail, path)
        header = _LOCAL_HEADER.size
        end = info.header_offset + header + len(info.filename.encode()) + _ROOM_FOR_MORE + info.compress_size
        stream = self._stream(start=info.header_offset, end=end)
        try:
            return cast(BinaryIO, _File(stream, info, path))
        except BaseException:
            stream.close()
            raise

    def open_stat(self, stream: BinaryIO) -> FileStat:
        return cast(_File, stream).state

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """Nobody says it."""
        return None

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._outer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _index(self) -> dict[str, zipfile.ZipInfo]:
        """All members below `inner` but directories, by their paths."""
        opened = self._open_outer()
        with self._lock:
            if self._members is None:
                self._require_ranges(opened)
                with self._stream_of(opened) as stream, _damage_told():
                    archive = zipfile.ZipFile(io.BufferedReader(cast(io.RawIOBase, stream), _PIECE))
                    self._members = self._sorted(archive.infolist())
            return self._members

    def _sorted(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            # The library cuts names off at a NUL, and what is cut off is another name.
            name = info.orig_filename if "\0" in info.orig_filename else info.filename
            path = members.path_of(name, self._inner)
            if path is None or info.is_dir():
                continue
            if path in found:
                self._repeated.append(path)
            found[path] = info
        return found

    def _require_ranges(self, opened: OpenedFile) -> None:
        """Hold the archive in memory when there is no going back in it, if it is small enough for that."""
        with opened.stream() as stream:
            if stream.seekable():
                return
            data = bytearray()
            while len(data) <= _HELD_WHOLE and (piece := stream.read(_PIECE)):
                data += piece
        if len(data) > _HELD_WHOLE:
            raise StorageError(
                f"{self._outer.url} can only be read from its beginning, and is too large to be held in memory: a zip"
                " archive is read from its end",
                hint="Its server does not know ranges of bytes. A tar archive can be read from there, or a local copy.",
            )
        self._whole = bytes(data)

    def _stream(self, *, start: int, end: int) -> BinaryIO:
        return self._stream_of(self._open_outer(), start=start, end=end)

    def _stream_of(self, opened: OpenedFile, *, start: int = 0, end: int | None = None) -> BinaryIO:
        if self._whole is None:
            return opened.stream(start=start, end=end)
        stream = io.BytesIO(self._whole)
        stream.seek(start)
        return stream

    def _open_outer(self) -> OpenedFile:
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._outer.open()
                except ObjectNotFound as error:
                    raise FileNotFoundError(errno.ENOENT, error.message, self._outer.url) from None
            return self._opened

    def _missing(self) -> StorageError | DeletionRefused:
        if self._outer.is_remote:
            return ObjectNotFound(f"there is no archive {self._outer.url}")
        return DeletionRefused(
            f"the source {self.url} cannot be listed: there is no such archive",
            hint="Is the path right, and the share mounted? Nothing was recorded.",
        )


class _File(io.RawIOBase):
    """A member that is being read, from `stream`, which stands at its beginning and is closed with this."""

    def __init__(self, stream: BinaryIO, info: zipfile.ZipInfo, path: str) -> None:
        super().__init__()
        self.state = _state_of(info)
        self._path = path
        header = bytearray()
        while len(header) < _LOCAL_HEADER.size and (piece := stream.read(_LOCAL_HEADER.size - len(header))):
            header += piece
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MARK):
            raise OSError(errno.EIO, "the archive is damaged: there is no member where its directory says", path)
        _, name_length, more_length = _LOCAL_HEADER.unpack(header)
        stream.seek(name_length + more_length, os.SEEK_CUR)
        # It is not closed with its member if making this fails: then it is still the caller's.
        self._content = zipfile.ZipExtFile(stream, "r", info, close_fileobj=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[:_PIECE]
        with _damage_told():
            data = self._content.read1(len(view)) if view else b""
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._content.close()
        super().close()


@contextmanager
def _damage_told() -> Iterator[None]:
    """What the library raises of an archive that is not whole, or that it cannot read, leaves as an OSError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, struct.error) as error:
        reason = str(error) or "it ends too early"
    else:
        return
    raise OSError(errno.EIO, f"the archive is damaged or not complete: {reason}")


def _refused(info: zipfile.ZipInfo, path: str) -> Problem | None:
    """Why a member cannot be read, or is no file."""
    mode = info.external_attr >> 16
    kind = modes.S_IFMT(mode) if info.create_system == _UNIX else 0
    if kind and not modes.S_ISREG(mode):
        detail = "a link" if modes.S_ISLNK(mode) else "neither a file nor a directory"
        return Problem(ProblemKind.NOT_A_FILE, path, detail)
    if info.flag_bits & _ENCRYPTED:
        return Problem(ProblemKind.UNREADABLE_FILE, path, "it is encrypted")
    if info.compress_type not in _METHODS:
        name = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))  # type: ignore[attr-defined]
        detail = f"it is compressed by {name}; only deflate can be read, or what is not compressed"
        return Problem(ProblemKind.UNREADABLE_FILE, path, detail)
    return None


def _state_of(info: zipfile.ZipInfo) -> FileStat:
    return FileStat(info.file_size, _mtime_of(info))


def _mtime_of(info: zipfile.ZipInfo) -> int:
    """Its time in microseconds: that of an extra field, which is UTC, or the one of DOS, taken for UTC."""
    fields = dict(_extra_of(info.extra))
    if len(stamp := fields.get(_TIMESTAMP, b"")) >= 5 and stamp[0] & 1:
        return int.from_bytes(stamp[1:5], "little", signed=True) * 1_000_000
    if len(ntfs := fields.get(_NTFS, b"")) >= 16 and ntfs[4:8] == b"\x01\x00\x18\x00":
        return int.from_bytes(ntfs[8:16], "little") // 10 - _NTFS_EPOCH_US
    try:
        return int(datetime(*info.date_time, tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        return 0


def _extra_of(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        name, length = struct.unpack_from("<HH", extra)
        yield name, extra[4 : 4 + length]
        extra = extra[4 + length :]
