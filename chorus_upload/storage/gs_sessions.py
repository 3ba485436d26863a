"""What has to be remembered of uploads to Google Cloud Storage that are under way, so that they can be gone on with.

The service lists no upload sessions: who loses the address of one cannot find it again. And whoever has it can write
that one object, for a week, without any other credential. So it is kept in memory, or in a file that is its owner's
alone; it is never shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_LIFE_SECONDS = 7 * 24 * 3600
"""How long the service keeps a session."""


@dataclass(frozen=True, slots=True)
class Task:
    """One upload: to where, of what, under which conditions.

    A session belongs to a body of that size that begins like this. That all of it is the same is not known before
    the end, when the service compares its checksum with ours.
    """

    url: str
    size: int
    first_md5: bytes
    conditions: Mapping[str, object]

    @property
    def name(self) -> str:
        """A name by which the same upload is known again."""
        said = [self.url, self.size, self.first_md5.hex(), sorted(self.conditions.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


class Sessions(Protocol):
    """The addresses of sessions. May be used by many threads at once; none of it raises."""

    def find(self, task: Task) -> str | None: ...

    def keep(self, task: Task, address: str) -> None: ...

    def forget(self, task: Task) -> None: ...


class InMemory:
    """Sessions that are gone on with while this program runs."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def find(self, task: Task) -> str | None:
        return self._known.get(task.name)

    def keep(self, task: Task, address: str) -> None:
        self._known[task.name] = address

    def forget(self, task: Task) -> None:
        self._known.pop(task.name, None)


@dataclass(slots=True)
class InFile:
    """Sessions that outlive the program, in a file that only its owner can read.

    It is gone when nothing is left to be gone on with. One that cannot be read or written costs nothing but that a
    body is sent from its beginning. One process at a time may use it, like the journal beside which it lies.
    """

    path: Path
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def find(self, task: Task) -> str | None:
        with self._lock:
            found = self._read().get(task.name)
        return None if found is None else str(found[0])

    def keep(self, task: Task, address: str) -> None:
        with self._lock:
            self._write({**self._read(), task.name: (address, self.clock())})

    def forget(self, task: Task) -> None:
        with self._lock:
            known = self._read()
            if known.pop(task.name, None) is not None:
                self._write(known)

    def forget_all(self) -> None:
        """Remove the file, with what a process has left that was killed while it wrote it."""
        with self._lock, suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._beside.unlink(missing_ok=True)

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.new")

    def _read(self) -> dict[str, tuple[str, float]]:
        """What the file says, without sessions that are older than the service keeps them."""
        try:
            said = json.loads(self.path.read_bytes())
            known = {str(name): (str(address), float(kept)) for name, (address, kept) in said.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}
        oldest = self.clock() - _LIFE_SECONDS
        return {name: entry for name, entry in known.items() if entry[1] > oldest}

    def _write(self, known: Mapping[str, tuple[str, float]]) -> None:
        beside = self._beside
        with suppress(OSError):
            if not known:
                beside.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
                return
            # Whoever was killed while writing it has left one; opened anew it might keep its permissions.
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(known, file)
            beside.replace(self.path)
