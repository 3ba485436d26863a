"""A journal and a store that fail when a test wants it, or die as a process does that is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection

from chorus_upload.errors import AccessDenied, TransientError
from chorus_upload.journal.database import WriterLock
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Twin
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import Properties, StoredObject


class Killed(BaseException):
    """The process is gone: nothing that it does after this has any effect."""


class Life:
    """Counts what the process does to the world, and ends after so many steps (None: never)."""

    def __init__(self) -> None:
        self.steps_left: int | None = None
        self.journals: list[Journal] = []

    def end(self) -> None:
        """What the system does when a process has ended: it closes its files. Another life begins."""
        for journal in self.journals:
            journal.close()
        self.journals.clear()
        self.steps_left = None

    def step(self) -> None:
        """Raises Killed when the time has come, and at every step after it."""
        if self.steps_left is not None:
            if self.steps_left <= 0:
                raise Killed
            self.steps_left -= 1


class MortalJournal(Journal):
    """A journal each of whose transactions is a step."""

    life = Life()

    def __init__(
        self, path: Path, connection: Connection, lock: WriterLock | None, *, is_read_only: bool = False
    ) -> None:
        super().__init__(path, connection, lock, is_read_only=is_read_only)
        self.life.journals.append(self)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        self.life.step()
        with super().transaction() as connection:
            yield connection


class Fault(Enum):
    """What happens to a put."""

    TRANSIENT = "the service fails before anything is stored"
    DENIED = "the credential is not good any more"
    ANSWER_LOST = "it is stored, but the answer never comes"
    KILLED = "it is stored, and then this process is killed"


class FaultyStore(LocalStore):
    """A directory as a store; the n-th put meets the n-th fault, and every put and every delete is a step."""

    def __init__(self, root: Path, life: Life, faults: list[Fault | None]) -> None:
        super().__init__(root)
        self._life = life
        self._faults = faults
        self.stored: dict[str, bytes] = {}
        """All that was stored, whether the program knows of it or not."""

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        self._life.step()
        fault = self._faults.pop(0) if self._faults else None
        if fault is Fault.TRANSIENT:
            raise TransientError("the service fails")
        if fault is Fault.DENIED:
            raise AccessDenied("the credential is not good any more")
        stored = super().put(key, body, size=size, create_only=create_only, if_match=if_match)
        self.stored[key] = (Path(self.url) / key).read_bytes()
        if fault is Fault.ANSWER_LOST:
            raise TransientError("no answer")
        if fault is Fault.KILLED:
            self._life.steps_left = 0
            raise Killed
        return stored

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._life.step()
        super().delete(key, if_match=if_match)
