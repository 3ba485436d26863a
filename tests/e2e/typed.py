"""A command in a shell that has `mortal_program` run the program in its place. It imports nothing that takes time."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any


def begin(server: socket.socket, address: str, order: Mapping[str, Any], streams: Iterable[IO[Any]]) -> int:
    """Have the program run with these streams, and give its process (a descriptor)."""
    server.connect(address)
    socket.send_fds(server, [b"\n"], [stream.fileno() for stream in streams])
    server.sendall(json.dumps(order).encode() + b"\n")
    _, (process,), *_ = socket.recv_fds(server, 1, 1)
    return process


def end(server: socket.socket) -> dict[str, Any]:
    """How it ended."""
    with server.makefile() as lines:
        return dict(json.loads(lines.readline()))


def main(address: str, *arguments: str) -> int:
    """Run it here, with all that a shell gives to its commands."""
    here = os.getcwd()  # noqa: PTH109 - pathlib takes time to import
    order = {"home": here, "arguments": arguments, "environment": dict(os.environ), "afresh": True}
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # They wait until there is a process to have them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with socket.socket(socket.AF_UNIX) as server:
        process = begin(server, address, order, (sys.stdin, sys.stdout, sys.stderr))
        for number in signals:
            signal.signal(number, lambda number, _: signal.pidfd_send_signal(process, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        code = int(end(server)["exit_code"])
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
