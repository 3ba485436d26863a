"""Where files come from: the contract of a source, which is walked and read but never written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol, Self

from chorus_upload.model import Problem
from chorus_upload.storage.store import Origin

_MOST = 2**63 - 1


class Entry(NamedTuple):
    """One regular file of a directory. `mtime_us` is microseconds since the epoch, UTC, rounded down."""

    name: str
    size: int
    mtime_us: int


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory as it was found: `path` is POSIX, relative to the root, "" for the root itself.

    `problems` names what is in this directory but not in `entries`. An unreadable directory comes as a
    Directory without entries whose problems say so: whatever the journal has below it is left alone.
    """

    path: str
    entries: list[Entry]
    problems: list[Problem]
    claims: Mapping[str, bytes] = field(default_factory=dict)
    """MD5s by name, where a service lists them, or CRC-32s (4 bytes, the highest first), where an archive has them.
    Whoever wrote them: good enough to see that nothing has changed."""
    is_hashed: bool = False
    """Whether the claims are of the bytes that will be read, for sure: then they also tell that something has."""
    is_mounted: bool = False
    """Whether something is mounted on it, as far as its device or the system tells."""
    is_empty: bool = False
    """Whether there is nothing at all in it, where that can be told."""


class FileReplaced(OSError):
    """A file of a service is another one than when it was opened."""


class FileStat(NamedTuple):
    """What identifies a state of a file without reading it."""

    size: int
    mtime_us: int

    @classmethod
    def told(cls, size: int, mtime_us: int) -> Self:
        """As a server or an archive says it, bounded by what a journal can hold: beyond 63 bits there is no file."""
        return cls(min(max(size, 0), _MOST), min(max(mtime_us, -_MOST), _MOST))


READINGS = 3
"""How often a file is read that does not arrive as it is stored."""


class SmallFile(NamedTuple):
    """What was read of a file, and its state after that."""

    data: bytes
    state: FileStat


class Source(Protocol):
    """A tree of files. Methods may be called from several threads at once.

    A root that is missing, no directory, or unreadable raises DeletionRefused from `walk`; trouble below the
    root is a Problem in what is yielded, never an exception. That this machine is out of resources is trouble with
    no file: OutOfResources, or an OSError that is one (see `OutOfResources.of`).
    """

    @property
    def url(self) -> str:
        """Where this source is, for people: never contains a credential."""
        ...

    @property
    def service(self) -> str | None:
        """The service that its files lie in, as `Store.service` names it; None for none that copies by itself."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether reading a file means fetching it: then a listing has to do for finding out what has changed."""
        ...

    @property
    def is_sequential(self) -> bool:
        """Whether files are best read one at a time and in the order of `walk`: to go back means to start over."""
        ...

    def walk(self) -> Iterator[Directory]:
        """Yield every directory with files below and including the root, in any order.

        One with very many files may come in several pieces. Raises StorageError when a service cannot be listed.
        """
        ...

    def stat(self, path: str) -> FileStat | None:
        """Size and time of a regular file; None when there is none (absent, or of another type).

        Raises OSError when that cannot be told (permissions, an unreachable share), and for a path that
        would lead out of the source.
        """
        ...

    def read_small(self, path: str, *, size: int) -> SmallFile:
        """Read a whole file that should have `size` bytes, and one byte more if it has grown. OSError as `open`.

        For most files this is most of the time, so it is done in as few calls as possible, with one look at
        the file, after the reading. Who knows its state from before sees whether the bytes can be trusted. What has not
        the MD5 that is said of it is read again, and raises TransientError in the end.
        """
        ...

    def origin(self, path: str) -> Origin | None:
        """How a store of the same service can copy the file; None where there is no service, or nothing to prove it by.

        Raises OSError as `open`.
        """
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a regular file for reading, unbuffered. Raises OSError; reading on may raise FileReplaced."""
        ...

    def open_stat(self, stream: BinaryIO) -> FileStat:
        """Size and time of the file behind a stream that `open` gave."""
        ...

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """The MD5 that is said of the file behind such a stream, by whomever; None where nobody says one."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
