"""The real program in processes of its own, which start quickly, and may be killed without a warning at any step.

`mortal_steps` says what a step is. To start Python anew for each run would take too long: one process imports the
program, and then forks for whoever connects to its socket: `Program.run`, or `typed.py` for a command in a shell.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import pkgutil
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from select import select
from typing import Any, NoReturn

import chorus_upload
from chorus_upload.cli import app
from chorus_upload.cli.interruption import ended_by_signals
from tests.e2e import typed
from tests.e2e.mortal_steps import count_steps

KILLED = -signal.SIGKILL
_INTERRUPTED = 130
BROKEN = 125
"""The exit code of what is a fault of the test, and not of the program."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, after how many steps and seconds, and what it said."""

    exit_code: int
    steps: int
    seconds: float
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What the world does to one run: a function ("module:name") that is called in its process before it begins."""

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Running:
    """A run that has not ended, as `subprocess.Popen` has it."""

    def __init__(self, server: socket.socket, process: int) -> None:
        self._server = server
        self._process = process
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        lines = Path(f"/proc/self/fdinfo/{self._process}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))

    def send_signal(self, number: int) -> None:
        # It may have ended at this very moment.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises TimeoutError."""
        if self._exit_code is None:
            self._server.settimeout(timeout)
            self._exit_code = int(typed.end(self._server)["exit_code"])
        return self._exit_code


class Program:
    """Runs the program as often as one likes, by way of a process that has imported it and has a socket there."""

    def __init__(self, process: subprocess.Popen[bytes], address: Path) -> None:
        self._process = process
        self._address = address

    @property
    def root(self) -> Path:
        """The root directory as this program sees it, with what is mounted for it alone."""
        return Path(f"/proc/{self._process.pid}/root")

    @property
    def command(self) -> str:
        """A word that is this program in a shell, which gives it its environment, directory, streams and signals."""
        words = (sys.executable, "-I", "-S", typed.__file__, str(self._address))
        script = self._address.with_name("chorus-upload")
        if not script.exists():
            script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            script.chmod(0o700)
        return str(script)

    def run(
        self,
        *arguments: str,
        home: Path,
        die_before: int | None = None,
        signals: Sequence[tuple[float, int]] = (),
        environment: Mapping[str, str] | None = None,
        under: Sequence[Condition] = (),
    ) -> Ended:
        """One run in the directory `home`, killed before its step of that number (the first is 1).

        From outside it gets `signals`, each so many seconds after the one before it (the first after the start).
        """
        order = {
            "home": str(home),
            "arguments": arguments,
            "die_before": die_before,
            "environment": dict(environment or {}),
            "under": [(each.function, each.arguments) for each in under],
        }
        with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with socket.socket(socket.AF_UNIX) as server:
                process = typed.begin(server, str(self._address), order, (nothing, out, err))
                try:
                    _send(signals, process)
                finally:
                    os.close(process)
                ended = typed.end(server)
            for file in (out, err):
                file.seek(0)
            return Ended(**ended, out=out.read().decode(), err=err.read().decode())

    @contextmanager
    def running(self, *arguments: str, home: Path) -> Iterator[Running]:
        """One run in the directory `home` that nobody listens to, killed at the end of this block."""
        order = {"home": str(home), "arguments": arguments, "environment": {}}
        with Path(os.devnull).open("r+") as nothing, socket.socket(socket.AF_UNIX) as server:
            process = typed.begin(server, str(self._address), order, (nothing, nothing, nothing))
            run = Running(server, process)
            try:
                yield run
            finally:
                run.kill()
                run.wait(60)
                os.close(process)


@contextmanager
def running_program(*, within: Sequence[str] = (), module: str = "tests.e2e.mortal_program") -> Iterator[Program]:
    """A program that is ready to be run, `within` a command that runs others; it ends with this block.

    `module` is this one, or one that changes something about the program before it does what this one does.
    """
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        address = Path(directory) / "socket"
        listening.bind(str(address))
        listening.listen()
        with subprocess.Popen(
            [*within, sys.executable, "-m", module, str(listening.fileno())],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        ) as process:
            listening.close()
            yield Program(process, address)
            assert process.stdin
            process.stdin.close()


