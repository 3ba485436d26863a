#!/usr/bin/env python
"""Write docs/commands.md from the commands themselves; with --check only say whether it is current (exit 1 if not)."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from typer.core import TyperGroup

from chorus_upload.cli.app import build_command, main
from chorus_upload.cli.groups import PROGRAM

TARGET = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

_INTRODUCTION = f"""\
# Commands

Written by `scripts/write_command_reference.py` from what the program says of itself; `{PROGRAM} … -h` shows the same.

`-c`, `-v`, `--json` and `--quiet` may stand before the command or after it. Commands and options may also be spelled
with underscores (`mark_as_uploaded_central`, `--max_num_files`). Exit codes are in [exit-codes.md](exit-codes.md).
"""


def command_paths(group: TyperGroup | None = None, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group that is not hidden, a group before its commands."""
    group = build_command() if group is None else group
    yield above
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if isinstance(command, TyperGroup):
            yield from command_paths(command, (*above, name))
        else:
            yield (*above, name)


def help_page(words: tuple[str, ...]) -> str:
    """Return the help page of a command as it looks on a screen with 80 columns."""
    shown = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(shown):
            main([*words, "-h"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return shown.getvalue().rstrip()


def reference() -> str:
    """Return the whole document."""
    parts = [_INTRODUCTION]
    for words in command_paths():
        heading = "#" * min(2 + max(len(words) - 1, 0), 3)
        parts.append(f"{heading} {' '.join((PROGRAM, *words))}\n\n```text\n{help_page(words)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = reference()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET.name} is not current: run scripts/{Path(__file__).name}")
    else:
        TARGET.write_text(text, encoding="utf-8", newline="\n")
