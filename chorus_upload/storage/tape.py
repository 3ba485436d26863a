"""A tar archive as what it is: a tape, compressed or not, that is read from its beginning to its end.

The standard library takes headers apart. Three things are done differently here: what ends without the mark of its
end is incomplete, and no end; what claims to be a header of enormous size is damage, and is not read into memory;
and members that were passed are forgotten.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from chorus_upload.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 1 << 20
_LONGEST_HEADER = 16 << 20
_MOST_PADDING = 64 << 20
"""After the end of an archive, to fill the last record of a medium."""
_LARGEST = (1 << 63) - 1
_LATEST_US = 1 << 62


class Damaged(OSError):
    """The archive is not what it should be, or ends too early."""


class Tape:
    """Reads the tar archive in `stream`, which is closed with this. Used by one thread at a time.

    Raises Damaged, and what reading the stream raises.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._raw = stream
        self._forward: _Forward | None = None
        self._archive: tarfile.TarFile | None = None
        self.is_compressed = False

    def next(self) -> tarfile.TarInfo | None:
        """The next member; None after the last, when the archive is known to be whole."""
        with damage_told():
            if self._archive is None:
                self._archive = self._begin()
            member = self._archive.next()
            # It would keep them all.
            self._archive.members = []  # type: ignore[attr-defined]
            if member is not None:
                if not 0 <= member.size <= _LARGEST:
                    raise Damaged("the size of a member makes no sense")
                return member
            if self._forward is not None:
                # What is compressed has a checksum behind it.
                self._forward.exhaust()
            return None

    def content(self, member: tarfile.TarInfo) -> BinaryIO:
        """The bytes of the member that `next` gave last; each read raises as `next` does."""
        assert self._archive is not None  # noqa: S101 - it has given the member
        return cast(BinaryIO, _Content(self._archive, member))

    def close(self) -> None:
        if self._forward is not None:
            self._forward.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin(self) -> tarfile.TarFile:
        raw: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, self._raw), _PIECE)
        beginning = raw.peek(6)
        stream: BinaryIO = raw
        for mark, unpack in _COMPRESSIONS.items():
            if beginning.startswith(mark):
                stream = unpack(raw)
                self.is_compressed = True
        self._forward = _Forward(stream)
        return tarfile.TarFile(
            fileobj=cast(BinaryIO, self._forward), tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
        )


def mtime_of(member: tarfile.TarInfo) -> int:
    """Its time in microseconds; 0 for one that makes no sense."""
    if not math.isfinite(member.mtime):
        return 0
    moment = math.floor(member.mtime * 1_000_000)
    return moment if abs(moment) < _LATEST_US else 0


@contextmanager
def damage_told() -> Iterator[None]:
    """What libraries raise of an archive that is not whole leaves as Damaged."""
    try:
        yield
    except Damaged:
        raise
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
    except Exception as error:
        # That of zstd is of a library that need not be there.
        if type(error).__name__ != "ZstdError":
            raise
        reason = str(error)
    else:
        return
    raise Damaged(f"the archive is damaged or not complete ({reason})")


_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
    RecursionError,
)


class _Header(tarfile.TarInfo):
    """Of what is no header only the mark of the end ends an archive; the library takes any for its end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in the stubs
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _Forward:
    """What `tarfile` reads from: goes forward only, by seeking where the stream can."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._can_seek = isinstance(stream, io.BufferedReader) and stream.seekable()
        self._at = 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise Damaged(f"the archive has a header of {size:,} bytes")
        pieces = bytearray()
        while len(pieces) < size and (piece := self._stream.read(size - len(pieces))):
            pieces += piece
        self._at += len(pieces)
        return bytes(pieces)

    def seek(self, position: int) -> None:
        if position < self._at:
            raise Damaged("the archive leads back to what was read already")
        if self._can_seek:
            self._stream.seek(position)
            self._at = position
            return
        while self._at < position and self.read(min(position - self._at, _PIECE)):
            pass

    def exhaust(self) -> None:
        """Read to the very end, but of a stream that is not unpacked and has no checksum.

        Damaged when there is more than any program leaves there: what a server never ends has no end.
        """
        if isinstance(self._stream, io.BufferedReader):
            return
        end = self._at + _MOST_PADDING
        while self.read(_PIECE):
            if self._at > end:
                raise Damaged("the archive goes on after its end")

    def close(self) -> None:
        self._stream.close()


class _Content(io.RawIOBase):
    """The bytes of one member, never more than its header declares."""

    def __init__(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        super().__init__()
        self._left = member.size
        self._stream = archive.extractfile(member)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[: min(self._left, _PIECE)]
        if not view or self._stream is None:
            return 0
        with damage_told():
            data = self._stream.read(len(view))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _zstd(stream: io.BufferedReader) -> BinaryIO:
    try:
        try:
            from compression import zstd  # type: ignore[import-not-found, unused-ignore]
        except ModuleNotFoundError:
            from backports import zstd
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return cast(BinaryIO, zstd.ZstdFile(stream))
    raise ConfigError(
        f"archives compressed with Zstandard need a library that is not installed ({missing})",
        hint='Install it: pip install "chorus-upload[zst]"',
    )


def _gzip(stream: io.BufferedReader) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream))


def _bz2(stream: io.BufferedReader) -> BinaryIO:
    return cast(BinaryIO, bz2.BZ2File(stream))


def _xz(stream: io.BufferedReader) -> BinaryIO:
    return cast(BinaryIO, lzma.LZMAFile(stream))


_COMPRESSIONS = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bz2,
    b"\xfd7zXZ\x00": _xz,
    b"\x28\xb5\x2f\xfd": _zstd,
}
