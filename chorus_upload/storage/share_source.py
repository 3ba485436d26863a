"""Directories on another machine as a source, whatever the protocol: the walk, the files, the patience."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, TypeVar, cast

from chorus_upload.errors import DeletionRefused, OutOfResources
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage import members
from chorus_upload.storage.outer import OpenedFile, RangeStream
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.source import Directory, Entry, FileReplaced, FileStat, SmallFile
from chorus_upload.storage.store import Origin

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")


class Kind(Enum):
    """What a name in a directory stands for."""

    FILE = "a file"
    DIRECTORY = "a directory"
    LINKED_DIRECTORY = "a link to a directory, never followed on a share; follow_links = false says that this is meant"
    OUTSIDE = "a link to a file outside of the source, which is not sent: follow_links = true sends it"
    DEAD_LINK = "a link to nothing"
    LINK = "a link, which is not followed"
    OTHER = "neither a file nor a directory"


@dataclass(frozen=True, slots=True)
class Found:
    """One name in a directory. Size and time are those of a file."""

    name: str
    kind: Kind
    state: FileStat


class Reading(Protocol):
    """A file that is open; its methods raise as those of a share."""

    def state(self) -> FileStat: ...

    def read(self, offset: int, length: int) -> bytes:
        """Fewer only at the end."""
        ...

    def close(self) -> None:
        """Never raises."""
        ...


class Share(Protocol):
    """A directory tree on another machine. Paths are POSIX, and relative to it; "" is the tree itself.

    Each method makes one attempt, and may be called from several threads. It raises OSError for what is the matter
    with one path, TransientError when the connection broke, and other StorageErrors for what concerns all paths.
    """

    @property
    def url(self) -> str: ...

    def list(self, path: str) -> list[Found]: ...

    def stat(self, path: str) -> Found:
        """What is at a path, links followed."""
        ...

    def open(self, path: str) -> Reading: ...

    def close(self) -> None: ...


class ShareSource:
    """The tree of `share`, which is closed with this. See `Source`.

    Links to directories are not followed; those to files outside of it with `follow_links` (see `LocalSource`).
    """

    def __init__(self, share: Share, retry: Retry, *, follow_links: bool | None = None) -> None:
        self._share = share
        self._follow_links = follow_links
        self._retry = retry

    @property
    def url(self) -> str:
        return self._share.url

    @property
    def service(self) -> str | None:
        return None

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def is_sequential(self) -> bool:
        return False

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`: one listing for each directory."""
        pending = [""]
        while pending:
            path = pending.pop()
            try:
                found = self._retry.call(lambda path=path: self._share.list(path))  # type: ignore[misc]
            except OSError as error:
                if exhausted := OutOfResources.of(error):
                    raise exhausted from error
                if not path:
                    raise DeletionRefused(
                        f"the source {self.url} cannot be listed: {error.strerror or error}",
                        hint="Is the path right, and may you read it? Nothing was recorded.",
                    ) from None
                reason = error.strerror or str(error)
                yield Directory(path, [], [Problem(ProblemKind.UNREADABLE_DIRECTORY, path, reason)])
                continue
            directory, below = self._sorted(path, found)
            pending += below
            yield directory

    def _sorted(self, path: str, found: list[Found]) -> tuple[Directory, list[str]]:
        directory, below = Directory(path, [], []), []
        lead = f"{path}/" if path else ""
        for each in found:
            name = lead + each.name
            if problem := members.refused(name):
                directory.problems.append(problem)
            elif each.kind is Kind.FILE or (each.kind is Kind.OUTSIDE and self._follow_links):
                directory.entries.append(Entry(each.name, *each.state))
            elif each.kind is Kind.DIRECTORY and (problem := members.too_deep(name)):
                directory.problems.append(problem)
            elif each.kind is Kind.DIRECTORY:
                below.append(name)
            elif each.kind is Kind.LINKED_DIRECTORY and self._follow_links is not None:
                directory.problems.append(Problem(ProblemKind.SKIPPED_LINK, name, each.kind.value))
            else:
                directory.problems.append(Problem(_PROBLEMS[each.kind], name, each.kind.value))
        return directory, below

    def stat(self, path: str) -> FileStat | None:
        require_inside(path)
        return stat_of(self._share, path, self._retry)

    def read_small(self, path: str, *, size: int) -> SmallFile:
        with self.open(path) as stream:
            data = bytearray()
            while len(data) <= size and (piece := stream.read(size + 1 - len(data))):
                data += piece
            state = self.open_stat(stream)
        return SmallFile(bytes(data), state)

    def origin(self, path: str) -> Origin | None:
        """No service copies it."""
        return None

    def open(self, path: str) -> BinaryIO:
        require_inside(path)
        found = self._retry.call(lambda: self._share.stat(path))
        if found.kind is not Kind.FILE:
            raise OSError(errno.EINVAL, "not a regular file", path)
        return cast(BinaryIO, SharedFile(self._share, path, found.state, self._retry))

    def open_stat(self, stream: BinaryIO) -> FileStat:
        return cast(SharedFile, stream).now()

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """Nobody says it."""
        return None

    def close(self) -> None:
        self._share.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ShareOuter:
    """A file of `share`, which is closed with this. See `Outer`."""

    def __init__(self, share: Share, path: str, retry: Retry) -> None:
        self._share = share
        self._path = path
        self._retry = retry

    @property
    def url(self) -> str:
        return f"{self._share.url}/{self._path}"

    @property
    def is_remote(self) -> bool:
        return True

    def open(self) -> OpenedFile:
        state = stat_of(self._share, self._path, self._retry)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        return _OpenedShared(self._share, self._path, state, self._retry)

    def close(self) -> None:
        self._share.close()


