"""What attacks with hostile input share: chance that can be repeated, and commands that are held to good manners."""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.cli.app import main
from tests.faults.figures import THOROUGH, Figures
from tests.randomness import SEED

LONGEST = 20.0
"""Seconds after which a command on so little counts as one that hangs."""
_ACTED_UPON = frozenset(map(chr, (*range(9), *range(11, 32), *range(127, 160))))


def times(*, quick: int, thorough: int) -> int:
    return thorough if THOROUGH else quick


def cases(number: int) -> Iterator[tuple[str, random.Random]]:
    """So many sources of chance, each with the words that repeat it."""
    for case in range(number):
        yield f"CHORUS_SEED={SEED}, case {case}", random.Random(f"{SEED} {case}")  # noqa: S311 - to be repeated


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and all that it said."""

    exit_code: int
    said: str


def typed(home: Path, *arguments: str, figures: Figures) -> Ended:
    """Type a command in the directory `home`: it ends in time and in words, and nothing that it says is acted upon."""
    said, begun, before = io.StringIO(), time.monotonic(), Path.cwd()
    os.chdir(home)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            ended = Ended(main(arguments), said.getvalue())
    finally:
        os.chdir(before)
    seconds = time.monotonic() - begun
    told = f"{' '.join(arguments)[:200]}: {ended.exit_code}\n{ended.said[:2_000]}"
    assert ended.exit_code != 1, told
    assert "Traceback" not in ended.said, told
    # Into a pipe it writes names byte for byte, for other programs.
    assert arguments[:2] == ("file", "list") or not _ACTED_UPON & set(ended.said), told
    assert seconds < LONGEST, told
    figures.count("commands")
    figures.measure("longest command (ms)", int(seconds * 1_000))
    return ended


def surroundings(root: Path, *, but: tuple[Path, ...] = ()) -> dict[str, bytes | str | None]:
    """Everything below `root`, but for these directories: what files hold, where links lead."""
    found: dict[str, bytes | str | None] = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if Path(directory, name) not in but]
        for name in (*names, *files):
            path = Path(directory, name)
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            else:
                found[str(path)] = path.read_bytes() if path.is_file() else None
    return found
