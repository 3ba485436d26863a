"""A relay between clients and a service that keeps connections open, as a switch does: it only counts and forwards."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Self


@dataclass(slots=True)
class Relay:
    """Listens on `port` and forwards every connection to `upstream`.

    Towards the service bytes flow at `rate` bytes a second over all connections (None: as fast as they come), each
    piece `delay` seconds late. As a proxy it is told by CONNECT where to go, notes that in `asked` (and all of it in
    `heads`), and forwards to `upstream` all the same; unless it has a `refusal` ("403 Forbidden").
    """

    upstream: int
    rate: float | None = None
    delay: float = 0.0
    is_proxy: bool = False
    refusal: str = ""
    connections: int = 0
    passed: int = 0
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _open: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        for each in (self._server, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """Break every connection that is open."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._start(partial(self._serve, client))

    def _serve(self, client: socket.socket) -> None:
        # Small buffers, so that what was taken from the client is not far ahead of what was forwarded.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        self._open.append(client)
        try:
            if self.is_proxy and not self._is_let_through(client):
                return
            service = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:  # a client that hangs up, and a service that is gone, are no news here
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            return
        service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(service)
        self._start(partial(self._pump, service, client, towards_service=False))
        self._pump(client, service, towards_service=True)

    def _is_let_through(self, client: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return False
            head += piece
        self.heads.append(head.decode("latin-1"))
        self.asked.append(head.split(b"\r\n")[0].decode())
        status = self.refusal or "200 Connection established"
        more = "Content-Length: 0\r\nProxy-Authenticate: Basic realm=hospital\r\n" if self.refusal else ""
        client.sendall(f"HTTP/1.1 {status}\r\n{more}\r\n".encode())
        return not self.refusal

    def _pump(self, source: socket.socket, target: socket.socket, *, towards_service: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                if towards_service:
                    self._wait(len(data))
                    self.passed += len(data)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _wait(self, count: int) -> None:
        now = time.monotonic()
        if self.rate is None:
            until = now
        else:
            with self._lock:
                until = self._free_at = max(self._free_at, now) + count / self.rate
        time.sleep(max(0.0, until - now) + self.delay)
