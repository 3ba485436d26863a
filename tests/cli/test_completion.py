"""What the tabulator key finds, and what is proposed to who types a command without its group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chorus_upload.cli.app import main

_ASKED = """
    eval "$(chorus-upload --show-completion)"
    complete -p chorus-upload
    COMP_WORDS=(chorus-upload file up) COMP_CWORD=2
    _chorus_upload_completion chorus-upload file up
    printf '%s\\n' "${COMPREPLY[@]}"
    COMP_WORDS=(chorus-upload file upload --max) COMP_CWORD=3
    _chorus_upload_completion chorus-upload --max
    printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(script: str, home: Path) -> str:
    """Run a script by a bash that finds the program of this environment; return what it printed."""
    environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    hooked, *found = bash(_ASKED, tmp_path).splitlines()

    assert hooked == "complete -o default -F _chorus_upload_completion chorus-upload"
    assert found == ["upload", "--max-num-files"]


def test_completion_is_installed_for_the_shell_that_runs(tmp_path: Path) -> None:
    # Two commands, for bash replaces itself by a single one, and would not be found above it.
    assert "bash completion installed" in bash("chorus-upload --install-completion; true", tmp_path)

    assert bash("source ~/.bashrc; complete -p chorus-upload", tmp_path).startswith("complete -o default -F")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("verify", "'chorus-upload file verify'"),
        ("upload", "'chorus-upload file upload' or 'chorus-upload remote upload'"),
        ("mark_as_deleted", "'chorus-upload file mark-as-deleted'"),
        ("journal upload", "'chorus-upload file upload' or 'chorus-upload remote upload'"),
        ("file history", "'chorus-upload history'"),
        ("jurnal", "'journal'"),
        ("uplod", "'chorus-upload file upload' or 'chorus-upload remote upload'"),
        ("fileupload", "'chorus-upload file upload'"),
        ("verfy", "'chorus-upload file verify'"),
        ("file chekin", "'chorus-upload journal checkin'"),
        ("push", "'chorus-upload file upload' or 'chorus-upload remote upload'"),
    ],
)
def test_the_group_that_was_left_out_is_named(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = typed.split()
    assert main(words) == 2

    assert f"No such command '{words[-1]}'. Did you mean {meant}?" in capsys.readouterr().err
