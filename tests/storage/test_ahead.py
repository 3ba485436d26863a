"""Large objects of a service as files: read in parts, some of which are fetched before they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_upload.errors import TransientError
from chorus_upload.storage.ahead import AheadStream, ReadAhead
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import AccountKey
from chorus_upload.storage.cloud_source import CloudSource
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.source import FileReplaced
from chorus_upload.storage.store import StoredObject
from tests.e2e.site import wait_until
from tests.emulators import Azurite
from tests.trees import Bytes, bytes_of
from tests.wire import CutAnswer, Wire

PART = 1 << 20
BODY = bytes_of("large.h5", Bytes(10 * PART + 7))


@pytest.fixture
def wire(azurite: Azurite) -> Iterator[Wire]:
    with Wire(azurite.port) as wire:
        yield wire


@pytest.fixture
def source(azurite: Azurite, azure_container: str, wire: Wire) -> Iterator[CloudSource]:
    store = AzureStore(
        f"{azurite.url_at(wire.port)}",
        azure_container,
        credential=AccountKey(azurite.account, azurite.key),
        retry=Retry(patience=10, first=0.01, longest=0.05),
        block_size=PART,
    )
    store.put("large.h5", BODY, size=len(BODY))
    wire.requests.clear()
    with CloudSource(store, part=PART) as source:
        yield source


def test_all_of_it_comes_and_in_order(source: CloudSource, wire: Wire) -> None:
    wire.script(CutAnswer(1_000), method="GET", times=2)
    with source.open("large.h5") as stream:
        assert source.open_stat(stream).size == len(BODY)
        got = bytearray()
        while piece := stream.read(300_000):
            got += piece
    assert got == BODY


def test_parts_are_fetched_before_they_are_asked_for(source: CloudSource, wire: Wire) -> None:
    with source.open("large.h5"):
        wait_until(lambda: wire.count("GET") == 1 + AheadStream.MOST)
    # What is not read is given back, however often: others may have it fetched.
    for _ in range(20):
        source.open("large.h5").close()
    wire.requests.clear()
    with source.open("large.h5") as stream:
        wait_until(lambda: wire.count("GET") >= 1 + AheadStream.MOST)
        assert stream.read(10) == BODY[:10]


def test_many_at_once_share_what_is_ahead(source: CloudSource) -> None:
    streams = [source.open("large.h5") for _ in range(6)]
    try:
        for stream in streams:
            assert stream.read(PART) == BODY[:PART]
        for stream in streams:
            assert stream.read(PART) == BODY[PART : 2 * PART]
    finally:
        for stream in streams:
            stream.close()


def test_a_file_that_is_replaced_meanwhile(source: CloudSource, azurite: Azurite, azure_container: str) -> None:
    with source.open("large.h5") as stream:
        stream.read(PART)
        with azurite.service() as service, service.get_blob_client(azure_container, "large.h5") as blob:
            blob.upload_blob(bytes(len(BODY)), overwrite=True)
        with pytest.raises(FileReplaced):
            while stream.read(PART):
                pass


class Gappy(LocalStore):
    """A store that never gives the second part away."""

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        if offset == PART:
            raise TransientError("not now")
        return BODY[offset : offset + length]


def test_who_reads_on_after_a_failure_does_not_get_what_follows_the_gap(tmp_path: Path) -> None:
    ahead = ReadAhead(Gappy(tmp_path), part=PART, most=8)
    stored = StoredObject(key="large.h5", size=len(BODY), etag="1", time_us=0)
    with AheadStream(ahead, stored, BODY[:PART]) as stream:
        assert stream.read(PART) == BODY[:PART]
        for _ in range(3):
            with pytest.raises(TransientError):
                stream.read(PART)
    ahead.close()
