"""The demonstration: what it shows is what happens, and it touches nothing but its own directory."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Elsewhere the demonstration would first make an environment of its own.
in_our_environment = pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="the tests do not run in the checkout's own .venv"
)


def demo(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "demo", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def shown(output: str, command: str) -> list[list[str]]:
    """What was printed below each time that a command ending in `command` was shown."""
    sections = output.split("\n$ ")[1:]
    return [section.strip().splitlines()[1:] for section in sections if section.splitlines()[0].endswith(command)]


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["--keep"], ["--keep", ""]])
def test_it_refuses_what_it_does_not_know(arguments: list[str], tmp_path: Path) -> None:
    result = demo(*arguments, cwd=tmp_path)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("demo: ")


def test_it_removes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    result = demo("--keep", tmp_path, cwd=tmp_path)

    assert result.returncode == 2
    assert "is not empty" in result.stderr
    assert (tmp_path / "thesis.tex").exists()


@in_our_environment
@pytest.mark.parametrize(
    "store",
    [
        pytest.param([], id="directory", marks=pytest.mark.thorough),
        pytest.param(["--azurite"], id="azurite", marks=pytest.mark.thorough),
    ],
)
def test_after_a_change_only_the_changed_and_the_new_file_go(store: list[str], tmp_path: Path) -> None:
    try:
        result = demo(*store, "--keep", "a demo", cwd=tmp_path)

        assert result.returncode == 0, result.stdout + result.stderr
        assert shown(result.stdout, "file list") == [["Metadata/README.md", "Metadata/corrections.txt"]]
        assert stat.S_IMODE((tmp_path / "a demo" / "config.toml").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["a demo"]
    finally:
        stopped = demo("--stop", "--keep", "a demo", cwd=tmp_path)
    assert stopped.stdout.startswith("stopped the emulator") == bool(store)


@pytest.mark.thorough
@in_our_environment
def test_it_can_be_run_again_over_what_it_left(tmp_path: Path) -> None:
    for _ in range(2):
        result = demo("--keep", "demo", cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
