"""Files of web servers: asked for by our own HTTP client, followed to where they are, and read in ranges.

A server without ranges is read from the beginning to the end; what breaks off there is asked for again, and what was
had is passed over. A file is known by its ETag, or by the time of its last change.
"""

from __future__ import annotations

import base64
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, urljoin, urlsplit

from chorus_upload.errors import (
    AccessDenied,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.storage.answers import moment_in, no_answer, number_in, seconds_to_wait
from chorus_upload.storage.curl import Answer, HttpClient, NoAnswer
from chorus_upload.storage.flow import Flow, Take
from chorus_upload.storage.network import Network
from chorus_upload.storage.outer import RangeStream
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.source import FileReplaced, FileStat

if TYPE_CHECKING:
    pass

_MOST_REDIRECTS = 10
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_WRITTEN = "%/:?#[]@!$&'()*+,;=-._~"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REMEMBERED_SECONDS = 60.0
_GONE_BY = frozenset({400, 401, 403, 404, 410})
_PAGE = 64 << 20

TakeAnswer = Callable[[Answer, bytes], bool]


@dataclass(frozen=True, slots=True)
class WebAccess:
    """How one asks: `query` goes behind the addresses of the site itself, and so does the log-in. Neither is shown."""

    query: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def lines(self) -> tuple[str, ...]:
        if self.username is None and self.password is None:
            return ()
        pair = f"{self.username or ''}:{self.password or ''}".encode()
        return (f"Authorization: Basic {base64.b64encode(pair).decode()}",)


@dataclass(frozen=True, slots=True)
class WebState:
    """What a server says of a file. `size` is None where it does not; `etag` only if it is a strong one."""

    size: int | None
    etag: str | None
    changed: str | None
    has_ranges: bool

    @property
    def mtime_us(self) -> int:
        """The time of the last change in microseconds, 0 if it is not told."""
        try:
            return int(moment_in(self.changed).timestamp()) * 1_000_000
        except TransientError:
            return 0

    def is_same(self, answer: Answer) -> bool:
        """Whether an answer is about the same state, as far as it says anything."""
        if self.etag is not None and "etag" in answer.headers:
            return answer.headers["etag"] == self.etag
        return self.changed is None or answer.headers.get("last-modified", self.changed) == self.changed


class Web:
    """A web site, below `root`. Used by many threads at once.

    Redirects are followed, to other hosts as well, but never from https to http; log-in and query are for the site
    itself, and go nowhere else.
    """

    def __init__(self, root: str, access: WebAccess, network: Network, retry: Retry) -> None:
        parts = urlsplit(root)
        self.root = f"{parts.scheme}://{parts.netloc}{quote(parts.path or '/', safe='/%:@!$&()*+,;=~')}"
        self._origin = (parts.scheme, parts.hostname, parts.port)
        self._access = access
        self._network = network
        self._retry = retry
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str | None, int | None], HttpClient] = {}
        self._led: dict[str, tuple[str, float]] = {}

    def look(self, url: str) -> WebState:
        """What is known of a file before it is read, by one request."""

        def ask() -> WebState:
            answer = self._get(url, ["Range: bytes=0-0"], lambda *_: False, also=(416,))
            if answer.status == 416:
                # Of an empty file there are no first bytes.
                answer = self._get(url, [], lambda *_: False)
            bounds = answer.headers.get("content-range", "").rpartition("/")[2]
            size = number_in(bounds if answer.status == 206 else answer.headers.get("content-length"))
            etag = answer.headers.get("etag", "")
            return WebState(
                size,
                None if etag.startswith("W/") else etag or None,
                answer.headers.get("last-modified"),
                answer.status == 206 and size is not None,
            )

        return self._retry.call(ask)

    def page(self, url: str) -> tuple[str, Answer]:
        """A page, decoded, and what else the server said with it."""

        def ask() -> tuple[str, Answer]:
            data = bytearray()
            answer = self._get(url, [], _into(data, _PAGE))
            return data.decode("utf-8", "replace"), answer

        return self._retry.call(ask)

    def part(self, url: str, state: WebState, *, offset: int, length: int) -> bytes:
        """So many bytes of a file that is in that state. FileReplaced if it is not."""
        lines = [f"Range: bytes={offset}-{offset + length - 1}"]
        if state.etag is not None:
            lines.append(f"If-Match: {state.etag}")
        elif state.changed is not None:
            lines.append(f"If-Unmodified-Since: {state.changed}")

        def ask() -> bytes:
            data = bytearray()
            answer = self._get(url, lines, _into(data, length))
            if not state.is_same(answer):
                raise PreconditionFailed("replaced")
            if answer.status != 206 or len(data) != length:
                raise TransientError(f"reading {url}: the server does not give the range that was asked for")
            return bytes(data)

        with _as_file(url):
            return self._retry.call(ask)

    def whole(self, url: str, state: WebState, take: Take) -> None:
        """Give all of a file to `take`, once; it ends early when that answers False. Broken downloads are gone on with.

        FileReplaced when it is not in that state.
        """
        passed = 0
        while True:
            before = passed

            def ask() -> None:
                nonlocal passed
                to_skip = passed

                def pass_on(answer: Answer, piece: bytes) -> bool:
                    nonlocal passed, to_skip
                    if not state.is_same(answer):
                        return False
                    fresh = piece[to_skip:]
                    to_skip = max(0, to_skip - len(piece))
                    passed += len(fresh)
                    return not fresh or take(fresh)

                if not state.is_same(self._get(url, [], pass_on)):
                    raise PreconditionFailed("replaced")

            try:
                with _as_file(url):
                    return self._retry.call(ask)
            except TransientError:
                # A download of days may break more than once: patience begins anew when something was got.
                if passed == before:
                    raise

    def release(self) -> None:
        """Close the connections of this thread, which is about to end."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.release()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _get(self, url: str, lines: Sequence[str], take: TakeAnswer, *, also: tuple[int, ...] = ()) -> Answer:
        """The answer from where the redirects lead; what is no success, nor `also` wanted, is raised."""
        target, until = self._led.pop(url, (url, 0.0))
        if time.monotonic() > until:
            target = url
        is_remembered = target != url
        for _ in range(_MOST_REDIRECTS):
            answer = self._ask(target, url, lines, take)
            if answer.status in _REDIRECTS and answer.headers.get("location"):
                following = joined(target, answer.headers["location"])
                if following is None:
                    raise StorageError(f"reading {url}: it leads to what is no address")
                if urlsplit(following).scheme not in ("https", urlsplit(target).scheme):
                    raise StorageError(f"reading {url}: it leads from https:// to a place without it")
                target, until = following, time.monotonic() + _REMEMBERED_SECONDS
                continue
            if 200 <= answer.status < 300 or answer.status in also:
                if target != url:
                    self._led[url] = (target, until)
                return answer
            if is_remembered and answer.status in _GONE_BY:
                # Such an address may be good for a while only.
                target, is_remembered = url, False
                continue
            raise _refused(answer, url)
        raise StorageError(f"reading {url}: too many redirects")

    def _ask(self, target: str, url: str, lines: Sequence[str], take: TakeAnswer) -> Answer:
        parts = urlsplit(target)
        headers = ["Accept: */*", *lines]
        # What is not ASCII should have been written as %XX, and is by most.
        address = quote(parts._replace(fragment="").geturl(), safe=_WRITTEN)
        if (parts.scheme, parts.hostname, parts.port) == self._origin:
            headers += self._access.lines
            if self._access.query and not parts.query:
                address += f"?{self._access.query}"
        try:
            return self._client(target).request("GET", address, headers, take=take)
        except NoAnswer as error:
            failure = no_answer(error, doing=f"reading {url}")
        raise failure

    def _client(self, target: str) -> HttpClient:
        parts = urlsplit(target)
        origin = (parts.scheme, parts.hostname, parts.port)
        with self._lock:
            if origin not in self._clients:
                self._clients[origin] = HttpClient(target, self._network, moved=self._retry.liveness.moved)
            return self._clients[origin]


class WebOuter:
    """A file of a web site, which is closed with this. See `Outer`."""

    def __init__(self, web: Web) -> None:
        self._web = web

    @property
    def url(self) -> str:
        return self._web.root

    @property
    def is_remote(self) -> bool:
        return True

    def open(self) -> OpenedWeb:
        return OpenedWeb(self._web, self._web.root)

    def close(self) -> None:
        self._web.close()


class OpenedWeb:
    """See `OpenedFile`."""

    def __init__(self, web: Web, url: str) -> None:
        self._web = web
        self._url = url
        with _as_file(url):
            self.state = web.look(url)

    @property
    def size(self) -> int | None:
        return self.state.size

    @property
    def stat(self) -> FileStat:
        """For a file of which the server says the size."""
        return FileStat(self.state.size or 0, self.state.mtime_us)

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        if self.state.has_ranges:
            return cast(BinaryIO, RangeStream(self._fetch, self.state.size or 0, start=start, end=end))
        return cast(BinaryIO, Flow(self._flow))

    def require_same(self) -> None:
        with _as_file(self._url):
            now = self._web.look(self._url)
        if (now.size, now.etag, now.changed) != (self.state.size, self.state.etag, self.state.changed):
            raise FileReplaced(f"{self._url} was replaced while it was read")

    def close(self) -> None:
        """The connections belong to the site."""

    def _flow(self, take: Take) -> None:
        try:
            self._web.whole(self._url, self.state, take)
        finally:
            self._web.release()

    def _fetch(self, offset: int, length: int) -> bytes:
        return self._web.part(self._url, self.state, offset=offset, length=length)


def joined(address: str, link: str) -> str | None:
    """Where a link leads that stands at `address`; None for what is no address."""
    try:
        found = urljoin(address, link)
        # Only asking for the port has it looked at.
        is_good = urlsplit(found).port != 0
    except ValueError:
        return None
    return found if is_good else None


def _into(data: bytearray, most: int) -> TakeAnswer:
    def take(_: Answer, piece: bytes) -> bool:
        data.extend(piece)
        return len(data) <= most

    return take


@contextmanager
def _as_file(url: str) -> Iterator[None]:
    """What is the matter with one file of a site, as it would be with a file."""
    try:
        yield
    except ObjectNotFound:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
    except PreconditionFailed:
        raise FileReplaced(f"{url} was replaced while it was read") from None


def _refused(answer: Answer, url: str) -> StorageError:
    text = f"reading {url}: {answer.reason or 'refused'} ({answer.status})"
    if answer.status in _TRANSIENT:
        return TransientError(text, retry_after=seconds_to_wait(answer.headers.get("retry-after")))
    if answer.status in (401, 403, 407):
        return AccessDenied(text, hint="Is the address complete, with what stands behind its ?, and is it still good?")
    if answer.status in (404, 410):
        return ObjectNotFound(text)
    return PreconditionFailed(text) if answer.status == 412 else StorageError(text)
