"""The file that an archive is: what the source of an archive asks of the place where it lies."""

from __future__ import annotations

import codecs
import errno
import io
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from chorus_upload.errors import StorageError
from chorus_upload.storage.cloud_source import as_file, as_stream
from chorus_upload.storage.source import FileReplaced
from chorus_upload.storage.store import RangedStore, Store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOOK_BYTES = 512
_SHOWN_BYTES = 60
_PAGES = ("<!doctype", "<html", "<head", "<body", "<title")
"""How web pages begin, in lower case."""
_LEAST = 64 << 10
_MOST = 4 << 20


class OpenedFile(Protocol):
    """A file as it was when it was opened: whatever is read is of that state. May be used by several threads."""

    @property
    def size(self) -> int | None:
        """None where nobody says it before the end."""
        ...

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """A stream of its bytes; `seekable()` says whether it can go elsewhere, and `start` be more than 0.

        Nothing is fetched behind `end` unless it is asked for. Opening and reading raise OSError and StorageError,
        and FileReplaced when it is another file by now.
        """
        ...

    def require_same(self) -> None:
        """Raise FileReplaced when there is another file in its place now, and FileNotFoundError when there is none."""
        ...

    def close(self) -> None: ...


class Outer(Protocol):
    """A file somewhere, as a place."""

    @property
    def url(self) -> str:
        """Where it is, for people: never contains a credential."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether reading it means fetching it."""
        ...

    def open(self) -> OpenedFile:
        """Raises FileNotFoundError when there is none, other OSErrors and StorageError."""
        ...

    def close(self) -> None: ...


def not_listed(url: str, opened: OpenedFile | None, error: OSError) -> StorageError:
    """Return the error for an archive that cannot be listed; a web page in its place is called one."""
    page = None if opened is None else _page_in(opened)
    if page is None:
        return StorageError(f"{url} cannot be listed: {error.strerror or error}")
    return StorageError(
        f"{url} cannot be listed: this is a web page (text/html, begins with {page!r}), not an archive",
        hint="Is the address that of the file itself, and not of a page about it? Does the site want a log-in?",
    )


def _page_in(opened: OpenedFile) -> str | None:
    """How the web page begins that a file is; None when it is none, or cannot be read."""
    try:
        with closing(opened.stream(end=_LOOK_BYTES)) as stream:
            head = stream.read(_LOOK_BYTES)
    except (OSError, StorageError):
        return None
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()[:_SHOWN_BYTES].decode("ascii", "replace")
    return text.partition("\n")[0].strip() if text.lower().startswith(_PAGES) else None


class LocalOuter:
    """A file on this machine. See `Outer`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def url(self) -> str:
        return str(self._path)

    @property
    def is_remote(self) -> bool:
        return False

    def open(self) -> OpenedFile:
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(self._path))
        return _OpenedLocal(self._path)

    def close(self) -> None:
        """Nothing is held open."""


class _OpenedLocal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state_of(path)

    @property
    def size(self) -> int:
        return self._state[0]

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        stream = _LocalStream(self._path, self.require_same)
        stream.seek(start)
        return cast(BinaryIO, stream)

    def require_same(self) -> None:
        if _state_of(self._path) != self._state:
            raise FileReplaced(f"{self._path} was changed while it was read")

    def close(self) -> None:
        """Nothing is held open."""


class _LocalStream(io.RawIOBase):
    """A file that is looked at after each read: by then, what was read is known to be of the right state."""

    def __init__(self, path: Path, require_same: Callable[[], None]) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._require_same = require_same

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._file.readinto(buffer)
        self._require_same()
        return count or 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _state_of(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino


class StoreOuter:
    """An object of `store`, which is closed with this. See `Outer`."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key

    @property
    def url(self) -> str:
        return f"{self._store.url}/{self._key}"

    @property
    def is_remote(self) -> bool:
        return True

    def open(self) -> OpenedFile:
        with as_file(self._key):
            return _OpenedObject(self._store, self._key)

    def close(self) -> None:
        self._store.close()


class _OpenedObject:
    """See `OpenedFile`. The state is the object's etag."""

    def __init__(self, store: Store, key: str) -> None:
        found = store.stat(key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
        self._store = store
        self._key = key
        self._etag, self._size = found.etag, found.size

    @property
    def size(self) -> int:
        return self._size

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        if isinstance(self._store, RangedStore):
            return cast(BinaryIO, RangeStream(self._fetch, self._size, start=start, end=end))
        with as_file(self._key):
            stream = self._store.open(self._key)
        if stream.stored.etag != self._etag:
            stream.close()
            raise FileReplaced(f"{self._key} was replaced while it was read")
        return as_stream(stream, self._key)

    def require_same(self) -> None:
        with as_file(self._key):
            found = self._store.stat(self._key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._key)
        if found.etag != self._etag:
            raise FileReplaced(f"{self._key} was replaced while it was read")

    def close(self) -> None:
        """The store belongs to the place."""

    def _fetch(self, offset: int, length: int) -> bytes:
        with as_file(self._key):
            return cast(RangedStore, self._store).read_range(self._key, offset=offset, length=length, etag=self._etag)


class RangeStream(io.RawIOBase):
    """A file of `size` bytes of which any part can be fetched. At most 4 MiB of it are held.

    What is read one after the other is fetched in growing pieces, so that little is fetched in vain. Up to `end` it
    is meant to be read, and so the first piece is as large as that.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, *, start: int = 0, end: int | None = None
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._end = size if end is None else min(end, size)
        self._at = start
        self._piece = _LEAST if end is None else max(_LEAST, self._end - start)
        self._held, self._held_at = b"", start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._held_at <= self._at < self._held_at + len(self._held):
            self._fill(len(view))
        first = self._at - self._held_at
        part = self._held[first : first + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _fill(self, wanted: int) -> None:
        """Hold what follows from here."""
        held_to = self._held_at + len(self._held)
        if self._held:
            # A little further on is going on: members of archives are padded, and follow each other closely.
            goes_on = 0 <= self._at - held_to < _LEAST
            self._piece = self._piece * 2 if goes_on else _LEAST
        self._piece = min(self._piece, _MOST)
        # Behind the end only what is asked for.
        most = max(self._end - self._at, min(wanted, self._size - self._at))
        length = min(max(self._piece, min(wanted, _MOST)), most)
        # Let go first: both at once would be twice as much.
        self._held, self._held_at = b"", self._at
        if length > 0:
            self._held = self._fetch(self._at, length)
