"""Large bodies in Azure: in blocks, several at a time, going on where a try was interrupted, copied where possible."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chorus_upload.errors import ObjectExists, PreconditionFailed, StorageError, TransientError
from chorus_upload.model import Twin
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import AccountKey, AzureCredential, SasToken
from chorus_upload.storage.azure_requests import DataRequests
from chorus_upload.storage.azure_upload import LARGEST, block_size_for
from chorus_upload.storage.curl import Answer as Response
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import Properties, StoredObject
from chorus_upload.storage.traffic import Traffic
from tests.emulators import Azurite
from tests.wire import Answer, CutAnswer, Delay, DropAnswer, Fault, Garble, Wire

MIB = 1 << 20
PATIENT = Retry(patience=20, first=0.001, longest=0.01)
NOT_PATIENT = Retry(patience=0, first=0.001)


@pytest.fixture
def wire(azurite: Azurite) -> Iterator[Wire]:
    with Wire(azurite.port) as opened:
        yield opened


def connect(
    azurite: Azurite,
    container: str,
    port: int,
    *,
    credential: AzureCredential | None = None,
    retry: Retry = PATIENT,
    traffic: Traffic | None = None,
) -> AzureStore:
    return AzureStore(
        azurite.url_at(port),
        container,
        credential=credential or SasToken(azurite.sas(container)),
        prefix="p",
        retry=retry,
        network=Network(connections=4),
        traffic=traffic,
        block_size=MIB,
    )


@pytest.fixture
def store(wire: Wire, azurite: Azurite, azure_container: str) -> Iterator[AzureStore]:
    with connect(azurite, azure_container, wire.port) as opened:
        yield opened


def put(
    store: AzureStore, key: str, content: bytes, *, twin: Twin | None = None, create_only: bool = True
) -> StoredObject:
    def properties() -> Properties:
        return Properties(md5=hashlib.md5(content, usedforsecurity=False).digest())

    return store.put(
        key, io.BytesIO(content), size=len(content), create_only=create_only, properties=properties, twin=twin
    )


@pytest.mark.parametrize("trouble", [OSError, ValueError, OverflowError, AttributeError, SyntaxError, TransientError])
def test_a_receipt_that_cannot_be_left_is_nobodys_trouble(
    store: AzureStore, monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
) -> None:
    """It only saves work: neither does the file fail, nor is it tried for long."""
    really, failed = DataRequests.put, []

    def put_or_fail(
        self: DataRequests, url: str, parameters: str, headers: Sequence[str], body: bytes | memoryview
    ) -> Response:
        if body != b"1":
            return really(self, url, parameters, headers, body)
        failed.append(parameters)
        raise trouble("no receipt")

    monkeypatch.setattr(DataRequests, "put", put_or_fail)
    content = os.urandom(6 * MIB)
    assert put(store, "a", content).transit_checked
    assert content_of(store, "a") == content
    assert len(failed) == 6


def content_of(store: AzureStore, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def block_sizes(wire: Wire) -> list[int]:
    """Of the blocks that were sent, without the receipts for them: no block of a test is of one byte."""
    return [each.size for each in wire.requests if "comp=block&" in each.target and each.size != 1]


def block_of(number: int) -> str:
    """What is in the target of a request for this block, the first time, and in that for its receipt."""
    return f"blockid={b64encode(f'{number:05d}-'.encode()).decode()[:7]}"


class Veto(io.BytesIO):
    """A file that turns out to be another one after so many bytes."""

    def __init__(self, content: bytes, after: int) -> None:
        super().__init__(content)
        self._left = after

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= size or 0
        if self._left < 0:
            raise RuntimeError("it changed")
        return super().read(size)


class TestRestart:
    """A body is given up in the middle; what the service has is not sent again."""

    CONTENT = os.urandom(10 * MIB + 17)

    def give_up(self, store: AzureStore, wire: Wire, *, after: int) -> int:
        """Gives the number of blocks that were sent: those that had begun are finished, the others forgotten."""
        with pytest.raises(RuntimeError, match="it changed"):
            store.put("a", Veto(self.CONTENT, after), size=len(self.CONTENT), create_only=True)
        sent = len(block_sizes(wire))
        assert len(wire.requests) == 2 * sent + 1, "each with a receipt, after one question"
        wire.requests.clear()
        assert 0 < sent <= after // MIB
        return sent

    def test_only_what_is_missing_is_sent(self, wire: Wire, store: AzureStore) -> None:
        sent = self.give_up(store, wire, after=6 * MIB)
        assert store.stat("a") is None
        wire.requests.clear()
        stored = put(store, "a", self.CONTENT)
        assert len(block_sizes(wire)) == 11 - sent
        assert len(wire.requests) == 2 * (11 - sent) + 2, "with receipts, a question before, and the list after"
        assert stored.spared == sent * MIB
        assert stored.transit_checked
        assert content_of(store, "a") == self.CONTENT

    def test_a_changed_block_is_sent(self, wire: Wire, store: AzureStore) -> None:
        sent = self.give_up(store, wire, after=6 * MIB)
        changed = bytearray(self.CONTENT)
        changed[5] ^= 0xFF
        stored = put(store, "a", bytes(changed))
        assert len(block_sizes(wire)) == 11 - (sent - 1)
        assert stored.spared == (sent - 1) * MIB
        assert content_of(store, "a") == changed

    def test_the_same_blocks_in_another_order_are_other_blocks(self, wire: Wire, store: AzureStore) -> None:
        self.give_up(store, wire, after=6 * MIB)
        turned = self.CONTENT[MIB : 2 * MIB] + self.CONTENT[:MIB] + self.CONTENT[2 * MIB :]
        put(store, "a", turned)
        assert content_of(store, "a") == turned

    def test_a_finished_object_is_noticed_before_anything_is_sent(self, wire: Wire, store: AzureStore) -> None:
        put(store, "a", self.CONTENT)
        wire.requests.clear()
        with pytest.raises(ObjectExists):
            put(store, "a", self.CONTENT)
        assert len(wire.requests) == 1

    def test_a_lost_answer_to_the_last_request(self, wire: Wire, store: AzureStore) -> None:
        wire.script(DropAnswer(), method="PUT", containing="comp=blocklist")
        with pytest.raises(ObjectExists):
            put(store, "a", self.CONTENT)
        assert content_of(store, "a") == self.CONTENT

    def test_failing_blocks_are_repeated_and_only_those(self, wire: Wire, store: AzureStore) -> None:
        faults: tuple[Fault, ...] = (Answer(503), DropAnswer(), CutAnswer(30), Garble(70_000), Answer(500), Garble(9))
        for number, fault in enumerate(faults):
            wire.script(fault, containing=block_of(number))
        put(store, "a", self.CONTENT)
        assert len(block_sizes(wire)) == 11 + 6
        assert content_of(store, "a") == self.CONTENT

    def test_a_dead_service_leaves_the_blocks_for_the_next_run(
        self, wire: Wire, azurite: Azurite, azure_container: str
    ) -> None:
        with connect(azurite, azure_container, wire.port, retry=NOT_PATIENT) as store:
            wire.script(Answer(500), containing=block_of(5))
            with pytest.raises(TransientError):
                put(store, "a", self.CONTENT)
            sent = len(block_sizes(wire)) - 1
            wire.requests.clear()
            stored = put(store, "a", self.CONTENT)
            assert len(block_sizes(wire)) == 11 - sent
            assert stored.spared == len(self.CONTENT) - sum(block_sizes(wire))
            assert content_of(store, "a") == self.CONTENT


class TestTwoWriters:
    CONTENTS = (os.urandom(5 * MIB + 1), os.urandom(5 * MIB + 1))

    def test_one_of_them_wins_and_nothing_is_mixed(self, azurite: Azurite, azure_container: str, wire: Wire) -> None:
        for number in range(5):
            key, barrier = f"a{number}", threading.Barrier(2)

            def write(content: bytes, key: str = key, barrier: threading.Barrier = barrier) -> bool:
                with connect(azurite, azure_container, azurite.port, retry=NOT_PATIENT) as store:
                    barrier.wait()
                    try:
                        put(store, key, content)
                    except StorageError:  # it lost, early (the key is taken) or late (its blocks are gone)
                        return False
                    return True

            with ThreadPoolExecutor(2) as pool:
                won = list(pool.map(write, self.CONTENTS))
            assert sum(won) == 1
            with connect(azurite, azure_container, azurite.port) as store:
                assert content_of(store, key) == self.CONTENTS[won.index(True)]

    def test_a_replacement_meets_another_one(self, store: AzureStore) -> None:
        first = put(store, "a", self.CONTENTS[0])
        put(store, "a", self.CONTENTS[1], create_only=False)
        with pytest.raises(PreconditionFailed):
            store.put("a", io.BytesIO(self.CONTENTS[0]), size=len(self.CONTENTS[0]), if_match=first.etag)
        assert content_of(store, "a") == self.CONTENTS[1]


class TestCopies:
    """What the container has already is copied there, checked against the file as if it had been sent."""

    CONTENT = os.urandom(3 * MIB + 5)

    @pytest.fixture(params=[CONTENT, CONTENT[:70_000]], ids=["large", "small"])
    def content(self, request: pytest.FixtureRequest) -> bytes:
        return bytes(request.param)

    @pytest.mark.parametrize("signed_by", ["token", "key"])
    def test_no_byte_of_it_is_sent(
        self, wire: Wire, azurite: Azurite, azure_container: str, content: bytes, signed_by: str
    ) -> None:
        key = AccountKey(azurite.account, azurite.key)
        with connect(azurite, azure_container, wire.port, credential=key if signed_by == "key" else None) as store:
            original = put(store, "old/name", content)
            wire.requests.clear()
            stored = put(store, "new name/ä", content, twin=Twin("old/name", original.etag))
            assert sum(block_sizes(wire)) == 0
            assert stored.spared == len(content)
            assert stored.transit_checked
            assert stored.checksum is not None
            assert stored.checksum.md5 == hashlib.md5(content, usedforsecurity=False).digest()
            assert content_of(store, "new name/ä") == content

    def test_one_that_is_gone(self, store: AzureStore, content: bytes) -> None:
        assert put(store, "b", content, twin=Twin("a", "0x8D")).spared == 0
        assert content_of(store, "b") == content

    def test_one_that_was_written_again(self, store: AzureStore, content: bytes) -> None:
        original = put(store, "a", content)
        put(store, "a", content[::-1], create_only=False)
        assert put(store, "b", content, twin=Twin("a", original.etag)).spared == 0
        assert content_of(store, "b") == content

    def test_one_with_other_content(self, store: AzureStore, content: bytes) -> None:
        other = put(store, "a", content[:-1] + bytes([content[-1] ^ 1]))
        put(store, "b", content, twin=Twin("a", other.etag))
        assert content_of(store, "b") == content

    def test_a_shorter_one(self, store: AzureStore, content: bytes) -> None:
        other = put(store, "a", content[: len(content) // 2])
        put(store, "b", content, twin=Twin("a", other.etag))
        assert content_of(store, "b") == content

    def test_an_empty_body_is_not_worth_it(self, wire: Wire, store: AzureStore) -> None:
        assert put(store, "b", b"", twin=Twin("a", "0x8D")).size == 0
        assert len(wire.requests) == 1

    def test_trouble_on_the_way_is_met_by_patience(self, wire: Wire, store: AzureStore, content: bytes) -> None:
        original = put(store, "a", content)
        wire.script(Answer(503), containing="comp=block&")
        wire.script(DropAnswer(), containing="comp=block&")
        assert put(store, "b", content, twin=Twin("a", original.etag)).spared == len(content)
        assert content_of(store, "b") == content


class TestProperties:
    @pytest.mark.parametrize("size", [10, 2 * MIB])
    @pytest.mark.parametrize("tier", ["Cool", "Cold", "Archive"])
    def test_the_tier(self, store: AzureStore, azurite: Azurite, azure_container: str, size: int, tier: str) -> None:
        body = io.BytesIO(bytes(size))
        store.put("a", body, size=size, properties=lambda: Properties({"x": "1"}, tier))
        with azurite.service() as service, service.get_blob_client(azure_container, "p/a") as blob:
            found = blob.get_blob_properties()
        assert (found.blob_tier, found.metadata) == (tier, {"x": "1"})

    @pytest.mark.parametrize("size", [10, 2 * MIB])
    def test_they_are_asked_for_when_the_body_was_read(self, store: AzureStore, size: int) -> None:
        body = io.BytesIO(bytes(size))
        at: list[int] = []

        def properties() -> Properties:
            at.append(body.tell())
            return Properties()

        store.put("a", body, size=size, properties=properties)
        assert set(at) == {size}


class TestMemory:
    def test_blocks_wait_for_room(self, wire: Wire, azurite: Azurite, azure_container: str) -> None:
        traffic = Traffic(4, most_bytes=2 * MIB)
        wire.script(Delay(0.2), containing="comp=block&", times=4)
        content = bytes(8 * MIB)
        ahead: list[int] = []

        class Watched(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                ahead.append(self.tell() // MIB - len(block_sizes(wire)))
                return super().read(size)

        with connect(azurite, azure_container, wire.port, traffic=traffic) as store:
            store.put("a", Watched(content), size=len(content))
        assert max(ahead) <= 2


class TestPlanning:
    """No file that an object can hold is too large for the plan, and none is begun that it cannot."""

    @pytest.mark.parametrize("size", [1, 8 * MIB, 500 * 10**9, 16 * 10**12, LARGEST - 1, LARGEST])
    def test_every_size_fits(self, size: int) -> None:
        block_size = block_size_for(size, at_least=8 * MIB)
        assert -(-size // block_size) <= 50_000
        assert block_size <= 4000 * MIB

    def test_the_largest_is_190_7_tebibytes(self) -> None:
        assert round(LARGEST / 2**40, 1) == 190.7
        with pytest.raises(StorageError, match="more than"):
            block_size_for(LARGEST + 1, at_least=8 * MIB)

    def test_sparse_files(self, scratch: Path) -> None:
        for size in (500 * 10**9, 8 * 10**12):
            path = scratch / str(size)
            with path.open("wb") as file:
                file.truncate(size)
            found = path.stat()
            assert found.st_blocks * 512 < MIB
            assert -(-found.st_size // block_size_for(found.st_size, at_least=8 * MIB)) <= 50_000

    def test_one_that_is_too_large_is_not_begun(self, wire: Wire, store: AzureStore) -> None:
        with pytest.raises(StorageError, match="more than"):
            store.put("a", io.BytesIO(b""), size=LARGEST + 1)
        assert not wire.requests
