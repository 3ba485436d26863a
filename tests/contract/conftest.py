"""Every store that the contract is held against. To add one, add a Place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import AccountKey
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.gs_credentials import Anonymous
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.s3_client import S3Access
from chorus_upload.storage.store import Store
from tests.emulators import Azurite
from tests.gs import Service
from tests.s3 import SeaweedFS

IMPATIENT = Retry(patience=10, first=0.01, longest=0.05)


@dataclass(frozen=True, slots=True)
class Place:
    """One empty place, which can be opened any number of times, and a place that does not exist."""

    kind: str
    open: Callable[[], Store]
    open_missing: Callable[[], Store]


@pytest.fixture(params=["local", "azure", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        root = tmp_path / "store"
        root.mkdir()
        return Place("local", lambda: LocalStore(root), lambda: LocalStore(tmp_path / "missing"))
    if request.param == "s3":
        if request.node.name == "test_of_many_creators_one_wins[s3-9437184]":
            # Raced for in tests/storage/test_s3.py, where a wire brings completions one after the other.
            pytest.xfail("SeaweedFS looks and then writes when it completes an upload in parts; for a PUT it does not")
        return s3_place(request.getfixturevalue("seaweedfs"), request.getfixturevalue("s3_bucket"))
    if request.param == "gs":
        return gs_place(request.getfixturevalue("gcs"), request.getfixturevalue("gs_bucket"))
    azurite: Azurite = request.getfixturevalue("azurite")
    container: str = request.getfixturevalue("azure_container")

    def open_azure(container: str) -> Store:
        return AzureStore(
            azurite.account_url,
            container,
            prefix="some/prefix",
            credential=AccountKey(azurite.account, azurite.key),
            retry=IMPATIENT,
            page_size=100,
        )

    return Place("azure", lambda: open_azure(container), lambda: open_azure("missing"))


def s3_place(service: SeaweedFS, bucket: str) -> Place:
    access = S3Access(key_id=service.key_id, secret=service.secret)

    def open_s3(bucket: str) -> Store:
        return S3Store(
            bucket, access=access, prefix="some/prefix", endpoint_url=service.url, retry=IMPATIENT, page_size=100
        )

    return Place("s3", lambda: open_s3(bucket), lambda: open_s3("missing"))


def gs_place(service: Service, bucket: str) -> Place:
    def open_gs(bucket: str) -> Store:
        return GsStore(
            bucket, access=Anonymous(), prefix="some/prefix", endpoint=service.url, retry=IMPATIENT, page_size=100
        )

    return Place("gs", lambda: open_gs(bucket), lambda: open_gs("missing"))


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened
