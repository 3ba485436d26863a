"""Real services that run on this machine for the length of a test session."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

_TOOLS = Path(__file__).parents[1] / ".tools"
_NODE = _TOOLS / "bin" / "node"
_AZURITE = _TOOLS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"

# The emulator's life hangs on a pipe that only this process holds: it ends with it, however that ends.
_END_WITH_US = "data:text/javascript,process.stdin.resume();process.stdin.on('close',()=>process.exit());"
_LISTENS = re.compile(r"successfully listens on http://127\.0\.0\.1:(\d+)")


class EmulatorMissing(Exception):
    """An emulator is not installed or does not start."""


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running Azurite. Name and key of the account are built into it and published: they are no secrets."""

    port: int
    account: str = "devstoreaccount1"
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def account_url(self) -> str:
        return self.url_at(self.port)

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={self.account_url};"
        )

    def url_at(self, port: int, *, scheme: str = "http") -> str:
        """The account's URL when the service is reached through another port (a wire)."""
        return f"{scheme}://127.0.0.1:{port}/{self.account}"

    def service(self) -> BlobServiceClient:
        """The SDK's own client with all permissions, to arrange and to look behind the scenes."""
        return BlobServiceClient(self.account_url, credential=self.key)

    def create_container(self) -> str:
        """A new container with a name that nobody else uses."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        with self.service() as service:
            service.create_container(name).close()
        return name

    def sas(self, container: str, *, permissions: str = "racwdl", valid_for: timedelta = timedelta(hours=1)) -> str:
        """A SAS token for one container; a negative `valid_for` makes one that has expired already."""
        now = datetime.now(UTC)
        return generate_container_sas(
            self.account,
            container,
            account_key=self.key,
            permission=ContainerSasPermissions.from_string(permissions),
            start=now - timedelta(days=1),
            expiry=now + valid_for,
        )


@contextmanager
def running_azurite(directory: Path) -> Iterator[Azurite]:
    """Start an Azurite that keeps everything in memory, and stop exactly that one."""
    if not (_NODE.exists() and _AZURITE.exists()):
        raise EmulatorMissing("Azurite is not installed: run scripts/tools")
    command = [str(_NODE), "--import", _END_WITH_US, str(_AZURITE), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    options = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with (
        (directory / "azurite.log").open("w") as log,
        subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=directory, text=True
        ) as process,
    ):
        try:
            yield Azurite(_port_of(process, directory / "azurite.log"))
        finally:
            process.kill()


def _port_of(process: subprocess.Popen[str], log: Path) -> int:
    """The port that the service chose, which it says in the moment it can be used."""
    said = ""
    for line in process.stdout or ():
        if found := _LISTENS.search(line):
            return int(found[1])
        said += line
    raise EmulatorMissing(f"Azurite did not start; run scripts/tools again. It said: {said}{log.read_text()}")
