"""How often each promise was attacked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

HERE = "tests/faults/"
_ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| (.*) \|$", re.MULTILINE)
_FIGURE = re.compile(r"([\d,]+) ([^,]+)(?:, |$)")

_THOROUGH = "thorough"
THOROUGH = bool(os.environ.get("CHORUS_EVERY_STEP"))
"""Whether all of an attack is run, and not a sample of it."""


def possible(is_possible: object, what: str) -> None:
    """An attack needs this of the machine: without it there is a skip for all to see, and a failure when thorough."""
    if not is_possible:
        (pytest.fail if THOROUGH else pytest.skip)(f"this machine does not let us {what}")


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers by what they count, as a reader of the report is to see it: `kills`, `answers lost`, `peak MB`."""

    counted: dict[str, int] = field(default_factory=dict)
    is_thorough: bool = THOROUGH
    """Whether they are of all of an attack, and not of the sample that an ordinary run takes."""

    def count(self, what: str, times: int = 1) -> None:
        """It has happened so many times more."""
        self.counted[what] = self.counted.get(what, 0) + times

    def measure(self, what: str, value: int) -> None:
        """A largest value; of several the largest is kept. `what` begins with "peak" or "longest"."""
        assert what.startswith(("peak ", "longest ")), what
        self.counted[what] = max(self.counted.get(what, 0), value)

    def add(self, counted: Mapping[str, int]) -> None:
        """What another case of the same attack has counted."""
        for what, value in counted.items():
            if what.startswith(("peak ", "longest ")):
                self.measure(what, value)
            else:
                self.count(what, value)


def from_table(table: str) -> dict[str, Figures]:
    """What `as_table` was made of."""
    return {
        f"{HERE}{test}": Figures(
            {what: int(value.replace(",", "")) for value, what in _FIGURE.findall(figures)}, run == _THOROUGH
        )
        for test, run, figures in _ROW.findall(table)
    }


def as_table(total: Mapping[str, Figures]) -> str:
    """The report, in Markdown: a row for each attack."""
    rows = [
        f"| `{test.removeprefix(HERE)}` | {_THOROUGH if figures.is_thorough else 'sample'} | "
        + ", ".join(f"{value:,} {what}" for what, value in figures.counted.items())
        + " |"
        for test, figures in sorted(total.items())
    ]
    return "\n".join(["| attack | run | figures |", "|---|---|---|", *rows])
