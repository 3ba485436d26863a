"""HTTP by libcurl: every connection to a service, its certificates, proxies and time-outs.

libcurl does the whole exchange outside the interpreter's lock, so that many threads really send at once, for a
fraction of the work that an HTTP client in Python takes for each request (docs/performance.md has the figures).
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import urlsplit

import pycurl

from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.curl_bodies import Incoming, Outgoing, Passing
from chorus_upload.storage.network import Network

_CONNECT_SECONDS = 60
SILENCE = 180.0
"""For how many seconds nothing may move in a request for which nobody knows better."""

READS = frozenset({"GET", "HEAD"})
"""The methods whose responses a cache may keep."""
NO_CACHE: Mapping[str, str] = MappingProxyType({"Cache-Control": "no-cache", "Pragma": "no-cache"})
"""What every request that reads says. With a write, some services would note it as a property of the object."""

_NO_CACHE_LINES = tuple(f"{name}: {value}" for name, value in NO_CACHE.items())

# A body of this size or larger can be given up while it is on its way.
_LONG = 1 << 18
# In how large pieces a body is asked for that is not handed over as a whole.
_PIECE = 1 << 19
# How much may wait in the system's buffer: what is beyond it counts as sent only when it is on its way, so that
# on a slow uplink progress is seen as it happens, and silence is silence.
_UNSENT = 1 << 17
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said. The names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """There was no whole answer; the subclasses say what a caller has to tell apart. Never leaves `storage`.

    `hint` says what the user can do.
    """

    hint: ClassVar[str | None] = None


class TimedOut(NoAnswer):
    """Nothing moved for too long."""


class NotTrusted(NoAnswer):
    """The other end could not prove who it is, or no secure connection could be agreed."""


class ProxyRefused(NoAnswer):
    """The proxy on the way does not let us through."""


class Unresolved(NoAnswer):
    """The name of the host could not be looked up; with `is_unknown` the name service says that there is none."""

    def __init__(self, text: str, *, is_unknown: bool) -> None:
        super().__init__(text)
        self.is_unknown = is_unknown


class GivenUp(NoAnswer):
    """The run is to end, and more than half of a large body was still to be sent."""


class HttpClient:
    """A client for one service. May be used by many threads, each of which has a connection of its own.

    `endpoint_ip` is where the service's host is looked for, instead of asking the name service; the certificate is
    checked against the host's name all the same. What is sent is held back by `throttle`. Once `stop` is set, large
    bodies of which most is still to be sent are given up. `require` is given the method, the headers and the response
    of every request, and raises NoAnswer for what is not the service's. `moved` is told whenever bytes have moved.
    """

    def __init__(
        self,
        url: str,
        network: Network,
        *,
        endpoint_ip: str | None = None,
        throttle: Throttle | None = None,
        stop: threading.Event | None = None,
        require: Callable[[str, Sequence[str], Answer], None] | None = None,
        moved: Callable[[], None] | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._moved = moved
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._is_proxy_chosen = network.proxy is not None
        self._proxy = network.proxy_for(parts.scheme, self._host)
        self._endpoint_ip = endpoint_ip
        self._trusted = network.trusted
        self._throttle = throttle
        self._own = threading.local()
        self._handles: list[pycurl.Curl] = []
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="chorus-aside")
        self._require = require
        self.stop = stop or threading.Event()

    def request(
        self,
        method: str,
        url: str,
        headers: Sequence[str],
        body: bytes | memoryview = b"",
        *,
        silence: float = SILENCE,
        take: Callable[[Answer, bytes], bool] | None = None,
    ) -> Answer:
        """Send one request; `headers` are whole lines, ValueError if one is several. Redirects are not followed.

        The body of a success goes to `take`, if it is given, piece by piece and of any length, together with the Answer
        without one. When `take` answers False, the exchange ends there, and passes for complete.

        A body that is a view of a buffer must not change before this returns; no copy of it is made.

        Raises NoAnswer when there is none, and TimedOut when for `silence` seconds (and some more after much was
        moved: libcurl looks at the average of the last six) not a single byte moved.
        """
        if any("\n" in line or "\r" in line for line in headers):
            raise ValueError("a header is more than one line")
        is_main = threading.current_thread() is threading.main_thread()
        exchange = self._exchange_aside if is_main else self._exchange
        answer = exchange(method, url, headers, body, silence, take)
        if self._require is not None:
            self._require(method, headers, answer)
        return answer

    def _exchange_aside(
        self,
        method: str,
        url: str,
        headers: Sequence[str],
        body: bytes | memoryview,
        silence: float,
        take: Callable[[Answer, bytes], bool] | None,
    ) -> Answer:
        """In a thread of its own: signals reach Python in the main thread, and there not before libcurl returns."""
        interrupted = threading.Event()
        future = self._aside.submit(self._exchange, method, url, headers, body, silence, take, interrupted)
        try:
            return future.result()
        except KeyboardInterrupt:
            interrupted.set()
            wait([future])
            raise
        finally:
            # It knows the exception, which knows this frame.
            del future

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Sequence[str],
        body: bytes | memoryview,
        silence: float,
        take: Callable[[Answer, bytes], bool] | None,
        interrupted: threading.Event | None = None,
    ) -> Answer:
        curl = self._handle()
        head: list[bytes] = []
        pieces = Incoming() if take is None else Passing(lambda: _head_of(head), take)
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.NOBODY, method == "HEAD")
        curl.setopt(pycurl.HTTPHEADER, [*headers, *(_NO_CACHE_LINES if method in READS else ())])
        curl.setopt(pycurl.HEADERFUNCTION, head.append)
        curl.setopt(pycurl.WRITEFUNCTION, pieces.take)
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(silence)))
        handed_out = self._set_body(curl, method, body)
        if interrupted is not None:
            curl.setopt(pycurl.NOPROGRESS, 0)
            curl.setopt(pycurl.XFERINFOFUNCTION, lambda *sizes: interrupted.is_set() or self._progress(*sizes))
        try:
            curl.perform()
        except pycurl.error as error:
            failure: NoAnswer = self._no_answer(curl, *error.args)
            if pieces.is_enough:
                return _answer(curl.getinfo(pycurl.RESPONSE_CODE), head, pieces)
        else:
            # A connection that closes within the head passes for a complete answer with libcurl.
            if _is_whole(head):
                return _answer(curl.getinfo(pycurl.RESPONSE_CODE), head, pieces)
            failure = NoAnswer("the answer broke off")
        finally:
            # The handle would hold on to what was sent and received until its next request, beside all budgets.
            curl.setopt(pycurl.POSTFIELDS, b"")
            if handed_out is not None:
                handed_out.forget()
            pieces.clear()
        # Raised here: an exception whose context is another library's would carry that along.
        try:
            raise failure
        finally:
            # It knows this frame: if that knew it as well, the body would stay until somebody collects garbage.
            del failure

    def release(self) -> None:
        """Close the connection of this thread, if it has one: for threads that end before the client does."""
        curl = self._own.__dict__.pop("curl", None)
        if curl is not None:
            self._handles.remove(curl)
            curl.close()

    def close(self) -> None:
        """Close all connections. No thread may be using the client any more."""
        self._aside.shutdown()
        while self._handles:
            self._handles.pop().close()

    def _handle(self) -> pycurl.Curl:
        """This thread's handle, which keeps its connection open between requests."""
        try:
            return self._own.curl  # type: ignore[no-any-return]
        except AttributeError:
            pass
        curl = pycurl.Curl()
        for option, value in self._options():
            curl.setopt(option, value)
        self._own.curl = curl
        self._handles.append(curl)
        return curl

    def _options(self) -> list[tuple[int, object]]:
        # libcurl has a place of its own for the kind that is not set here.
        file, directory = (None, self._trusted) if self._trusted.is_dir() else (self._trusted, None)
        options: list[tuple[int, object]] = [
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.CAINFO, file and os.fsencode(file)),
            (pycurl.CAPATH, directory and os.fsencode(directory)),
            (pycurl.PROXY, self._proxy.encode()),
            (pycurl.CONNECTTIMEOUT, _CONNECT_SECONDS),
            (pycurl.LOW_SPEED_LIMIT, 1),
            (pycurl.UPLOAD_BUFFERSIZE, _PIECE),
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.SOCKOPTFUNCTION, _tune_socket),
            (pycurl.XFERINFOFUNCTION, self._progress),
        ]
        if self._proxy:
            # A proxy over TLS is verified, too.
            options.append((pycurl.PROXY_CAPATH if directory else pycurl.PROXY_CAINFO, os.fsencode(self._trusted)))
        if self._is_proxy_chosen:
            # libcurl looks for exemptions in the environment, which are not meant for it.
            options.append((pycurl.NOPROXY, ""))
        if self._endpoint_ip:
            address = f"[{self._endpoint_ip}]" if ":" in self._endpoint_ip else self._endpoint_ip
            options.append((pycurl.CONNECT_TO, [f"{self._host}:{self._port}:{address}:{self._port}"]))
        return options

    def _set_body(self, curl: pycurl.Curl, method: str, body: bytes | memoryview) -> Outgoing | None:
        """What the body is read from, if it is not handed over as a whole."""
        reader = None
        throttle = self._throttle if self._throttle is not None and self._throttle.is_active else None
        curl.setopt(pycurl.NOPROGRESS, len(body) < _LONG and self._moved is None)
        self._own.bytes = 0
        if method in ("PUT", "POST"):
            if isinstance(body, bytes) and not (throttle and body):
                curl.setopt(pycurl.UPLOAD, 0)
                curl.setopt(pycurl.POST, 1)
                curl.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
                curl.setopt(pycurl.POSTFIELDS, body)
            else:
                reader = Outgoing(body, throttle)
                curl.setopt(pycurl.UPLOAD, 1)
                curl.setopt(pycurl.READFUNCTION, reader.read)
                curl.setopt(pycurl.SEEKFUNCTION, reader.seek)
                curl.setopt(pycurl.INFILESIZE_LARGE, len(body))
        elif method != "HEAD":
            curl.setopt(pycurl.HTTPGET, 1)
        curl.setopt(pycurl.CUSTOMREQUEST, method)
        return reader

    def _progress(self, _to_get: int, got: int, to_send: int, sent: int) -> int:
        if self._moved is not None and got + sent != self._own.bytes:
            self._own.bytes = got + sent
            self._moved()
        return int(self.stop.is_set() and to_send >= _LONG and 2 * sent <= to_send)

    def _no_answer(self, curl: pycurl.Curl, number: int, text: str = "") -> NoAnswer:
        """libcurl's error; its texts name the host, and never what is asked of it."""
        tunnel, errno = curl.getinfo(pycurl.HTTP_CONNECTCODE), curl.getinfo(pycurl.OS_ERRNO)
        if number == pycurl.E_ABORTED_BY_CALLBACK:
            return GivenUp("given up, because the run is to end")
        if number == pycurl.E_SSL_CACERT_BADFILE:
            return NotTrusted(f"the certificates to trust cannot be read: {self._trusted}")
        if number in _UNTRUSTED:
            return NotTrusted(f"the certificate of the service is not trusted: {_SSL_PREFIX.sub('', text)}")
        if number == pycurl.E_SSL_CONNECT_ERROR and not _broke_off(text):
            return NotTrusted(f"no secure connection could be agreed: {_SSL_PREFIX.sub('', text)}")
        if tunnel >= 400 or text.startswith("Unsupported proxy"):
            return _of_the_proxy(tunnel)
        return self._broken(number, text, errno)

    def _broken(self, number: int, text: str, errno: int) -> NoAnswer:
        """What is the matter with the connection itself."""
        if number == pycurl.E_COULDNT_RESOLVE_HOST:
            return Unresolved(text, is_unknown=is_unknown_host(self._endpoint_ip or self._host))
        if number == pycurl.E_WRITE_ERROR:
            return NoAnswer("the answer is longer than any that the service gives")
        if number == pycurl.E_OPERATION_TIMEDOUT:
            return TimedOut(text)
        return NoAnswer(f"{text or f'libcurl error {number}'}{f' ({os.strerror(errno)})' if errno else ''}")