class _Steps:
    """Counts steps in memory that outlives this process, and ends it before the last that it may take."""

    def __init__(self, shared: mmap.mmap, die_before: int | None) -> None:
        self._shared = shared
        self._die_before = die_before
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            number = int.from_bytes(self._shared[:8], "little") + 1
            if number == self._die_before:
                os.kill(os.getpid(), signal.SIGKILL)
            self._shared[:8] = number.to_bytes(8, "little")


def _be_the_program(order: dict[str, Any], streams: Sequence[int], shared: mmap.mmap) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Anew, because they know of what kind they are.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(order["home"])
    if order.get("afresh"):
        os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    # Known beforehand: Python finds out by a file of its own, which is no step of the program.
    tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - as Python would find out
    count_steps(_Steps(shared, order.get("die_before")))
    for function, arguments in order.get("under", ()):
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(**arguments)
    code = app.main(order["arguments"])
    ended_by_signals()
    # What was left open has its warning now, which Python would give at its end.
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True, slots=True)
class _Run:
    """A process that is the program for somebody."""

    asked_by: socket.socket
    child: int
    process: int
    shared: mmap.mmap
    begun: float

    def answer(self) -> None:
        """Tell how it ended, when it has."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        steps, seconds = int.from_bytes(self.shared[:8], "little"), time.monotonic() - self.begun
        os.close(self.process)
        with self.shared, self.asked_by, suppress(BrokenPipeError):
            self.asked_by.sendall(json.dumps({"exit_code": code, "steps": steps, "seconds": seconds}).encode() + b"\n")


def serve() -> None:
    """Fork for each order that comes by the socket of that number, until standard input ends.

    Who asked gets the process, to send signals to it, and how it ended; whoever is gone before that has it killed.
    """
    gc.freeze()
    runs: dict[int, _Run] = {}
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        while True:
            asking = {run.asked_by.fileno(): run for run in runs.values()}
            for ready in select([0, listening.fileno(), *runs, *asking], [], [])[0]:
                if ready == 0:
                    return
                if ready == listening.fileno():
                    run = _begun(listening, runs.values())
                    runs[run.process] = run
                elif ready in runs:
                    runs.pop(ready).answer()
                elif asking[ready].process in runs:
                    os.kill(asking[ready].child, signal.SIGKILL)
                    runs.pop(asking[ready].process).answer()


def _begun(listening: socket.socket, others: Iterable[_Run]) -> _Run:
    """A process for the order of somebody who is connecting."""
    asked_by = listening.accept()[0]
    shared, begun = mmap.mmap(-1, 8), time.monotonic()
    _, streams, *_ = socket.recv_fds(asked_by, 1, 3)
    with asked_by.makefile() as lines:
        order = json.loads(lines.readline())
    child = os.fork()
    if not child:
        try:
            for each in (listening, asked_by, *(run.asked_by for run in others)):
                each.close()
            _be_the_program(order, streams, shared)
        except Exception:  # noqa: BLE001 - a second server must not come of it
            traceback.print_exc()
            os._exit(BROKEN)
        finally:
            # Whatever happens, an interruption before the program can hear it: not as the other process.
            os._exit(_INTERRUPTED)
    for stream in streams:
        os.close(stream)
    process = os.pidfd_open(child)
    socket.send_fds(asked_by, [b"\n"], [process])
    return _Run(asked_by, child, process, shared, begun)


def _send(signals: Sequence[tuple[float, int]], process: int) -> None:
    """Send these signals to a process, as long as it runs."""
    for seconds, number in signals:
        if select([process], [], [], seconds)[0]:
            return
        # It may have ended at this very moment.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)


def steps_to_try(number: int, *, every: int, offset: int) -> Sequence[int]:
    """Every so-manieth of that number of steps, and always the last."""
    return sorted({*range(1 + offset % every, number + 1, every), number})


def import_all() -> None:
    """What commands import when they need it, each of them would import anew."""
    for module in pkgutil.walk_packages(chorus_upload.__path__, "chorus_upload."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # The commands with their options are the same for each, and to make them takes a third of a short run.
    app.build_command = cache(app.build_command)
    app.build_command()


if __name__ == "__main__":
    import_all()
    serve()
