"""SeaweedFS, an S3 service that tells the truth about checksums, conditions and signatures, for a test session."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.emulators import EmulatorMissing

_WEED = Path(sys.executable).with_name("weed")
_SECONDS_TO_START = 40

# The emulator's life hangs on a pipe that only this process holds: it ends with it, however that ends.
_END_WITH_US = """
import subprocess, sys
service = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    sys.stdin.read()
finally:
    service.kill()
    service.wait()
"""


@dataclass(frozen=True)
class SeaweedFS:
    """A running service, and a key pair that opens all of it."""

    port: int
    key_id: str = "AKIATESTTESTTESTTEST"
    secret: str = "a/secret+of/the+tests"

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The service's address when it is reached through another port (a wire)."""
        return f"http://127.0.0.1:{port}"

    @cached_property
    def client(self) -> Any:  # noqa: ANN401 - made at run time by the library
        """The library's own client, to arrange and to look behind the scenes."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def create_bucket(self) -> str:
        """A new bucket with a name that nobody else uses."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        names = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {name: self.client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    def sessions(self, bucket: str) -> list[str]:
        """The keys of all multipart uploads that have not ended."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of the emulator as the cloud of a site (`tests.e2e.clouds.Cloud`), reached through `port` if given."""

    service: SeaweedFS
    name: str
    port: int | None = None

    @property
    def config(self) -> str:
        auth = f"""
endpoint_url = "{self.service.url_at(self.port or self.service.port)}"
aws_access_key_id = "{self.service.key_id}"
aws_secret_access_key = "{self.service.secret}"
"""
        return f"""
[journal.source]
path = "s3://{self.name}/journal/journal.db"

[journal.source.auth]{auth}
[central_path]
path = "s3://{self.name}/data"

[central_path.auth]{auth}
"""

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.service.secret, quote(self.service.secret, safe=""))

    def objects(self) -> dict[str, bytes]:
        return {key: body for key, body in self.service.objects(self.name).items() if not key.endswith(".backup")}

    def backups(self) -> dict[str, bytes]:
        return {key: body for key, body in self.service.objects(self.name).items() if key.endswith(".backup")}

    def put(self, key: str, content: bytes) -> None:
        self.service.client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.service.client.delete_object(Bucket=self.name, Key=key)


@contextmanager
def running_seaweedfs(directory: Path) -> Iterator[SeaweedFS]:
    """Start a SeaweedFS that keeps its data in `directory`, and stop exactly that one."""
    if not _WEED.exists():
        raise EmulatorMissing("SeaweedFS is not installed: run scripts/environment test")
    ports = _free_ports(8)
    service = SeaweedFS(ports[0])
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": service.key_id, "secretKey": service.secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
    command = [sys.executable, "-c", _END_WITH_US, str(_WEED), *_options(directory, ports)]
    with (
        (directory / "weed.log").open("w") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=directory) as process,
    ):
        try:
            _wait_for(service, process, directory / "weed.log")
            yield service
        finally:
            if process.stdin:
                process.stdin.close()
            service.client.close()


def _options(directory: Path, ports: list[int]) -> list[str]:
    places = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    places += ["filer.port", "filer.port.grpc"]
    listening = [f"-{name}={port}" for name, port in zip(places, ports, strict=True)]
    return [
        # Nothing stays of it where all programs put what they do not keep.
        f"-logdir={directory}",
        *("server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}", *listening),
        *(f"-s3.config={directory / 'identities.json'}", "-s3.autoCreateBucket=false"),
        *(f"-filer.localSocket={directory / 'filer.sock'}", f"-s3.localSocket={directory / 's3.sock'}"),
        # Other services beside it, at ports of their own, and reports to its makers.
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        # Larger pieces than usual: of a copy that it keeps in several, it gives no MD5.
        "-filer.maxMB=16",
        # Every bucket takes some volumes, whose number it derives from the size of the disk.
        *("-volume.max=10000", "-master.volumeSizeLimitMB=64"),
    ]


def _wait_for(service: SeaweedFS, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            name = service.create_bucket()
            service.client.put_object(Bucket=name, Key="ready", Body=b"1")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    raise EmulatorMissing(f"SeaweedFS did not start. It said: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]
