"""The real program in processes of its own, which start quickly, and may be killed without a warning at any step.

`mortal_steps` says what a step is. To start Python anew for each run would take too long: one process imports the
program and then forks.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

import chorus_upload
from chorus_upload.cli.app import main
from chorus_upload.cli.interruption import ended_by_signals
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


class Program:
    """Runs the program as often as one likes, by way of a process that has imported it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """The root directory as this program sees it, with what is mounted for it alone."""
        return Path(f"/proc/{self._process.pid}/root")

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
            "signals": signals,
            "environment": dict(environment or {}),
            "under": [(each.function, each.arguments) for each in under],
        }
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def running_program(*, within: Sequence[str] = (), module: str = "tests.e2e.mortal_program") -> Iterator[Program]:
    """A program that is ready to be run, `within` a command that runs others; it ends with this block.

    `module` is this one, or one that changes something about the program before it does what this one does.
    """
    with subprocess.Popen(
        [*within, sys.executable, "-m", module],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Program(process)
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


def _be_the_program(order: dict[str, Any], shared: mmap.mmap, out: Path, err: Path) -> None:
    os.chdir(order["home"])
    os.environ.update(order["environment"])
    # Known beforehand: Python finds out by a file of its own, which is no step of the program.
    tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - as Python would find out
    for stream, path in ((sys.stdin, Path(os.devnull)), (sys.stdout, out), (sys.stderr, err)):
        with path.open("r" if stream is sys.stdin else "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    count_steps(_Steps(shared, order["die_before"]))
    for function, arguments in order["under"]:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(**arguments)
    code = main(order["arguments"])
    ended_by_signals()
    # What was left open has its warning now, which Python would give at its end.
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Read orders, one a line, and fork for each."""
    said = Path(os.environ.get("TMPDIR", "/tmp")) / f"mortal-{os.getpid()}"  # noqa: S108 - removed below
    gc.freeze()
    out, err = said.with_suffix(".out"), said.with_suffix(".err")
    out.touch()
    err.touch()
    answer = os.fdopen(os.dup(1), "w")
    try:
        for line in iter(sys.stdin.readline, ""):
            shared = mmap.mmap(-1, 8)
            child = os.fork()
            order, begun = json.loads(line), time.monotonic()
            if not child:
                try:
                    _be_the_program(order, shared, out, err)
                except Exception:  # noqa: BLE001 - a second server must not come of it
                    traceback.print_exc()
                    os._exit(BROKEN)
                finally:
                    # Whatever happens, an interruption before the program can hear it: not as the other process.
                    os._exit(_INTERRUPTED)
            _send(order["signals"], child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            steps, seconds = int.from_bytes(shared[:8], "little"), time.monotonic() - begun
            told = Ended(code, steps, seconds, out.read_text(), err.read_text())
            print(json.dumps({name: getattr(told, name) for name in Ended.__slots__}), file=answer, flush=True)
    finally:
        answer.close()
        out.unlink(missing_ok=True)
        err.unlink(missing_ok=True)


def _send(signals: Sequence[tuple[float, int]], child: int) -> None:
    """Send these signals to a process that is not waited for yet, as long as it runs."""
    if not signals:
        return
    process = os.pidfd_open(child)
    try:
        for seconds, number in signals:
            if select([process], [], [], seconds)[0]:
                return
            signal.pidfd_send_signal(process, number)
    finally:
        os.close(process)


def steps_to_try(number: int, *, every: int, offset: int) -> Sequence[int]:
    """Every so-manieth of that number of steps, and always the last."""
    return sorted({*range(1 + offset % every, number + 1, every), number})


def import_all() -> None:
    """What commands import when they need it, each of them would import anew."""
    for module in pkgutil.walk_packages(chorus_upload.__path__, "chorus_upload."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


if __name__ == "__main__":
    import_all()
    serve()