class _OpenedShared:
    """See `OpenedFile`."""

    def __init__(self, share: Share, path: str, state: FileStat, retry: Retry) -> None:
        self._share = share
        self._path = path
        self._state = state
        self._retry = retry

    @property
    def size(self) -> int:
        return self._state.size

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        stream = SharedFile(self._share, self._path, self._state, self._retry, start=start, end=end)
        if stream.now() != self._state:
            stream.close()
            raise FileReplaced(f"{self._path} was changed while it was read")
        return cast(BinaryIO, stream)

    def require_same(self) -> None:
        state = stat_of(self._share, self._path, self._retry)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        if state != self._state:
            raise FileReplaced(f"{self._path} was changed while it was read")

    def close(self) -> None:
        """The share belongs to the place."""


class SharedFile(io.RawIOBase):
    """A file that was in that `state` when it was looked at; a broken connection is made again, and reading goes on.

    What is read after it was changed raises FileReplaced, as far as size and time show that.
    """

    def __init__(
        self, share: Share, path: str, state: FileStat, retry: Retry, *, start: int = 0, end: int | None = None
    ) -> None:
        super().__init__()
        self._share = share
        self._path = path
        self._state = state
        self._retry = retry
        self._reading: Reading | None = None
        self._stream = RangeStream(self._fetch, state.size, start=start, end=end)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._stream.readinto(buffer)

    def now(self) -> FileStat:
        """What it is at present."""
        return self._attempted(lambda reading: reading.state())

    def close(self) -> None:
        self._let_go()
        super().close()

    def _fetch(self, offset: int, length: int) -> bytes:
        def fetch(reading: Reading) -> bytes:
            data = reading.read(offset, length)
            if len(data) != length or reading.state() != self._state:
                raise FileReplaced(f"{self._path} was changed while it was read")
            return data

        return self._attempted(fetch)

    def _attempted(self, do: Callable[[Reading], T]) -> T:
        def attempt() -> T:
            try:
                if self._reading is None:
                    self._reading = self._share.open(self._path)
                return do(self._reading)
            except BaseException:
                self._let_go()
                raise

        return self._retry.call(attempt)

    def _let_go(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def stat_of(share: Share, path: str, retry: Retry) -> FileStat | None:
    """The state of a regular file; None when there is none."""
    try:
        found = retry.call(lambda: share.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.state if found.kind is Kind.FILE else None


def require_inside(path: str) -> None:
    """OSError for a path that is none of a file below the root."""
    if members.refused(path):
        raise OSError(errno.EINVAL, "not a path inside the source", path)


_PROBLEMS = {
    Kind.LINKED_DIRECTORY: ProblemKind.LINK_TO_DIRECTORY,
    Kind.OUTSIDE: ProblemKind.LINK_TO_OUTSIDE,
    Kind.DEAD_LINK: ProblemKind.UNREADABLE_FILE,
    Kind.LINK: ProblemKind.NOT_A_FILE,
    Kind.OTHER: ProblemKind.NOT_A_FILE,
}
