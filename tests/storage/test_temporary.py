"""Copies of journals that are only looked at do not stay behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chorus_upload.storage.temporary import temporary_directory

A_KILLED_COMMAND = """
import os, signal
from chorus_upload.storage.temporary import temporary_directory
with temporary_directory() as directory:
    (directory / "journal.db").write_text("patients")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_command_left_is_removed_by_the_next(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place)}
    subprocess.run([sys.executable, "-c", A_KILLED_COMMAND], env=environment, check=False)
    (left,) = place.iterdir()
    assert (left / "journal.db").exists()

    with temporary_directory() as directory:
        assert list(place.iterdir()) == [directory]
    assert list(place.iterdir()) == []


def test_what_another_command_looks_at_is_left_alone(place: Path) -> None:
    with temporary_directory() as theirs:
        (theirs / "journal.db").write_text("patients")
        with temporary_directory() as ours:
            assert set(place.iterdir()) == {theirs, ours}
        assert (theirs / "journal.db").exists()


def test_nobody_else_can_look_into_it() -> None:
    with temporary_directory() as directory:
        assert directory.stat().st_mode & 0o077 == 0
