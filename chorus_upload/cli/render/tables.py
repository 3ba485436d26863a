"""What is to be shown at the end of a command, and how it looks without a terminal.

A report says what; `plain_table` and the terminal's own table say how.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from chorus_upload.cli.render.text import printable


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, already in words. `emphasis` is `total`, `bad` or empty."""

    cells: tuple[str, ...]
    emphasis: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; every row has as many cells as there are columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a command for a person. Any part may be empty; `next_step` is a command without the program.

    `data` says that it was asked for by itself (`journal list`) and is shown even when the user wants quiet.
    """

    heading: str = ""
    table: Table | None = None
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    next_step: str = ""
    data: bool = field(default=False, kw_only=True)


_GAP = "  "


def plain_table(table: Table) -> list[str]:
    """Return aligned lines without colours or boxes."""
    rows = [tuple(column.heading for column in table.columns)]
    rows += [tuple(printable(cell) for cell in row.cells) for row in table.rows]
    widths = [max(map(_width, cells)) for cells in zip(*rows, strict=True)]
    lines = [_aligned(row, widths, table.columns) for row in rows]
    lines.insert(1, _GAP.join("-" * width for width in widths))
    return lines


def _aligned(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    parts = []
    for cell, width, column in zip(cells, widths, columns, strict=True):
        padding = " " * (width - _width(cell))
        parts.append(padding + cell if column.numeric else cell + padding)
    return _GAP.join(parts).rstrip()


def _width(text: str) -> int:
    """Columns that text takes: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) != 0 for character in text)
