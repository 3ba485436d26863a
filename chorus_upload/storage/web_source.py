"""What a web server shows as a source: a directory that it lists, or a single file."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html.parser import HTMLParser
from typing import TYPE_CHECKING, BinaryIO, Self, cast
from urllib.parse import quote, unquote, urlsplit

from chorus_upload.errors import DeletionRefused, StorageError
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage import members
from chorus_upload.storage.source import Directory, Entry, FileStat, SmallFile
from chorus_upload.storage.store import Origin
from chorus_upload.storage.web import OpenedWeb, Web, joined

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LISTING = re.compile(r"(?i)index of|directory listing|listing of")
"""In bytes: no service takes longer ones."""
_SAFE = "/!$&'()*+,;=:@~"


class WebSource:
    """The files below a web directory (an address that ends with a slash), or the one file at another address.

    A directory is what the listings of Apache, nginx and their like link to; each of its files is asked once for its
    size and the time of its last change. See `Source`.
    """

    def __init__(self, web: Web, *, connections: int) -> None:
        self._web = web
        # Threads that last, for each has connections of its own.
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="chorus-web")
        self._is_directory = web.root.endswith("/")

    @property
    def url(self) -> str:
        return self._web.root

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
        """See `Source.walk`. Complete, or it raises: a page that is no listing is a StorageError."""
        if not self._is_directory:
            name = unquote(posixpath.basename(urlsplit(self._web.root).path))
            yield self._directory("", [name])
            return
        pending = [""]
        while pending:
            path = pending.pop()
            lead = f"{path}/" if path else ""
            files, directories = self._links(path)
            found = self._directory(path, files)
            for below in (lead + name for name in directories):
                if problem := members.refused(below) or members.too_deep(below):
                    found.problems.append(problem)
                else:
                    pending.append(below)
            yield found

    def stat(self, path: str) -> FileStat | None:
        try:
            found = OpenedWeb(self._web, self._at(path))
        except FileNotFoundError:
            return None
        return None if found.size is None else found.stat

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
        found = OpenedWeb(self._web, self._at(path))
        if found.size is None:
            raise OSError(errno.EINVAL, "the server does not say how large it is", path)
        return cast(BinaryIO, _File(found))

    def open_stat(self, stream: BinaryIO) -> FileStat:
        return cast(_File, stream).state

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """Nobody says it."""
        return None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._web.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _at(self, path: str) -> str:
        """The address of a file of this source."""
        if members.refused(path):
            raise OSError(errno.EINVAL, "not a path inside the source", path)
        if self._is_directory:
            return self._web.root + quote(path, safe=_SAFE)
        if path != unquote(posixpath.basename(urlsplit(self._web.root).path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._web.root

    def _links(self, path: str) -> tuple[list[str], list[str]]:
        """The names of the files and of the directories that the listing of a directory links to."""
        url = self._web.root + quote(f"{path}/" if path else "", safe=_SAFE)
        text, answer = self._web.page(url)
        page = _Page()
        # What cannot be read of a page makes it none.
        with suppress(ValueError, AssertionError, OverflowError):
            page.feed(text)
            page.is_whole = True
        is_html = "html" in answer.headers.get("content-type", "html")
        if not (page.is_whole and is_html and _LISTING.search(page.title)):
            raise StorageError(
                f"{url} is no listing of a directory",
                hint="A single file is addressed without a slash at its end, and an archive as tar://::ADDRESS.",
            )
        files, directories = set[str](), set[str]()
        for link in page.links:
            target = joined(url, link)
            if target is None:
                continue
            address = urlsplit(target)
            # Sorting, the directory above, other places: what is listed is directly below.
            below = address._replace(query="", fragment="").geturl()
            if address.query or not below.startswith(url) or below == url:
                continue
            name = unquote(below[len(url) :])
            if "/" not in name.removesuffix("/"):
                (directories if name.endswith("/") else files).add(name.removesuffix("/"))
        return sorted(files), sorted(directories)

    def _directory(self, path: str, names: list[str]) -> Directory:
        lead = f"{path}/" if path else ""
        found = Directory(path, [], [])
        states = self._pool.map(self._look, [lead + name for name in names])
        for name, state in zip(names, states, strict=True):
            if isinstance(state, Problem):
                found.problems.append(state)
            else:
                found.entries.append(Entry(name, *state))
        return found

    def _look(self, path: str) -> FileStat | Problem:
        """A file that the listing names; whatever is the matter with the site is raised."""
        if problem := members.refused(path):
            return problem
        try:
            found = OpenedWeb(self._web, self._at(path))
        except FileNotFoundError:
            if not self._is_directory:
                raise DeletionRefused(f"the source {self.url} cannot be listed: there is no such file") from None
            return Problem(ProblemKind.VANISHED, path, "it is listed, and is not there")
        if found.size is None:
            return Problem(ProblemKind.UNREADABLE_FILE, path, "the server does not say how large it is")
        return found.stat


class _File(io.RawIOBase):
    """A file that is being read, and its state: that of what is read."""

    def __init__(self, opened: OpenedWeb) -> None:
        super().__init__()
        self.state = opened.stat
        self._stream = opened.stream()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Page(HTMLParser):
    """The links of a page, and what it calls itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.title = ""
        self.is_whole = False
        self._is_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_title = tag in ("title", "h1")
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        self._is_title = False

    def handle_data(self, data: str) -> None:
        if self._is_title:
            self.title += data
