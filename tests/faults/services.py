"""The services that attacks are made at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.clouds import Cloud, Container
from tests.emulators import Azurite
from tests.gs import Bucket as GsBucket
from tests.gs import Service
from tests.s3 import Bucket as S3Bucket
from tests.s3 import SeaweedFS

SERVICES = ("azure", "s3", "google")


@dataclass(frozen=True, slots=True)
class Services:
    """The three services, each of which is started by its fixture when it is first needed."""

    fixture: Callable[[str], Any]
    token_file: Path

    def cloud(self, service: str) -> tuple[Cloud, int]:
        """An empty place at a service, and the port of that."""
        match service:
            case "azure":
                azurite: Azurite = self.fixture("azurite")
                name = azurite.create_container()
                return Container(azurite, name, azurite.sas(name)), azurite.port
            case "s3":
                seaweedfs: SeaweedFS = self.fixture("seaweedfs")
                return S3Bucket(seaweedfs, seaweedfs.create_bucket()), seaweedfs.port
        gcs: Service = self.fixture("gcs")
        return GsBucket(gcs, gcs.create_bucket(), self.token_file), gcs.port
