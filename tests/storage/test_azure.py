"""What is particular to Azure: evidence, retries, refusals, and that nothing secret ever shows."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import ssl
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chorus_upload.errors import (
    AccessDenied,
    ConfigError,
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import (
    AccountKey,
    Anonymous,
    AzureCredential,
    ConnectionString,
    Login,
    SasToken,
)
from chorus_upload.storage.azure_upload import block_size_for
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import ComputedBy, Properties
from chorus_upload.storage.traffic import Traffic
from tests.emulators import MARK, Azurite
from tests.relay import Relay
from tests.wire import Answer, CutAnswer, CutRequest, Delay, DropAnswer, Garble, Trickle, Wire

MIB = 1 << 20
PATIENT = Retry(patience=20, first=0.001, longest=0.01)
NOT_PATIENT = Retry(patience=0, first=0.001)


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


@pytest.fixture
def wire(azurite: Azurite) -> Iterator[Wire]:
    with Wire(azurite.port) as opened:
        yield opened


@pytest.fixture
def store(wire: Wire, azurite: Azurite, azure_container: str) -> Iterator[AzureStore]:
    """A store that is reached over the wire, with a SAS token, in blocks of 1 MiB."""
    with AzureStore(
        azurite.url_at(wire.port),
        azure_container,
        prefix="p",
        credential=SasToken(azurite.sas(azure_container)),
        retry=PATIENT,
        block_size=MIB,
    ) as opened:
        yield opened


def open_with(
    azurite: Azurite, container: str, credential: AzureCredential, *, retry: Retry = NOT_PATIENT
) -> AzureStore:
    return AzureStore(azurite.account_url, container, credential=credential, retry=retry)


class TestRequests:
    def test_a_small_body_is_one_request(self, wire: Wire, store: AzureStore) -> None:
        stored = store.put("a", b"content", size=7, create_only=True)
        [request] = wire.requests
        assert request.method == "PUT"
        assert "x-ms-blob-content-md5" not in request.headers
        assert request.headers["if-none-match"] == "*"
        assert stored.checksum is not None
        assert (stored.checksum.md5, stored.checksum.computed_by) == (md5(b"content"), ComputedBy.SERVICE)

    def test_the_limit_is_still_one_request(self, wire: Wire, store: AzureStore) -> None:
        assert store.capabilities.one_request_limit == MIB
        store.put("a", io.BytesIO(bytes(MIB)), size=MIB)
        assert len(wire.requests) == 1

    def test_a_large_body_is_checked_block_by_block(self, wire: Wire, store: AzureStore, azurite: Azurite) -> None:
        content = bytes(range(256)) * (10 * 1024) + b"end"
        stored = store.put(
            "a", io.BytesIO(content), size=len(content), properties=lambda: Properties({"files": "1"}, md5=md5(content))
        )
        blocks = [each for each in wire.requests if "comp=block&" in each.target]
        assert sorted(each.size for each in blocks) == [MIB // 2 + 3, MIB, MIB]
        assert all("x-ms-content-crc64" in each.headers for each in blocks)
        assert len(wire.requests) == 5, "what is there already?, three blocks, and the list of them"
        assert stored.transit_checked
        assert stored.checksum is not None
        assert (stored.checksum.md5, stored.checksum.computed_by) == (md5(content), ComputedBy.UNKNOWN)
        found = store.stat("a")
        assert found is not None
        assert found.checksum == stored.checksum

    def test_metadata_arrives(self, store: AzureStore, azurite: Azurite, azure_container: str) -> None:
        store.put("small", b"1", size=1, properties=lambda: Properties({"tool": "x"}))
        store.put("large", io.BytesIO(bytes(2 * MIB)), size=2 * MIB, properties=lambda: Properties({"tool": "y"}))
        with azurite.service() as service, service.get_container_client(azure_container) as container:
            found = [container.get_blob_client(f"p/{key}").get_blob_properties() for key in ("small", "large")]
        assert [each.metadata for each in found] == [{"tool": "x"}, {"tool": "y"}]

    def test_lists_by_pages_of_5000(self, wire: Wire, store: AzureStore) -> None:
        assert list(store.scan("v1/")) == []
        [request] = wire.requests
        assert "maxresults=5000" in request.target
        assert "prefix=p%2Fv1%2F" in request.target

    def test_to_look_whether_it_is_there_lists_no_more_than_one_object(self, wire: Wire, store: AzureStore) -> None:
        for number in range(3):
            store.put(str(number), b"1", size=1)
        wire.requests.clear()
        store.probe()
        [request] = wire.requests
        assert "maxresults=1&" in f"{request.target}&"

    def test_a_claim_is_not_evidence(self, store: AzureStore, azurite: Azurite, azure_container: str) -> None:
        with azurite.service() as service, service.get_blob_client(azure_container, "p/a") as blob:
            blob.upload_blob(b"content")
            blob.set_http_headers(ContentSettings(content_md5=bytearray(16)))
        found = store.stat("a")
        [listed] = store.scan()
        assert found is not None
        assert found.checksum is not None
        assert found.checksum.computed_by is ComputedBy.UNKNOWN
        assert listed.checksum == found.checksum

    def test_directories_of_hierarchical_accounts_are_no_objects(
        self, store: AzureStore, azurite: Azurite, azure_container: str
    ) -> None:
        with azurite.service() as service, service.get_container_client(azure_container) as container:
            container.upload_blob("p/dir", b"", metadata={"hdi_isfolder": "true"})
            container.upload_blob("p/dir/a", b"1")
            container.upload_blob("pp/b", b"1")
        assert [each.key for each in store.scan()] == ["dir/a"]

    def test_every_thread_keeps_its_connection(self, azurite: Azurite, azure_container: str) -> None:
        credential, network = AccountKey(azurite.account, azurite.key), Network(connections=8)
        with (
            Relay(azurite.port) as relay,
            AzureStore(azurite.url_at(relay.port), azure_container, credential=credential, network=network) as store,
            ThreadPoolExecutor(8) as pool,
        ):
            list(pool.map(lambda number: store.put(str(number), b"1", size=1), range(200)))
            assert 1 < relay.connections <= 8

    @pytest.mark.parametrize(
        ("size", "expected"),
        [(9 * MIB, 8 * MIB), (50_000 * 8 * MIB, 8 * MIB), (50_000 * 8 * MIB + 1, 9 * MIB), (2 * 10**12, 39 * MIB)],
    )
    def test_blocks_grow_with_the_body(self, size: int, expected: int) -> None:
        assert block_size_for(size, at_least=8 * MIB) == expected
        assert size <= expected * 50_000


class TestFaults:
    """Each is scripted on the wire, and the wire fails the test when it did not happen."""

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_a_failing_service_is_asked_again(self, wire: Wire, store: AzureStore, status: int) -> None:
        wire.script(Answer(status), times=2)
        store.put("a", b"content", size=7, create_only=True)
        wire.script(Answer(status))
        assert store.stat("a") is not None
        wire.script(Answer(status))
        assert [each.key for each in store.scan()] == ["a"]
        wire.script(Answer(status))
        with store.open("a") as stream:
            assert stream.read() == b"content"
        wire.script(Answer(status))
        store.delete("a")
        assert store.stat("a") is None

    def test_it_is_given_the_time_it_asks_for(self, wire: Wire, azurite: Azurite, azure_container: str) -> None:
        slept: list[float] = []
        retry = Retry(sleep=slept.append, draw=lambda: 0.0)
        wire.script(Answer(503, (MARK, ("Retry-After", "7"), ("x-ms-error-code", "ServerBusy"))))
        credential = AccountKey(azurite.account, azurite.key)
        with AzureStore(azurite.url_at(wire.port), azure_container, credential=credential, retry=retry) as store:
            store.put("a", b"1", size=1)
        assert slept == [7.0]

    def test_patience_ends(self, wire: Wire, azurite: Azurite, azure_container: str) -> None:
        wire.script(Answer(503, (MARK, ("x-ms-error-code", "ServerBusy"))))
        credential = AccountKey(azurite.account, azurite.key)
        with (
            AzureStore(azurite.url_at(wire.port), azure_container, credential=credential, retry=NOT_PATIENT) as store,
            pytest.raises(TransientError, match=r"writing a.*503 ServerBusy"),
        ):
            store.put("a", b"1", size=1)

    def test_requests_that_break_off_are_sent_again(self, wire: Wire, store: AzureStore) -> None:
        wire.script(CutRequest(100_000), method="PUT")
        content = bytes(900_000)
        assert store.put("small", content, size=len(content), create_only=True).size == len(content)
        wire.script(CutRequest(100_000), containing="comp=block&")
        store.put("large", io.BytesIO(bytes(3 * MIB)), size=3 * MIB)
        assert wire.count(containing="comp=block&") == 4
        with store.open("large") as stream:
            assert stream.read() == bytes(3 * MIB)

    @pytest.mark.parametrize("after", [0, 5, 20, 60, 200, 900])
    def test_answers_that_break_off_are_asked_for_again(self, wire: Wire, store: AzureStore, after: int) -> None:
        # Breaking off within the headers is the worst: what came looks like an answer that is complete and empty.
        wire.script(CutAnswer(after), method="PUT")
        given = store.put("a", b"content", size=7)
        assert given.checksum is not None
        wire.script(CutAnswer(after), containing="comp=list")
        assert [each.etag for each in store.scan()] == [given.etag]
        wire.script(CutAnswer(min(after, 200)), method="HEAD")
        found = store.stat("a")
        assert found is not None
        assert (found.size, found.etag) == (7, given.etag)
        wire.script(CutAnswer(min(after, 200)), method="GET")
        with store.open("a") as stream:
            assert stream.read() == b"content"
        wire.script(CutAnswer(min(after, 200)), method="DELETE")
        store.delete("a")
        for where in ("comp=block&", "comp=blocklist"):
            wire.script(CutAnswer(min(after, 200)), containing=where)
        assert store.put("large", io.BytesIO(bytes(2 * MIB)), size=2 * MIB).etag

    def test_a_listing_that_breaks_off_in_the_middle_is_complete(
        self, wire: Wire, azurite: Azurite, azure_container: str
    ) -> None:
        credential = AccountKey(azurite.account, azurite.key)
        url = azurite.url_at(wire.port)
        with AzureStore(url, azure_container, credential=credential, retry=PATIENT, page_size=10) as store:
            for number in range(35):
                store.put(f"{number:02d}", b"", size=0)
            listing = store.scan()
            got = [next(listing).key]
            wire.script(CutAnswer(700), containing="comp=list", times=2)
            wire.script(Answer(503), containing="comp=list")
            got += [each.key for each in listing]
        assert got == [f"{number:02d}" for number in range(35)]

    @pytest.mark.parametrize("body", [b"", b"<html>Please log in", b"<html><body>Please log in</body></html>"])
    def test_an_answer_of_somebody_else_is_no_answer(self, wire: Wire, store: AzureStore, body: bytes) -> None:
        given = store.put("a", b"1", size=1)
        page = Answer(200, (("Content-Type", "application/xml"),), body)
        wire.script(page, containing="comp=list")
        assert [each.key for each in store.scan()] == ["a"]
        wire.script(page, method="HEAD")
        assert store.stat("a") is not None
        wire.script(page, method="PUT")
        assert store.put("b", b"1", size=1).etag != given.etag
        wire.script(page, method="GET")
        with store.open("a") as stream:
            assert stream.read() == b"1"

    def test_reading_goes_on_where_it_broke_off(self, wire: Wire, store: AzureStore) -> None:
        content = bytes(range(256)) * 20 * 1024
        store.put("a", content, size=len(content))
        with store.open("a") as stream:
            got = stream.read(10)
            wire.script(CutAnswer(500_000), method="GET")
            wire.script(Answer(503), method="GET")
            got += stream.read()
        assert got == content
        reads = [each for each in wire.requests if each.method == "GET" and "comp=" not in each.target]
        assert all(each.headers["if-match"] for each in reads[1:])

    def test_a_garbled_body_is_refused_and_sent_again(self, wire: Wire, store: AzureStore) -> None:
        wire.script(Garble(5), method="PUT")
        store.put("small", b"0123456789", size=10, create_only=True)
        wire.script(Garble(70_000), containing="comp=block&")
        store.put("large", io.BytesIO(bytes(2 * MIB)), size=2 * MIB)
        for key, content in (("small", b"0123456789"), ("large", bytes(2 * MIB))):
            with store.open(key) as stream:
                assert stream.read() == content

    def test_a_wire_that_always_garbles_is_an_integrity_error(self, wire: Wire, store: AzureStore) -> None:
        store.put("a", b"before", size=6)
        wire.script(Garble(5), method="PUT", times=3)
        with pytest.raises(IntegrityError, match="writing a"):
            store.put("a", b"0123456789", size=10)
        with store.open("a") as stream:
            assert stream.read() == b"before"

    def test_a_lost_answer_to_create_only_is_for_the_caller_to_settle(self, wire: Wire, store: AzureStore) -> None:
        wire.script(DropAnswer(), method="PUT")
        with pytest.raises(ObjectExists):
            store.put("lock", b"mine", size=4, create_only=True)
        with store.open("lock") as stream:
            assert stream.read() == b"mine"

    def test_a_lost_answer_to_an_ordinary_write_is_harmless(self, wire: Wire, store: AzureStore) -> None:
        wire.script(DropAnswer(), method="PUT")
        store.put("small", b"1", size=1)
        for where in ("comp=block&", "comp=blocklist"):
            wire.script(DropAnswer(), containing=where)
        store.put("large", io.BytesIO(bytes(3 * MIB)), size=3 * MIB)
        assert sorted(each.size for each in store.scan()) == [1, 3 * MIB]

    def test_a_lost_answer_to_a_deletion_is_success(self, wire: Wire, store: AzureStore) -> None:
        etag = store.put("lock", b"1", size=1).etag
        wire.script(DropAnswer(), method="DELETE")
        store.delete("lock", if_match=etag)
        store.put("a", b"1", size=1)
        wire.script(DropAnswer(), method="DELETE")
        store.delete("a")
        assert list(store.scan()) == []

    def test_a_slow_uplink_is_no_failure(
        self, wire: Wire, azurite: Azurite, azure_container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What counts is that something moves, so the whole may take longer than the time-out.
        monkeypatch.setattr(Traffic, "silence", lambda *_: 1.0)
        credential = AccountKey(azurite.account, azurite.key)
        with AzureStore(azurite.url_at(wire.port), azure_container, credential=credential, retry=NOT_PATIENT) as store:
            wire.script(Trickle(pieces=12, pause=0.3), method="PUT")
            store.put("a", bytes(8 * MIB), size=8 * MIB)

    def test_a_service_that_does_not_answer_is_given_up(
        self, wire: Wire, azurite: Azurite, azure_container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Traffic, "silence", lambda *_: 1.0)
        credential = AccountKey(azurite.account, azurite.key)
        with AzureStore(azurite.url_at(wire.port), azure_container, credential=credential, retry=NOT_PATIENT) as store:
            wire.script(Delay(3))
            with pytest.raises(TransientError, match="too slow"):
                store.put("a", b"1", size=1)

    def test_nobody_there(self, azurite: Azurite, azure_container: str) -> None:
        with Wire(azurite.port) as wire:
            port = wire.port
        token = SasToken(azurite.sas(azure_container))
        with AzureStore(azurite.url_at(port), azure_container, credential=token, retry=NOT_PATIENT) as store:
            for act in every_request(store):
                with pytest.raises(TransientError, match="refused"):
                    act()

    def test_no_such_host(self, azure_container: str) -> None:
        with (
            AzureStore("https://x.invalid", azure_container, credential=Anonymous(), retry=NOT_PATIENT) as store,
            pytest.raises(TransientError, match="looking at a"),
        ):
            store.stat("a")


def every_request(store: AzureStore) -> list[Callable[[], object]]:
    return [
        lambda: list(store.scan()),
        lambda: store.stat("a"),
        lambda: store.open("a"),
        lambda: store.put("a", b"1", size=1),
        lambda: store.put("a", io.BytesIO(bytes(9 * MIB)), size=9 * MIB),
        lambda: store.delete("a"),
    ]


class TestRefusals:
    def test_an_expired_token(self, azurite: Azurite, azure_container: str) -> None:
        token = azurite.sas(azure_container, valid_for=timedelta(hours=-1))
        with open_with(azurite, azure_container, SasToken(token)) as store:
            for act in every_request(store):
                with pytest.raises(CredentialsExpired, match=f"expired on {datetime.now(UTC):%Y-}") as caught:
                    act()
                assert "new SAS token" in (caught.value.hint or "")

    def test_a_token_that_lacks_a_permission(self, azurite: Azurite, azure_container: str) -> None:
        with open_with(azurite, azure_container, SasToken(azurite.sas(azure_container, permissions="cw"))) as store:
            store.put("a", b"1", size=1)
            for act in (lambda: list(store.scan()), lambda: store.stat("a"), lambda: store.open("a")):
                with pytest.raises(AccessDenied, match="403 AuthorizationPermissionMismatch") as caught:
                    act()
                assert "racwdl" in (caught.value.hint or "")

    def test_a_token_of_somewhere_else(self, azurite: Azurite, azure_container: str) -> None:
        other = azurite.sas(azurite.create_container())
        with open_with(azurite, azure_container, SasToken(other)) as store:
            for act in every_request(store):
                with pytest.raises(AccessDenied, match="403") as caught:
                    act()
                assert caught.value.hint

    def test_a_wrong_key(self, azurite: Azurite, azure_container: str) -> None:
        wrong = AccountKey(azurite.account, "AAAA" + azurite.key[4:])
        with open_with(azurite, azure_container, wrong) as store, pytest.raises(AccessDenied):
            store.stat("a")

    @pytest.mark.parametrize("key", ["not base64!", "A"])
    def test_a_key_that_is_none(self, azurite: Azurite, azure_container: str, key: str) -> None:
        with (
            open_with(azurite, azure_container, AccountKey(azurite.account, key)) as store,
            pytest.raises(AccessDenied, match="key"),
        ):
            store.stat("a")

    def test_no_credentials(self, azurite: Azurite, azure_container: str) -> None:
        with open_with(azurite, azure_container, Anonymous()) as store, pytest.raises(AccessDenied):
            store.stat("a")

    def test_a_missing_container(self, azurite: Azurite) -> None:
        with open_with(azurite, "missing", AccountKey(azurite.account, azurite.key)) as store:
            for act in every_request(store):
                with pytest.raises(ObjectNotFound, match="ContainerNotFound") as caught:
                    act()
                assert "container" in (caught.value.hint or "")

    def test_a_404_that_does_not_say_what_is_missing_is_not_an_absent_object(
        self, wire: Wire, store: AzureStore
    ) -> None:
        wire.script(Answer(404, (MARK,)), method="HEAD")
        with pytest.raises(ObjectNotFound):
            store.stat("a")

    def test_a_connection_string(self, azurite: Azurite, azure_container: str) -> None:
        credential = ConnectionString(azurite.connection_string)
        with AzureStore(None, azure_container, credential=credential, retry=NOT_PATIENT) as store:
            store.put("a", b"1", size=1)
            assert store.url == f"{azurite.account_url}/{azure_container}"

    def test_a_connection_string_with_an_expired_token(self, azurite: Azurite, azure_container: str) -> None:
        token = azurite.sas(azure_container, valid_for=timedelta(hours=-1))
        text = f"BlobEndpoint={azurite.account_url};SharedAccessSignature={token}"
        with (
            AzureStore(None, azure_container, credential=ConnectionString(text), retry=NOT_PATIENT) as store,
            pytest.raises(CredentialsExpired),
        ):
            store.stat("a")

    @pytest.mark.parametrize("text", ["", "nonsense", "AccountName=x;AccountKey", "a=b;c=d"])
    def test_a_connection_string_that_is_none(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            AzureStore(None, "c", credential=ConnectionString(text))
        assert caught.value.hint

    @pytest.mark.parametrize("url", ["", "http://account.blob.core.windows.net", "http://10.0.0.1/account"])
    def test_an_account_that_is_none_or_not_encrypted(self, url: str) -> None:
        with pytest.raises(ConfigError):
            AzureStore(url, "c", credential=SasToken("sv=1&sig=secret"))

    def test_a_login_needs_tls(self, azurite: Azurite) -> None:
        with pytest.raises(ConfigError, match="HTTPS"):
            AzureStore(azurite.account_url, "c", credential=Login())

    def test_a_leased_object(self, store: AzureStore, azurite: Azurite, azure_container: str) -> None:
        store.put("a", b"1", size=1)
        with azurite.service() as service, service.get_blob_client(azure_container, "p/a") as blob:
            blob.acquire_lease()
        with pytest.raises(StorageError, match="LeaseIdMissing") as caught:
            store.put("a", b"2", size=1)
        assert not isinstance(caught.value, PreconditionFailed)
        assert "lease" in (caught.value.hint or "")


class TestSecrets:
    """A token may be in no text that anybody could see: not in messages, tracebacks, pickles or logs."""

    SIGNATURE = "VerySecretSignature0123456789"

    def secrets_in(self, error: BaseException) -> list[str]:
        texts: list[str] = []
        pending: list[BaseException | None] = [error]
        seen: set[int] = set()
        while pending:
            each = pending.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            texts += [str(each), repr(each), repr(vars(each)), "".join(traceback.format_exception(each))]
            pending += [each.__cause__, each.__context__]
        return [text for text in texts if self.SIGNATURE in text]

    def open(self, azurite: Azurite, port: int, container: str) -> AzureStore:
        se = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        token = f"?sv=2021-06-08&sr=c&sp=racwdl&se={se}&sig={self.SIGNATURE}%3D"
        credential = SasToken(token)
        assert self.SIGNATURE not in repr(credential)
        return AzureStore(azurite.url_at(port), container, credential=credential, retry=NOT_PATIENT)

    def test_in_errors(self, azurite: Azurite, azure_container: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with Wire(azurite.port) as wire, self.open(azurite, wire.port, azure_container) as store:
            port = wire.port
            assert self.SIGNATURE not in store.url
            for fault in (
                None,
                Answer(503),
                Answer(404, (MARK,)),
                CutRequest(0),
                CutAnswer(0),
                CutAnswer(30),
                CutAnswer(600),
            ):
                for act in every_request(store):
                    if fault is not None:
                        wire.script(fault)
                    with pytest.raises(StorageError) as caught:
                        act()
                    assert self.secrets_in(caught.value) == []
                    assert self.SIGNATURE.encode() not in pickle.dumps(caught.value.args)
        with self.open(azurite, port, azure_container) as store:
            for act in every_request(store):
                with pytest.raises(TransientError) as gone:
                    act()
                assert self.secrets_in(gone.value) == []
        assert wire.requests
        assert self.SIGNATURE not in caplog.text

    def test_in_the_configuration(self) -> None:
        for credential in (AccountKey("a", self.SIGNATURE), ConnectionString(f"AccountKey={self.SIGNATURE};x")):
            assert self.SIGNATURE not in repr(credential)
            with pytest.raises(ConfigError) as caught:
                AzureStore("", "c", credential=credential)
            assert self.secrets_in(caught.value) == []


@contextmanager
def certified(directory: Path, host: str) -> Iterator[tuple[ssl.SSLContext, Path]]:
    """A server's side of TLS with a certificate that nobody has signed but itself, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    yield context, chain


