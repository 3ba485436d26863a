"""Stores at the emulators of all services, on wires."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SasToken
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.gs_credentials import Anonymous
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.s3_client import S3Access
from chorus_upload.storage.store import RangedStore
from tests.emulators import Azurite
from tests.gs import Service
from tests.s3 import SeaweedFS
from tests.wire import Wire

PART = 5 << 20
"""S3 takes no smaller parts."""


@dataclass(frozen=True, slots=True)
class Place:
    """A store on a wire."""

    store: RangedStore
    wire: Wire

    @property
    def for_content(self) -> str:
        """What is in the target of a request for content, and of no other GET."""
        return "alt=media" if isinstance(self.store, GsStore) else ""

    @property
    def sends_with(self) -> str:
        """The method by which a small object is sent."""
        return "POST" if isinstance(self.store, GsStore) else "PUT"


@contextmanager
def opened_place(
    service: str, fixture: Callable[[str], Any], *, retry: Retry, check: ConditionCheck | None = None
) -> Iterator[Place]:
    """An empty store at "azure", "s3" or "google", whose emulator is started by its `fixture`."""
    if service == "azure":
        azurite: Azurite = fixture("azurite")
        name = azurite.create_container()
        with Wire(azurite.port) as wire:
            credential, url = SasToken(azurite.sas(name)), azurite.url_at(wire.port)
            with AzureStore(url, name, credential=credential, retry=retry, block_size=PART, check=check) as azure:
                yield Place(azure, wire)
    elif service == "s3":
        weed: SeaweedFS = fixture("seaweedfs")
        with Wire(weed.port) as wire:
            access, url = S3Access(key_id=weed.key_id, secret=weed.secret), weed.url_at(wire.port)
            with S3Store(
                weed.create_bucket(), access=access, endpoint_url=url, retry=retry, part_size=PART, check=check
            ) as s3:
                yield Place(s3, wire)
    else:
        gcs: Service = fixture("gcs")
        with Wire(gcs.port) as wire:
            url = gcs.url_at(wire.port)
            with GsStore(
                gcs.create_bucket(), access=Anonymous(), endpoint=url, retry=retry, chunk_size=PART, check=check
            ) as gs:
                yield Place(gs, wire)
