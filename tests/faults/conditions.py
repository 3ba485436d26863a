"""Under what a run of the program has to work: wrong clocks and limits. Called in its process (see `Condition`)."""

from __future__ import annotations

import errno
import os
import resource
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self


def clock(ahead: float, jump: float = 0.0, after: int = 1_000_000) -> None:
    """The clock of this machine is so many seconds ahead; when it was asked so often, it jumps by so many more.

    What goes on steadily (`time.monotonic`) does so here, too, and the file system has a clock of its own.
    """
    really_ns, really_now = time.time_ns, datetime.now
    asked = 0

    def off() -> float:
        nonlocal asked
        asked += 1
        return ahead + (jump if asked > after else 0.0)

    def time_ns() -> int:
        return really_ns() + int(off() * 1e9)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            moment = really_now(tz) + timedelta(seconds=off())
            return cls.combine(moment.date(), moment.timetz())

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    for name, module in list(sys.modules.items()):
        if name.startswith("chorus_upload") and getattr(module, "datetime", None) is datetime:
            module.datetime = Wrong  # type: ignore[attr-defined]


def limit(what: str, most: int) -> None:
    """No more than so many of what a constant of `resource` names ("RLIMIT_NOFILE", …)."""
    resource.setrlimit(getattr(resource, what), (most, most))


def environment(**variables: str) -> None:
    """These variables are set."""
    os.environ.update(variables)


def no_threads_after(number: int) -> None:
    """So many threads can be started, and no more."""
    really, started = threading.Thread.start, 0

    def start(self: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started > number:
            raise RuntimeError("can't start new thread")
        really(self)

    threading.Thread.start = start  # type: ignore[method-assign]


def peak(notes: str) -> None:
    """Have the most memory that this process had, in KiB, written down at its end."""
    exit_now = os._exit

    def end(code: int) -> Any:  # noqa: ANN401 - it does not return
        with open(notes, "w") as file:  # noqa: PTH123 - nothing may go wrong here
            file.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        exit_now(code)

    os._exit = end  # type: ignore[assignment]


def nothing_temporary() -> None:
    """There is no directory for temporary files, not even this one: all can only be read."""

    def find() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in [...]")

    tempfile._get_default_tempdir = find  # type: ignore[attr-defined]
    # What was found before is forgotten.
    tempfile.tempdir = None
