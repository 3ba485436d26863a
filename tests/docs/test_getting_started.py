"""Whoever types the tutorial sees what it says."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.docs import shell
from tests.docs.markdown import ROOT, Block, read, sections


def steps_of(text: str) -> list[list[Block]]:
    """The blocks, each program with what it is said to print after it."""
    groups: list[list[Block]] = []
    for block in (block for each in sections(text) for block in each.blocks):
        if block.marker.startswith("not run") or block.marker == "not output":
            continue
        if block.language == "bash":
            groups.append([block])
        else:
            groups[-1].append(block)
    return groups


def test_the_tutorial(tmp_path: Path) -> None:
    # It is typed in a checkout; this one is the reader's, and stays as it is.
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    groups = steps_of(read("docs/getting-started.md"))

    said = shell.run([shell.step_of(group[0]) for group in groups], cwd=tmp_path)

    for group, output in zip(groups, said, strict=True):
        for shown in group[1:]:
            assert shell.missing_lines(shown.text, output) == [], output
    # And nothing that is left out of what it shows went wrong.
    assert "warning" not in "".join(said)
    with closing(sqlite3.connect(tmp_path / "tutorial" / "journal.db")) as journal:
        assert journal.execute("SELECT count(*) FROM delivery").fetchone() == (57,)


def test_the_tutorial_is_removed_by_removing_its_directory(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    begin = steps_of(read("docs/getting-started.md"))[0][0]

    shell.run([shell.step_of(begin)], cwd=tmp_path)

    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"scripts", "tutorial"}
