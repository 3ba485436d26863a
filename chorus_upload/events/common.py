"""What every operation may tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the user that belongs to no result."""

    text: str
    level: Level = Level.INFO


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.files + other.files, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class EndedEarly:
    """A command ended before its work did: how far it was.

    `verb` says what is done with files (delivered, fetched, checked); `failed` counts those that were tried and failed.
    """

    verb: str
    done: Tally
    total: Tally
    failed: int = 0
