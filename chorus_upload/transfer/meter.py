"""What is being sent right now, and how much of it went out: written by senders, read by the one who reports."""

from __future__ import annotations

import threading

from chorus_upload.model import Transfer


class Meter:
    """Bytes of unfinished files. Safe to use from many threads.

    Files are told apart by their ids: in two sources there may be two of one path.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[int, int] = {}
        self._paths: dict[int, str] = {}

    def begin(self, transfer: Transfer) -> None:
        """A file is read from its beginning, maybe not for the first time."""
        with self._lock:
            self._sent[transfer.file_id] = 0
            self._paths[transfer.file_id] = transfer.path

    def add(self, transfer: Transfer, count: int) -> None:
        """Count bytes of a file that has begun."""
        with self._lock:
            self._sent[transfer.file_id] += count

    def end(self, transfer: Transfer) -> None:
        """The file is done: from now on it counts as an outcome, not here."""
        with self._lock:
            del self._sent[transfer.file_id]
            del self._paths[transfer.file_id]

    def snapshot(self) -> tuple[int, tuple[str, ...]]:
        """Bytes of all unfinished files, and their paths in the order in which they began."""
        with self._lock:
            return sum(self._sent.values()), tuple(self._paths.values())
