"""How fast it goes and how long it will take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 30.0
"""Older samples do not count: a rate tells how it goes now, not how it went yesterday."""

_SPACING_SECONDS = 0.5
_FILE_COST = 256 * 1024
"""What a file costs beside its bytes, in bytes: opening, asking and confirming take as long as sending these.
Without it, a million small files after a few large ones would be promised for the next minute."""


def work(*, files: int, volume: int) -> int:
    """Return what so many files with so many bytes cost together, in bytes."""
    return volume + files * _FILE_COST


@dataclass(frozen=True, slots=True)
class Pace:
    """Rates of the last half minute, and the time left. All are None until something was measured."""

    files_per_second: float | None
    bytes_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    files: int
    bytes: int
    work: int


class PaceMeter:
    """Measures one piece of work whose progress is reported as files and bytes done."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def measure(self, now: float, *, files: int, files_total: int, bytes_done: int, bytes_total: int) -> Pace:
        """Take in where the work stands at `now` (monotonic seconds) and return the pace up to it."""
        sample = _Sample(now, files, bytes_done, work(files=files, volume=bytes_done))
        if self._samples and sample.work < self._samples[-1].work:
            # Bytes of a file that failed were taken back, or other work has begun.
            self._samples.clear()
        if not self._samples or now - self._samples[-1].at >= _SPACING_SECONDS:
            self._samples.append(sample)
        while len(self._samples) > 2 and now - self._samples[0].at > WINDOW_SECONDS:
            self._samples.popleft()
        first = self._samples[0]
        elapsed = now - first.at
        if elapsed < _SPACING_SECONDS:
            return Pace(None, None, None)
        work_left = work(files=files_total - files, volume=bytes_total - bytes_done)
        work_rate = (sample.work - first.work) / elapsed
        return Pace(
            files_per_second=(sample.files - first.files) / elapsed,
            bytes_per_second=(sample.bytes - first.bytes) / elapsed,
            seconds_left=work_left / work_rate if work_rate > 0 else None,
        )
