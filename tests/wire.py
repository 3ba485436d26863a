"""A wire between a client and an HTTP service, on which things go wrong as a test has scripted them."""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
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
    """The connection ends after so many bytes of the answer: in good order, or by a reset."""

    after: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The connection breaks after so many bytes of the request's body; the service never hears of it."""

    after: int


@dataclass(frozen=True, slots=True)
class Stall:
    """After so many bytes of the answer nothing comes any more, until the client hangs up."""

    after: int


@dataclass(frozen=True, slots=True)
class Alter:
    """The answer is another one when it arrives: `answer` makes it of the head and the body of the real one.

    The service is asked `times`, as if the request had been doubled on its way, and the answer is that to the last one,
    or with `first` to the first.
    """

    answer: Callable[[bytes, bytes], bytes]
    times: int = 1
    first: bool = False


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


Fault = Answer | DropAnswer | CutAnswer | CutRequest | Stall | Alter | Garble | Delay | Trickle


@dataclass(frozen=True, slots=True)
class Request:
    """What came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    size: int

    @property
    def is_create_only(self) -> bool:
        """Whether it writes what has to be new. What only begins an upload has made nothing yet."""
        has_condition = self.headers.get("if-none-match") == "*" or "ifGenerationMatch=0" in self.target
        return has_condition and self.method in ("PUT", "POST") and "uploadType=resumable" not in self.target

    def asks_as(self, other: Request | None) -> bool:
        """Whether both ask for the same: dates and signatures may differ."""
        return other is not None and (self.method, self.target, self.size) == (other.method, other.target, other.size)


@dataclass(slots=True)
class _Scripted:
    fault: Fault
    method: str
    containing: str


@dataclass(slots=True)
class Wire:
    """Listens on `port` and passes everything on to the service at `upstream`, except for the faults.

    With `tls` the client's side is encrypted. Leaving the `with` fails when a scripted fault never happened. What is
    not scripted is for `chance` to decide.
    """

    upstream: int
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    checks: list[Request] = field(default_factory=list)
    """The repetition of a write that has to be new, and was accepted: by it a client finds out whether the service
    refuses it. It is not among the requests, and nothing of the script happens to it."""
    chance: Callable[[Request], Fault | None] | None = None
    forward: Callable[[bytes], bytes] = bytes
    """What arrives of the head of a request."""
    _created: Request | None = None
    _script: list[_Scripted] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _threads: list[threading.Thread] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    @property
    def under_way(self) -> int:
        """How many connections are open; each carries one request."""
        return len(self._open)

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
            if is_check := request.is_create_only and request.asks_as(self._created):
                self.checks.append(request)
                fault = self.chance(request) if self.chance else None
            else:
                self.requests.append(request)
                fault = self._take(request)
                if request.is_create_only:
                    # A repetition comes next, or it is none.
                    self._created = None
        body = self._received(client, rest, size, fault)
        if body is None:
            _reset(client)
        elif isinstance(fault, Answer):
            client.sendall(_answer(fault, head=request.method == "HEAD"))
        else:
            answer = self._answer_of(head, body, fault, is_head=request.method == "HEAD")
            if request.is_create_only and not is_check:
                # Before the client has it, who may go on at once.
                self._created = request if re.match(rb"HTTP/1\.\d 2", answer) else None
            self._pass_on(client, answer, fault)

    def _received(self, client: socket.socket, body: bytes, size: int, fault: Fault | None) -> bytes | None:
        """The body of a request, of which there is some; None when the connection is to break in the middle of it."""
        if isinstance(fault, Trickle):
            for _ in range(fault.pieces):
                time.sleep(fault.pause)
                body += client.recv(65_536)
        while not (is_cut := isinstance(fault, CutRequest) and len(body) >= fault.after) and len(body) < size:
            piece = client.recv(1 << 20)
            if not piece:
                raise ConnectionResetError("the client went away in the middle of a request")
            body += piece
        if is_cut:
            return None
        if isinstance(fault, Garble):
            return body[: fault.at] + bytes([body[fault.at] ^ 0xFF]) + body[fault.at + 1 :]
        return body

    def _answer_of(self, head: bytes, body: bytes, fault: Fault | None, *, is_head: bool) -> bytes:
        """What the fault leaves of the answer of the service."""
        answer = self._ask(head, body)
        match fault:
            case Delay():
                self._over.wait(fault.seconds)
            case Alter():
                answers = [answer, *(self._ask(head, body) for _ in range(fault.times - 1))]
                answer = fault.answer(*_framed(answers[0 if fault.first else -1], is_head=is_head))
            case CutAnswer() | Stall():
                answer = answer[: fault.after]
            case DropAnswer():
                answer = b""
        return answer

    def _pass_on(self, client: socket.socket, answer: bytes, fault: Fault | None) -> None:
        client.sendall(answer)
        if isinstance(fault, Stall):
            while not self._over.is_set() and not select.select([client], [], [], 0.05)[0]:
                pass
        if isinstance(fault, DropAnswer) or (isinstance(fault, CutAnswer) and fault.reset):
            _reset(client)

    def _take(self, request: Request) -> Fault | None:
        for each in self._script:
            if each.method in ("", request.method) and each.containing in request.target:
                self._script.remove(each)
                return each.fault
        return self.chance(request) if self.chance else None

    def _ask(self, head: bytes, body: bytes) -> bytes:
        line, _, headers = self.forward(head).partition(b"\r\n")
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


def _framed(answer: bytes, *, is_head: bool) -> tuple[bytes, bytes]:
    """Head and body of an answer, with its length instead of chunks."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if any(line.lower().replace(b" ", b"") == b"transfer-encoding:chunked" for line in lines):
        whole = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            count = int(size.partition(b";")[0], 16)
            whole, body = whole + rest[:count], rest[count + 2 :] if count else b""
        lines = [line for line in lines if not line.lower().startswith(b"transfer-encoding:")]
        body = whole
        if not is_head:
            lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n", body


def _reset(client: socket.socket) -> None:
    """Break the connection so that the other side notices an error and no orderly end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
