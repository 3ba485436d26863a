"""File servers on this machine: a real SFTP server and a real SMB server, each for one directory."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

USER, PASSWORD = "site", "pass word/@"


@dataclass(slots=True)
class SftpServer:
    """Serves `root` as `/` to `USER`. `cut` breaks all connections."""

    port: int
    host_key: str
    root: Path
    _loop: asyncio.AbstractEventLoop
    _connections: list[asyncssh.SSHServerConnection]

    def cut(self) -> None:
        def abort() -> None:
            while self._connections:
                self._connections.pop().abort()

        self._loop.call_soon_threadsafe(abort)

    @property
    def known_host(self) -> str:
        """Its line in `known_hosts`."""
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"


@contextmanager
def sftp_server(root: Path) -> Iterator[SftpServer]:
    """A server that lives for as long as the block."""
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    connections: list[asyncssh.SSHServerConnection] = []

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    def serve(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=os.fsencode(root))

    key = asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=serve)

    async def end(acceptor: asyncssh.SSHAcceptor) -> None:
        for each in connections:
            each.abort()
        acceptor.close()
        await acceptor.wait_closed()

    acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        public = key.export_public_key().decode().strip()
        yield SftpServer(acceptor.get_port(), public, root, loop, connections)
    finally:
        asyncio.run_coroutine_threadsafe(end(acceptor), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


_SMB = """
import sys
from impacket.smbserver import SimpleSMBServer
from impacket.ntlm import compute_lmhash, compute_nthash
root, user, password, port = sys.argv[1:]
server = SimpleSMBServer("127.0.0.1", int(port))
server.addShare("DATA", root, readOnly="yes")
server.setSMB2Support(True)
server.addCredential(user, 0, compute_lmhash(password), compute_nthash(password))
server.setLogFile("")
server.start()
"""


@contextmanager
def smb_server(root: Path) -> Iterator[int]:
    """Serves `root` as the share `DATA`; gives the port. It is a process of its own, and ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SMB, str(root), USER, PASSWORD, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, "the SMB server did not start"
                assert process.poll() is None, "the SMB server ended"
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()
