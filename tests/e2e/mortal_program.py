"""The real program in processes of its own, which start quickly, and may be killed without a warning before a step.

A step is what the program does to the world: a transaction of the journal that changes something, a put or a delete
at a service, a file that gets a name or loses it. To start Python anew for each would take too long: one process
imports the program and then forks.
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
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

import chorus_upload
from chorus_upload.cli.app import main
from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal
from chorus_upload.storage.azure import AzureStore

KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, after how many steps, and what it said."""

    exit_code: int
    steps: int
    out: str
    err: str


class Program:
    """Runs the program as often as one likes, by way of a process that has imported it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """The root directory as this program sees it, with what is mounted for it alone."""
        return Path(f"/proc/{self._process.pid}/root")

    def run(self, *arguments: str, home: Path, die_before: int | None = None) -> Ended:
        """One run in the directory `home`, killed before its step of that number (the first is 1)."""
        order = {"home": str(home), "arguments": arguments, "die_before": die_before}
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


def _count(step: Callable[[], None]) -> None:
    """Have everything that the program does to the world counted."""
    transaction = Journal.transaction

    @contextmanager
    def counted_transaction(self: Journal) -> Iterator[Connection]:
        with transaction(self) as connection:
            database = driver(connection)
            before = database.total_changes
            yield connection
            if database.total_changes != before:
                step()

    Journal.transaction = counted_transaction  # type: ignore[method-assign]
    for name in ("put", "delete"):
        setattr(AzureStore, name, _after(step, getattr(AzureStore, name)))
    for name in ("rename", "replace", "link", "unlink"):
        setattr(os, name, _after(step, getattr(os, name), if_there=True))


def _after(step: Callable[[], None], real: Callable[..., Any], *, if_there: bool = False) -> Callable[..., Any]:
    def counted(first: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - it stands for any of them
        if not if_there or os.path.lexists(first):
            step()
        return real(first, *arguments, **options)

    return counted


def _be_the_program(order: dict[str, Any], shared: mmap.mmap, out: Path, err: Path) -> None:
    os.chdir(order["home"])
    for stream, path in ((sys.stdin, Path(os.devnull)), (sys.stdout, out), (sys.stderr, err)):
        with path.open("r" if stream is sys.stdin else "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    _count(_Steps(shared, order["die_before"]))
    code = main(order["arguments"])
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
    answer = os.fdopen(os.dup(1), "w")
    try:
        for line in iter(sys.stdin.readline, ""):
            shared = mmap.mmap(-1, 8)
            child = os.fork()
            if not child:
                _be_the_program(json.loads(line), shared, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told = Ended(code, int.from_bytes(shared[:8], "little"), out.read_text(), err.read_text())
            print(json.dumps({name: getattr(told, name) for name in Ended.__slots__}), file=answer, flush=True)
    finally:
        answer.close()
        out.unlink(missing_ok=True)
        err.unlink(missing_ok=True)


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
