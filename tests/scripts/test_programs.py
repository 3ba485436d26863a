"""What holds for every program in scripts/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = [
    path
    for folder in ("scripts", ".ci")
    for path in sorted((ROOT / folder).iterdir())
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash\n")
]


def test_the_programs_are_found() -> None:
    assert {"bench", "demo", "environment", "run", "test", "tools"} <= {path.name for path in BASH}


@pytest.mark.parametrize("path", BASH, ids=lambda path: path.name)
def test_programs_can_be_run_and_stop_at_the_first_failure(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", BASH, ids=lambda path: path.name)
def test_programs_are_shellcheck_clean(path: Path) -> None:
    beside_python = str(Path(sys.executable).parent)
    shellcheck = shutil.which("shellcheck", path=beside_python) or shutil.which("shellcheck")
    assert shellcheck is not None, "shellcheck is in the test dependencies: run scripts/test"
    result = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
    assert result.stdout == ""