class TestTls:
    def test_an_unknown_issuer_is_refused(self, azurite: Azurite, azure_container: str, scratch: Path) -> None:
        with certified(scratch, "127.0.0.1") as (tls, _), Wire(azurite.port, tls=tls) as wire:
            url = azurite.url_at(wire.port, scheme="https")
            credential = SasToken(azurite.sas(azure_container))
            with AzureStore(url, azure_container, credential=credential, retry=PATIENT) as store:
                for act in every_request(store):
                    with pytest.raises(TlsError, match="not trusted") as caught:
                        act()
                    assert "ca_bundle" in (caught.value.hint or "")
            assert wire.requests == []

    def test_one_that_the_site_trusts_is_accepted(
        self, azurite: Azurite, azure_container: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with certified(scratch, "127.0.0.1") as (tls, chain), Wire(azurite.port, tls=tls) as wire:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(chain))
            url = azurite.url_at(wire.port, scheme="https")
            credential = SasToken(azurite.sas(azure_container))
            with AzureStore(url, azure_container, credential=credential, retry=NOT_PATIENT) as store:
                store.put("a", bytes(9 * MIB), size=9 * MIB)
                assert len(list(store.scan())) == 1

    def test_a_certificate_of_another_host_is_refused(
        self, azurite: Azurite, azure_container: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with certified(scratch, "127.0.0.2") as (tls, chain), Wire(azurite.port, tls=tls) as wire:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(chain))
            url = azurite.url_at(wire.port, scheme="https")
            credential = SasToken(azurite.sas(azure_container))
            with (
                AzureStore(url, azure_container, credential=credential, retry=PATIENT) as store,
                pytest.raises(TlsError),
            ):
                store.stat("a")

    def test_a_service_without_tls_is_refused(self, azurite: Azurite, azure_container: str) -> None:
        url = azurite.url_at(azurite.port, scheme="https")
        credential = SasToken(azurite.sas(azure_container))
        with (
            AzureStore(url, azure_container, credential=credential, retry=NOT_PATIENT) as store,
            pytest.raises((TlsError, TransientError)),
        ):
            store.stat("a")

    def test_a_certificate_file_that_is_not_there(
        self, azurite: Azurite, azure_container: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(scratch / "missing.pem"))
        credential = SasToken(azurite.sas(azure_container))
        url = azurite.url_at(azurite.port, scheme="https")
        with (
            AzureStore(url, azure_container, credential=credential, retry=PATIENT) as store,
            pytest.raises(TlsError, match=r"cannot be read: .*missing\.pem"),
        ):
            store.stat("a")
