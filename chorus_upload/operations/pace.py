"""How often something happens that must not happen too often."""

from __future__ import annotations

import time


class Pace:
    """Says `is_due` at most once in so many seconds; the first time after that many, not at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
