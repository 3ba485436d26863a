"""A wire between a client and an HTTP service, on which things go wrong as a test has scripted them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Answer:
    """The service is not asked; the wire answers itself."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class DropAnswer:
    """The work is done, but the client never hears of it."""


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """The connection breaks after so many bytes of the answer."""

    after: int


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The connection breaks after so many bytes of the request's body; the service never hears of it."""

    after: int


@dataclass(frozen=True, slots=True)
class Garble:
    """One byte of the request's body is another one when it arrives."""

    at: int


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer takes its time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Trickle:
    """The request's body is taken off the wire slowly: `pieces` pauses of `pause` seconds."""

    pieces: int
    pause: float


Fault = Answer | DropAnswer | CutAnswer | CutRequest | Garble | Delay | Trickle


@dataclass(frozen=True, slots=True)
class Request:
    """What came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    size: int


@dataclass(slots=True)
class _Scripted:
    fault: Fault
    method: str
    containing: str


@dataclass(slots=True)
class Wire:
    """Listens on `port` and passes everything on to the service at `upstream`, except for the faults.

    With `tls` the client's side is encrypted. Leaving the `with` fails when a scripted fault never happened.
    """

    upstream: int
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    _script: list[_Scripted] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _threads: list[threading.Thread] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def script(self, fault: Fault, *, method: str = "", containing: str = "", times: int = 1) -> None:
        """Let `fault` happen to the next requests of this method whose target contains this."""
        self._script.extend(_Scripted(fault, method, containing) for _ in range(times))

    def forget(self) -> None:
        """Nothing more is to go wrong: whoever was to meet the rest of the script is gone."""
        with self._lock:
            self._script.clear()

    def count(self, method: str = "", containing: str = "") -> int:
        return sum(method in ("", each.method) and containing in each.target for each in self.requests)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        if kind is None:
            assert not self._script, f"faults that never happened: {self._script}"

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(30)
        try:
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            self._open.add(client)
            self._exchange(client)
        except OSError:  # a client that hangs up (as one does that distrusts our certificate) is no news here
            pass
        finally:
            self._open.discard(client)
            client.close()

    def _exchange(self, client: socket.socket) -> None:
        """One request and its answer; every connection carries just one."""
        head, rest = _read_head(client)
        if not head:
            return
        request, size = _parse(head)
        with self._lock:
            self.requests.append(request)
            fault = self._take(request)
        if isinstance(fault, Trickle):
            for _ in range(fault.pieces):
                time.sleep(fault.pause)
                rest += client.recv(65_536)
        while len(rest) < size:
            piece = client.recv(1 << 20)
            if not piece:
                raise ConnectionResetError("the client went away in the middle of a request")
            rest += piece
            if isinstance(fault, CutRequest) and len(rest) >= fault.after:
                _reset(client)
                return
        if isinstance(fault, Answer):
            client.sendall(_answer(fault, head=request.method == "HEAD"))
            return
        if isinstance(fault, Garble):
            rest = rest[: fault.at] + bytes([rest[fault.at] ^ 0xFF]) + rest[fault.at + 1 :]
        answer = self._ask(head, rest)
        if isinstance(fault, Delay):
            self._over.wait(fault.seconds)
        if isinstance(fault, DropAnswer):
            _reset(client)
        elif isinstance(fault, CutAnswer):
            client.sendall(answer[: fault.after])
        else:
            client.sendall(answer)

    def _take(self, request: Request) -> Fault | None:
        for each in self._script:
            if each.method in ("", request.method) and each.containing in request.target:
                self._script.remove(each)
                return each.fault
        return None

    def _ask(self, head: bytes, body: bytes) -> bytes:
        line, _, headers = head.partition(b"\r\n")
        with socket.create_connection(("127.0.0.1", self.upstream), timeout=30) as service:
            service.sendall(line + b"\r\nConnection: close\r\n" + headers + body)
            pieces = []
            while piece := service.recv(1 << 20):
                pieces.append(piece)
            return b"".join(pieces)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65_536)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _parse(head: bytes) -> tuple[Request, int]:
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    size = int(headers.get("content-length", 0))
    return Request(method, target, headers, size), size


def _answer(fault: Answer, *, head: bool) -> bytes:
    lines = [f"HTTP/1.1 {fault.status} Scripted", "Connection: close", f"Content-Length: {len(fault.body)}"]
    lines += [f"{name}: {value}" for name, value in fault.headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else fault.body)


def _reset(client: socket.socket) -> None:
    """Break the connection so that the other side notices an error and no orderly end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
