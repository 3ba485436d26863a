"""The programs of the scripts, as they are written out but for their settings and files."""

from __future__ import annotations

from importlib.resources import files

_MARK = "@settings@"


def split_program(name: str) -> tuple[str, str]:
    """The program of that name in `programs/`, in two pieces, between which its settings belong."""
    text = (files(__package__) / "programs" / name).read_text(encoding="utf-8")
    line = next(line for line in text.splitlines(keepends=True) if _MARK in line)
    before, _, after = text.partition(line)
    return before, after
