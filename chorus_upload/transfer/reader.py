"""Reads files of a source and hashes them, and notices when they change meanwhile.

XXH3-128 is the journal's fingerprint; MD5 is what the clouds speak. A file is trusted only when its size and
time are the same before and after the last byte was read.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import xxhash

from chorus_upload.errors import NotAsStored, OutOfResources
from chorus_upload.model import FailureKind, Problem, ProblemKind, Reading
from chorus_upload.storage.source import READINGS, FileReplaced, FileStat, Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
SCREENED_BYTES = 1 << 20
"""Larger files are not looked through for secrets."""
HELD_SECRET = "it holds a secret of the configuration, or is a copy of it"  # noqa: S105 - a sentence
WITHOUT_SECRETS = "it is not sent; move it out of the source"
_WRITTEN_TO = "it was being written to; it is read again next time"


class SourceChanged(Exception):
    """A file is not, or did not stay, what it was expected to be. Never leaves `transfer`."""

    kind = FailureKind.CHANGED
    advice = "run `journal update`"


class Stopped(Exception):
    """The run is to end; what was being read or sent is given up. Never leaves the run."""


class CheckedStream(io.RawIOBase):
    """A file as the body of an upload: hashed as it is read, and vetoed at its end when it is not as expected.

    The last read raises SourceChanged unless `verify` (called with this stream, all bytes hashed) is
    content; so a store that publishes nothing before it has read everything never publishes a wrong file.
    `on_bytes` is told of every read.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        size: int,
        verify: Callable[[CheckedStream], None],
        on_bytes: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._stream = stream
        self._left = size
        self._verify = verify
        self._on_bytes = on_bytes
        self._fingerprint = xxhash.xxh3_128()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.kept = bytearray()
        """All of a file that is small enough to be looked through for secrets."""
        self._is_kept = size <= SCREENED_BYTES
        if not size:
            verify(self)

    @property
    def fingerprint(self) -> bytes:
        return self._fingerprint.digest()

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the expected size goes; the end of the file before that is a change."""
        if not self._left:
            return 0
        view = memoryview(buffer).cast("B")[: self._left]
        count = self._stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise SourceChanged("it is shorter than it was")
        self._fingerprint.update(view[:count])
        self._md5.update(view[:count])
        if self._is_kept:
            self.kept += view[:count]
        self._left -= count
        self._on_bytes(count)
        if not self._left:
            self._verify(self)
        return int(count)


def read_file(
    source: Source,
    path: str,
    *,
    expected: FileStat,
    with_md5: bool,
    stop: threading.Event | None = None,
    holds_secret: Callable[[bytes], bool] | None = None,
) -> Reading | Problem:
    """Read and hash one file, which a moment ago looked as `expected`.

    What is in the way of that is a Problem, not an exception. A file that looks different by now, and does
    so until all of it is read, is read as it is. Raises Stopped when `stop` is set meanwhile, OutOfResources, and what
    reading from a service raises: NotAsStored for what arrives with another MD5 than that says, again and again.
    """
    try:
        if expected.size <= BLOCK:
            data, state = source.read_small(path, size=expected.size)
            if state == expected and len(data) == expected.size:
                if holds_secret is not None and holds_secret(data):
                    return Problem(ProblemKind.HOLDS_SECRET, path, f"{HELD_SECRET}: {WITHOUT_SECRETS}")
                fingerprint = xxhash.xxh3_128_digest(data)
                return Reading(*expected, fingerprint, md5_of(data) if with_md5 else None)
        for _ in range(READINGS - 1):
            with suppress(NotAsStored):
                return _read_large(source, path, with_md5=with_md5, stop=stop, holds_secret=holds_secret)
        return _read_large(source, path, with_md5=with_md5, stop=stop, holds_secret=holds_secret)
    except FileReplaced:
        return Problem(ProblemKind.CHANGED_WHILE_READ, path, _WRITTEN_TO)
    except FileNotFoundError:
        return Problem(ProblemKind.VANISHED, path, "it was there during the scan")
    except OSError as error:
        if exhausted := OutOfResources.of(error):
            raise exhausted from error
        return Problem(ProblemKind.UNREADABLE_FILE, path, error.strerror or str(error))


def _read_large(
    source: Source,
    path: str,
    *,
    with_md5: bool,
    stop: threading.Event | None,
    holds_secret: Callable[[bytes], bool] | None,
) -> Reading | Problem:
    """Read once. Raises NotAsStored for another MD5 than is said of the file."""
    kept = bytearray()
    fingerprint = xxhash.xxh3_128()
    md5 = hashlib.md5(usedforsecurity=False)
    size = 0
    buffer = memoryview(bytearray(BLOCK))
    with source.open(path) as stream:
        before, said = source.open_stat(stream), source.open_md5(stream)
        # One byte more than there was tells that it has grown: what grows as fast as it is read would have no end.
        while size <= before.size and (count := stream.readinto(buffer[: before.size + 1 - size])):  # type: ignore[attr-defined]
            fingerprint.update(buffer[:count])
            if before.size <= SCREENED_BYTES:
                kept += buffer[:count]
            if with_md5 or said is not None:
                md5.update(buffer[:count])
            size += count
            if stop is not None and stop.is_set():
                raise Stopped
        after = source.open_stat(stream)
    if size != before.size or before != after:
        return Problem(ProblemKind.CHANGED_WHILE_READ, path, _WRITTEN_TO)
    if said not in (None, md5.digest()):
        raise NotAsStored.of(path, found=md5.digest(), said=said)
    if holds_secret is not None and kept and holds_secret(bytes(kept)):
        return Problem(ProblemKind.HOLDS_SECRET, path, f"{HELD_SECRET}: {WITHOUT_SECRETS}")
    return Reading(size, before.mtime_us, fingerprint.digest(), md5.digest() if with_md5 else None)


def md5_of(data: bytes) -> bytes:
    """MD5 as a checksum, not for security (so it also works where FIPS rules hold)."""
    return hashlib.md5(data, usedforsecurity=False).digest()
