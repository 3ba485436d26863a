"""An Azure that takes everything and keeps nothing but the numbers, in a process of its own.

It answers as the real one does, as far as an upload asks: of what is sent in one request it computes the MD5, and of
blocks it repeats the checksum that comes with them. The answer to a small file may take a time, as it does over a long
line. `GET /figures` says what came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import ClassVar
from urllib.request import urlopen

_LISTING = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<EnumerationResults ServiceEndpoint="http://127.0.0.1/" ContainerName="container">'
    b"<Blobs></Blobs><NextMarker></NextMarker></EnumerationResults>"
)
_TAKEN = b'<?xml version="1.0" encoding="utf-8"?><Error><Code>BlobAlreadyExists</Code><Message>no</Message></Error>'
_NOT_THERE = b'<?xml version="1.0" encoding="utf-8"?><Error><Code>BlobNotFound</Code><Message>no</Message></Error>'


@dataclass(slots=True)
class Came:
    """What has come so far. `most_at_once` counts requests between their arrival and the end of their answer."""

    requests: int = 0
    bytes: int = 0
    at_once: int = 0
    most_at_once: int = 0


class _Connection(asyncio.Protocol):
    came: ClassVar[Came] = Came()
    delay: ClassVar[float] = 0.0
    created: ClassVar[str] = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._head = b""
        self._left = -1

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            head, _, data = self._head.partition(b"\r\n\r\n")
            self._begin(head.decode("latin-1"))
        self._left -= len(data)
        self.came.bytes += len(data)
        if self._hash:
            self._hash.update(data)
        if self._left <= 0:
            self._head, self._left = b"", -1
            if self._method == "PUT" and self._hash:
                asyncio.get_running_loop().call_later(self.delay, self._answer)
            else:
                self._answer()

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._method, self._target, _ = first.split(" ")
        self._is_new = headers.get("if-none-match") == "*"
        self._left = int(headers.get("content-length", 0))
        self._hash = hashlib.md5(usedforsecurity=False) if "x-ms-blob-type" in headers else None
        self._sums = {name: headers[name] for name in ("content-md5", "x-ms-content-crc64") if name in headers}
        if self._target != "/figures":
            self.came.requests += 1
            self.came.at_once += 1
            self.came.most_at_once = max(self.came.most_at_once, self.came.at_once)

    def _answer(self) -> None:
        status, body = "200 OK", b""
        more = ""
        if self._target == "/figures":
            body = json.dumps(asdict(self.came)).encode()
        elif self._method == "PUT" and self._is_new and self._target == _Connection.created:
            # What it was just given as something new it refuses: so a client finds out that it honours conditions.
            status, body, more = "409 Conflict", _TAKEN, "x-ms-error-code: BlobAlreadyExists\r\n"
        elif self._method == "PUT":
            status = "201 Created"
            if self._is_new:
                _Connection.created = self._target
            if self._hash:
                more = f"Content-MD5: {b64encode(self._hash.digest()).decode()}\r\n"
            elif "comp=block&" in self._target:
                more = "".join(f"{name}: {value}\r\n" for name, value in self._sums.items())
        elif "comp=list" in self._target:
            body = _LISTING
        else:
            status, body = "404 Not Found", b"" if self._method == "HEAD" else _NOT_THERE
            more = "x-ms-error-code: BlobNotFound\r\n"
        if self._target != "/figures":
            self.came.at_once -= 1
        self._transport.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/xml\r\n{more}"
            'ETag: "0x8DC000000000000"\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n'
            "x-ms-request-id: 0\r\nx-ms-request-server-encrypted: true\r\n\r\n".encode()
            + body
        )


@dataclass(frozen=True, slots=True)
class Discarding:
    """A running one."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/account"

    def figures(self) -> Came:
        with urlopen(f"http://127.0.0.1:{self.port}/figures", timeout=30) as answer:
            return Came(**json.load(answer))


@contextmanager
def running_discarding(*, delay: float = 0.0) -> Iterator[Discarding]:
    """Start one whose answers to small files take `delay` seconds, and stop exactly that one."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.discarding", str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield Discarding(int(process.stdout.readline()))
        finally:
            process.kill()


async def _serve(delay: float) -> None:
    _Connection.delay = delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # It ends with whoever started it, however that ends.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