def is_unknown_host(name: str) -> bool:
    """Whether the name service says that there is no such host; False when it cannot be asked."""
    try:
        # As bytes: Python has an opinion of its own on which names there can be.
        socket.getaddrinfo(name.encode() if name.isascii() else name, None)
    except socket.gaierror as error:
        return error.errno in UNKNOWN_HOST
    except (OSError, UnicodeError):
        return False
    return False


UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""How the resolver says that there is no such name."""

_UNTRUSTED = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
# TLS failures that say nothing about who the other end is: the connection broke, or was garbled on the way.
_BROKEN = (
    "eof",
    "send failure",
    "recv failure",
    "reset",
    "syscall",
    "bad record mac",
    "decryption failed",
    "record layer",
    "http request",
    "timed out",
    "error:00000000",
)
_STATUS = re.compile(rb"HTTP/[0-9.]+ +([0-9]{3})(?![0-9])")
_SSL_PREFIX = re.compile(r"^SSL(?: certificate (?:problem|OpenSSL verify result))?: ")


def _broke_off(text: str) -> bool:
    return any(word in text.lower() for word in _BROKEN)


def _of_the_proxy(status: int) -> NoAnswer:
    """What is the matter with it: the status with which it answered, or 0 when it could not even be asked."""
    if status == 0:
        # libcurl's text shows the address, and with it the password.
        return ProxyRefused("the address of the proxy cannot be understood")
    if status in (408, 429) or status >= 500:
        return NoAnswer(f"the proxy does not get through to the service ({status})")
    asks = "asks for a user and a password" if status == 407 else f"refuses the connection ({status})"
    return ProxyRefused(f"the proxy {asks}")


def _tune_socket(descriptor: int, _purpose: int) -> int:
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT)
    return 0


def _is_whole(head: list[bytes]) -> bool:
    """Whether an empty line ends the last of the heads; trailers may follow it."""
    for line in reversed(head):
        if line in (b"\r\n", b"\n"):
            return True
        if line.startswith(b"HTTP/"):
            return False
    return False


def _head_of(head: list[bytes]) -> tuple[Answer, bool]:
    """The answer as far as it is known before its body, and whether it is a success."""
    found = next((each for line in reversed(head) if (each := _STATUS.match(line))), None)
    status = int(found[1]) if found else 0
    return _answer(status, head, []), 200 <= status < 300


def _answer(status: int, head: list[bytes], pieces: list[bytes]) -> Answer:
    """The last of the heads that came (informational ones precede it), and the body."""
    reason = ""
    headers: dict[str, str] = {}
    for line in head:
        if line.startswith(b"HTTP/"):
            reason, headers = line.decode("latin-1").rstrip().partition(" ")[2].partition(" ")[2], {}
        else:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                headers[name.lower()] = value.strip()
    return Answer(status, reason, headers, b"".join(pieces))
