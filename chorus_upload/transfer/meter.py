"""What is being sent right now, and how much of it went out: written by senders, read by the one who reports."""

from __future__ import annotations

import threading


class Meter:
    """Bytes of unfinished files by path. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, int] = {}

    def begin(self, path: str) -> None:
        with self._lock:
            self._sent[path] = 0

    def add(self, path: str, count: int) -> None:
        """Count bytes of a file that has begun."""
        with self._lock:
            self._sent[path] += count

    def end(self, path: str) -> None:
        """The file is done: from now on it counts as an outcome, not here."""
        with self._lock:
            self._sent.pop(path, None)

    def snapshot(self) -> tuple[int, tuple[str, ...]]:
        """Bytes of all unfinished files, and their paths in the order in which they began."""
        with self._lock:
            return sum(self._sent.values()), tuple(self._sent)
