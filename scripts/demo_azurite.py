"""An Azure emulator for the demonstration, kept running in the background until it is told to stop.

    demo_azurite.py start DIR     starts it, makes the container; prints its account URL and a SAS of thirty days
    demo_azurite.py list DIR      prints the names of what is in the container, as the emulator tells them
    demo_azurite.py stop DIR      stops the one that was started for DIR; nothing to do is no error

Its data, its log and the number of its process lie in DIR.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
PROGRAM = TOOLS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"

ACCOUNT = "devstoreaccount1"
# Every Azure emulator has this key; Microsoft publishes it. It opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "central"


def start(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    # Azurite takes no port 0. Between the probe and its start somebody could take the port: then it says so and ends.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command: list[str | Path] = [TOOLS / "bin" / "node", PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", home / "data", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    log = home / "log"
    with log.open("wb") as output:
        emulator = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=home, start_new_session=True
        )
    (home / "pid").write_text(f"{emulator.pid}\n")
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    (home / "url").write_text(f"{url}\n")
    wait_for(port, emulator, log)
    container(home).create_container()
    print(url)
    print(
        generate_container_sas(
            ACCOUNT,
            CONTAINER,
            account_key=KEY,
            permission=ContainerSasPermissions(
                read=True, add=True, create=True, write=True, delete=True, list=True, tag=True
            ),
            expiry=datetime.now(UTC) + timedelta(days=30),
        )
    )


def wait_for(port: int, emulator: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if emulator.poll() is not None:
            raise SystemExit(f"the emulator did not start:\n{log.read_text(errors='replace')}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    emulator.terminate()
    raise SystemExit(f"the emulator does not answer on port {port}; see {log}")


def container(home: Path) -> ContainerClient:
    url = (home / "url").read_text().strip()
    return ContainerClient(url, CONTAINER, credential=KEY)


def list_blobs(home: Path) -> None:
    for blob in container(home).list_blobs():
        print(blob.name)


def stop(home: Path) -> None:
    try:
        pid = int((home / "pid").read_text())
    except FileNotFoundError:
        return
    # The number may be another program's by now: only the one that serves this directory is ours.
    if str(home / "data") in command_line(pid):
        os.kill(pid, signal.SIGTERM)
        print(f"stopped the emulator (process {pid})")
    (home / "pid").unlink()


def command_line(pid: int) -> str:
    """What the process was started with; empty when there is none."""
    if Path("/proc/self").exists():  # small Linux images have no ps
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=False).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "list", "stop"))
    parser.add_argument("home", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    actions = {"start": start, "list": list_blobs, "stop": stop}
    actions[arguments.action](arguments.home.absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main())
