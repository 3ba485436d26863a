"""What counts as a step of the program: everything that it does to the world, and every request to a service.

Between two steps nothing changes but memory, so a kill before each of them is a kill at every moment that matters:

- a transaction of the journal that changes something, and a copy of the journal that SQLite writes;
- a file or directory that is made, emptied, named, renamed, removed or given another time, by whatever code;
- half of every block that is written to a file of a local store, a download or a fetched journal;
- every HTTP request of any kind to any service, and every MiB of the body of one.

What SQLite does inside a transaction is its own affair, and is tested from outside (`tests/faults/test_random_kills.py`
and `test_power_cut.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection

from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal
from chorus_upload.storage import local
from chorus_upload.storage.curl import HttpClient
from chorus_upload.storage.curl_bodies import Outgoing
from chorus_upload.storage.s3_client import _Http
from chorus_upload.storage.target import Unfinished

Step = Callable[[], None]

_MADE = os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.rename", "os.link", "os.symlink", "os.truncate", "os.utime", "os.chmod"}


def count_steps(step: Step) -> None:
    """Have `step` called before every step of this process, from now on until it ends."""
    _count_transactions(step)
    _count_writes(step)
    _count_requests(step)
    sys.addaudithook(_names_of_files(step))


def _names_of_files(step: Step) -> Callable[[str, tuple[Any, ...]], None]:
    """What the system is asked to do with files, however it is asked from within Python."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        match event:
            case "open":
                path, _, flags = arguments
                if isinstance(path, int) or not flags & _MADE or str(path).startswith(("/dev/", "/proc/")):
                    return
                if flags & os.O_TRUNC or not os.path.lexists(path):
                    step()
            case "os.mkdir":
                if not os.path.lexists(arguments[0]):
                    step()
            case "os.remove":
                # Relative to a directory that is open: nobody tries that without having seen the file.
                if arguments[1] != -1 or os.path.lexists(arguments[0]):
                    step()
            case "os.rmdir":
                if arguments[1] != -1 or _is_empty(arguments[0]):
                    step()
            case event if event in _CHANGES:
                step()

    return hook


def _is_empty(path: str) -> bool:
    try:
        return not any(Path(path).iterdir())
    except OSError:
        return False


def _count_transactions(step: Step) -> None:
    transaction, copy_to = Journal.transaction, Journal.copy_to

    @contextmanager
    def counted_transaction(self: Journal) -> Iterator[Connection]:
        with transaction(self) as connection:
            database = driver(connection)
            before = database.total_changes
            yield connection
            if database.total_changes != before:
                step()

    def counted_copy(self: Journal, target: Path) -> None:
        step()
        copy_to(self, target)
        step()

    Journal.transaction = counted_transaction  # type: ignore[method-assign]
    Journal.copy_to = counted_copy  # type: ignore[method-assign]


def _count_writes(step: Step) -> None:
    """A block may be written by halves."""
    to_store, to_target, to_copy = local._write, Unfinished.write, shutil.copyfileobj

    def by_halves(write: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
        def counted(file: Any, block: bytes) -> None:  # noqa: ANN401 - of whichever of the two
            half = len(block) // 2
            if half:
                write(file, block[:half])
                step()
            write(file, block[half:])

        return counted

    def counted_copy(source: IO[bytes], target: IO[bytes], length: int = 0) -> None:
        target.write(source.read(10_000))
        target.flush()
        step()
        to_copy(source, target, length)

    local._write = by_halves(to_store)  # type: ignore[assignment]
    Unfinished.write = by_halves(to_target)  # type: ignore[assignment, method-assign]
    shutil.copyfileobj = counted_copy  # type: ignore[assignment]


def _count_requests(step: Step) -> None:
    exchange, send, read = HttpClient._exchange, _Http.send, Outgoing.read

    def counted_exchange(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as it is called
        step()
        return exchange(*arguments, **options)

    def counted_send(*arguments: Any) -> Any:  # noqa: ANN401
        step()
        return send(*arguments)

    def counted_read(self: Outgoing, most: int) -> bytes:
        before = self._at
        piece = read(self, most)
        if before and before >> 20 != self._at >> 20:
            step()
        return piece

    HttpClient._exchange = counted_exchange  # type: ignore[method-assign]
    _Http.send = counted_send
    Outgoing.read = counted_read  # type: ignore[method-assign]
