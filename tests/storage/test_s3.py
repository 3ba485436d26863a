"""S3, beyond the contract: what is evidence, what goes on after an interruption, and what is said of trouble.

The service is SeaweedFS, which refuses wrong checksums and signatures and decides conditional PUTs in one step.
What Amazon alone answers is scripted on a wire.
"""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chorus_upload.config.bandwidth import BandwidthLimit
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
from chorus_upload.model import Twin
from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.s3_client import S3Access
from chorus_upload.storage.s3_direct import in_region
from chorus_upload.storage.s3_upload import LARGEST, part_size_for
from chorus_upload.storage.store import Checksum, ComputedBy, Properties, StoredObject
from chorus_upload.storage.traffic import Traffic
from tests.e2e.conftest import settle
from tests.e2e.racing import race
from tests.emulators import Authority
from tests.s3 import Bucket, SeaweedFS
from tests.trees import Content, build
from tests.wire import Alter, Answer, CutAnswer, Delay, DropAnswer, Garble, Request, Wire

MIB = 1 << 20
PART = 5 * MIB
"""The smallest part that S3 takes in the middle of an object."""
PATIENT = Retry(patience=20, first=0.001, longest=0.01)
NOT_PATIENT = Retry(patience=0, first=0.001)
CHECKOUT = Path(__file__).parents[2]
MARK = ("x-amz-request-id", "18ECBEC76EC21B6E")
"""What the service gives to all that it says."""


@pytest.fixture
def wire(seaweedfs: SeaweedFS) -> Iterator[Wire]:
    with Wire(seaweedfs.port) as opened:
        yield opened


def access_to(service: SeaweedFS) -> S3Access:
    return S3Access(key_id=service.key_id, secret=service.secret)


def connect(
    service: SeaweedFS,
    bucket: str,
    port: int,
    *,
    access: S3Access | None = None,
    retry: Retry = PATIENT,
    traffic: Traffic | None = None,
) -> S3Store:
    return S3Store(
        bucket,
        access=access or access_to(service),
        prefix="p",
        endpoint_url=service.url_at(port),
        retry=retry,
        network=Network(connections=3),
        traffic=traffic,
        part_size=PART,
    )


@pytest.fixture
def store(wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> Iterator[S3Store]:
    with connect(seaweedfs, s3_bucket, wire.port) as opened:
        yield opened


def put(
    store: S3Store, key: str, content: bytes, *, twin: Twin | None = None, create_only: bool = True
) -> StoredObject:
    return store.put(key, io.BytesIO(content), size=len(content), create_only=create_only, twin=twin)


def content_of(store: S3Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def parts_sent(wire: Wire) -> list[int]:
    return [each.size for each in wire.requests if each.method == "PUT" and "partNumber=" in each.target and each.size]


def refusal(status: int, code: str, message: str = "No.") -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, (("Content-Type", "application/xml"),), body.encode())


def said_to_be_encrypted(head: bytes, body: bytes) -> bytes:
    """As Amazon says it of a bucket whose objects a key of KMS encrypts. (The emulator computes SHA-256s itself.)"""
    return head.removesuffix(b"\r\n") + b"x-amz-server-side-encryption: aws:kms\r\n\r\n" + body


def said_to_be_encrypted_and_no_more(head: bytes, body: bytes) -> bytes:
    """As a service says it that takes a SHA-256, and says none."""
    return said_to_be_encrypted(re.sub(rb"(?im)^x-amz-checksum-sha256[^\r\n]*\r\n", b"", head), body)


def with_another_sha256(head: bytes, body: bytes) -> bytes:
    return re.sub(rb"(?im)^(x-amz-checksum-sha256: *)[^\r\n]*", rb"\g<1>" + b"A" * 43 + b"=", head) + body


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


class TestEvidence:
    def test_the_etag_of_a_put_is_the_md5_that_the_service_computed(self, wire: Wire, store: S3Store) -> None:
        stored = store.put("a", b"content", size=7)
        assert stored.checksum is not None
        assert stored.checksum.computed_by is ComputedBy.SERVICE
        assert stored.checksum.md5 == hashlib.md5(b"content", usedforsecurity=False).digest()
        [request] = [each for each in wire.requests if each.method == "PUT"]
        assert request.headers["content-md5"]
        assert "expect" not in request.headers

    @pytest.mark.parametrize(
        "header",
        [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption", "aws:kms:dsse"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ],
    )
    def test_not_where_it_is_encrypted_with_a_key_of_its_own(
        self, wire: Wire, store: S3Store, header: tuple[str, str]
    ) -> None:
        etag = ("ETag", '"0123456789abcdef0123456789abcdef"')
        wire.script(Answer(200, (MARK, etag, header)), method="PUT")
        stored = store.put("a", b"content", size=7)
        assert stored.checksum is None
        # It took our Content-MD5, but who knows whether that arrived: it is asked for a checksum from now on.
        assert not stored.transit_checked

    @pytest.mark.parametrize("size", [7, PART + 7])
    def test_it_is_asked_for_a_sha256_then(self, wire: Wire, store: S3Store, size: int) -> None:
        wire.chance = lambda _: Alter(said_to_be_encrypted)
        content = os.urandom(size)
        first, second = put(store, "first", content), put(store, "second", content)
        assert first.checksum is second.checksum is None
        # An upload in parts says at its beginning how it is encrypted, an upload at once only when all is there.
        assert first.transit_checked is (size > PART)
        assert second.transit_checked
        assert content_of(store, "second") == content
        assert wire.requests[-1].method == "GET"
        sent = [each for each in wire.requests if each.method == "PUT" and "/p/second" in each.target]
        assert all("x-amz-checksum-sha256" in each.headers for each in sent)

    @pytest.mark.parametrize("size", [7, PART + 7])
    def test_where_it_says_none_the_object_has_to_be_read_back(self, wire: Wire, store: S3Store, size: int) -> None:
        wire.chance = lambda _: Alter(said_to_be_encrypted_and_no_more)
        for key in ("first", "second"):
            stored = put(store, key, os.urandom(size))
            assert not stored.transit_checked
            assert stored.checksum is None

    def test_a_part_of_which_it_says_another_sha256_is_sent_again(self, wire: Wire, store: S3Store) -> None:
        wire.chance = lambda _: Alter(said_to_be_encrypted)
        wire.script(Alter(with_another_sha256), method="PUT", containing="partNumber=1")
        with pytest.raises(IntegrityError):
            put(store, "a", os.urandom(PART + 7))
        assert store.stat("a") is None

    def test_encryption_with_the_keys_of_the_service_changes_nothing(self, wire: Wire, store: S3Store) -> None:
        md5 = hashlib.md5(b"content", usedforsecurity=False)
        headers = (("ETag", f'"{md5.hexdigest()}"'), ("x-amz-server-side-encryption", "AES256"), MARK)
        wire.script(Answer(200, headers), method="PUT")
        stored = store.put("a", b"content", size=7)
        assert stored.checksum is not None
        assert stored.checksum.md5 == md5.digest()

    def test_an_md5_of_other_bytes_is_told(self, wire: Wire, store: S3Store) -> None:
        """What is there then is another object, and whoever sent it has to remove that."""
        wire.script(Answer(200, (("ETag", f'"{"0" * 32}"'), MARK)), method="PUT")
        assert store.put("a", b"content", size=7).checksum == Checksum(bytes(16), ComputedBy.SERVICE)

    def test_of_parts_there_is_no_checksum_of_the_whole(self, store: S3Store) -> None:
        given = put(store, "a", os.urandom(PART + 7))
        assert given.etag.endswith("-2")
        assert given.checksum is None
        assert given.transit_checked
        claimed = store.put(
            "b", io.BytesIO(bytes(PART + 7)), size=PART + 7, properties=lambda: Properties(md5=b"x" * 16)
        )
        assert claimed.checksum is not None
        assert claimed.checksum.computed_by is ComputedBy.UNKNOWN
        found = store.stat("a")
        assert found is not None
        assert [each.checksum for each in (found, *store.scan())] == [None, None, None]

    @pytest.mark.parametrize(("size", "containing"), [(100_000, "/p/a"), (PART + 7, "partNumber=2")])
    def test_what_is_garbled_on_the_way_is_refused_and_sent_again(
        self, wire: Wire, store: S3Store, size: int, containing: str
    ) -> None:
        wire.script(Garble(5), method="PUT", containing=containing, times=2)
        content = os.urandom(size)
        put(store, "a", content)
        assert content_of(store, "a") == content

    def test_but_not_for_ever(self, wire: Wire, store: S3Store) -> None:
        wire.script(refusal(400, "BadDigest"), method="PUT", times=3)
        with pytest.raises(IntegrityError, match="BadDigest"):
            store.put("a", b"content", size=7)
        assert store.stat("a") is None


class TestRestart:
    """A body is given up in the middle; what the service has is not sent again."""

    CONTENT = os.urandom(4 * PART + 17)

    def give_up(self, store: S3Store, wire: Wire, *, after: int) -> int:
        with pytest.raises(RuntimeError, match="it changed"):
            store.put("a", Veto(self.CONTENT, after), size=len(self.CONTENT), create_only=True)
        sent = len(parts_sent(wire))
        wire.requests.clear()
        assert 0 < sent <= after // PART
        return sent

    def test_only_what_is_missing_is_sent(
        self, wire: Wire, store: S3Store, seaweedfs: SeaweedFS, s3_bucket: str
    ) -> None:
        sent = self.give_up(store, wire, after=3 * PART)
        assert store.stat("a") is None
        stored = put(store, "a", self.CONTENT)
        assert len(parts_sent(wire)) == 5 - sent
        assert stored.spared == sent * PART
        assert stored.transit_checked
        assert content_of(store, "a") == self.CONTENT
        assert seaweedfs.sessions(s3_bucket) == []

    def test_a_changed_part_is_sent(self, wire: Wire, store: S3Store) -> None:
        sent = self.give_up(store, wire, after=3 * PART)
        changed = bytearray(self.CONTENT)
        changed[PART + 5] ^= 0xFF
        stored = put(store, "a", bytes(changed))
        assert stored.spared == max(1, sent - 1) * PART
        assert content_of(store, "a") == changed

    def test_other_content_is_not_mixed_with_it(
        self, wire: Wire, store: S3Store, seaweedfs: SeaweedFS, s3_bucket: str
    ) -> None:
        self.give_up(store, wire, after=3 * PART)
        other = os.urandom(2 * PART)
        assert put(store, "a", other).spared == 0
        assert content_of(store, "a") == other
        assert seaweedfs.sessions(s3_bucket) == [], "the abandoned one would cost for ever"

    def test_the_session_of_a_longer_name_is_another_one(
        self, wire: Wire, store: S3Store, seaweedfs: SeaweedFS, s3_bucket: str
    ) -> None:
        with pytest.raises(RuntimeError):
            store.put("ab", Veto(self.CONTENT, 3 * PART), size=len(self.CONTENT))
        assert put(store, "a", self.CONTENT).spared == 0
        assert seaweedfs.sessions(s3_bucket) == ["p/ab"]

    def test_without_permission_to_look_all_of_it_is_sent(self, wire: Wire, store: S3Store) -> None:
        self.give_up(store, wire, after=3 * PART)
        wire.script(refusal(403, "AccessDenied"), method="GET", containing="?uploads")
        assert put(store, "a", self.CONTENT).spared == 0

    def test_a_finished_object_is_noticed_before_anything_is_sent(self, wire: Wire, store: S3Store) -> None:
        put(store, "a", self.CONTENT)
        wire.requests.clear()
        with pytest.raises(ObjectExists):
            put(store, "a", self.CONTENT)
        assert [each.method for each in wire.requests] == ["HEAD"]

    @pytest.mark.parametrize("create_only", [True, False])
    def test_a_lost_answer_to_the_last_request(self, wire: Wire, store: S3Store, *, create_only: bool) -> None:
        wire.script(DropAnswer(), method="POST", containing="uploadId=")
        if create_only:
            with pytest.raises(ObjectExists):
                put(store, "a", self.CONTENT)
        else:
            put(store, "a", self.CONTENT, create_only=False)
        assert content_of(store, "a") == self.CONTENT

    def test_failing_parts_are_repeated_and_only_those(self, wire: Wire, store: S3Store) -> None:
        for fault in (Answer(503), DropAnswer(), CutAnswer(30), Garble(70_000), Answer(500)):
            wire.script(fault, containing="partNumber=")
        put(store, "a", self.CONTENT)
        assert len(parts_sent(wire)) == 5 + 5
        assert content_of(store, "a") == self.CONTENT

    def test_a_killed_process(
        self, wire: Wire, store: S3Store, seaweedfs: SeaweedFS, s3_bucket: str, tmp_path: Path
    ) -> None:
        """It is killed while it sends its third part or a later one."""
        file = tmp_path / "large"
        file.write_bytes(self.CONTENT)
        wire.script(Delay(60), containing="partNumber=3")
        with subprocess.Popen(
            [sys.executable, "-c", _SENDER, seaweedfs.url_at(wire.port), s3_bucket, str(file)],
            cwd=CHECKOUT,
            env={**os.environ, "KEY": seaweedfs.key_id, "SECRET": seaweedfs.secret},
        ) as process:
            wait_for(lambda: {1, 2} <= self.parts_held(seaweedfs, s3_bucket))
            process.kill()
        wire.forget()
        held = self.parts_held(seaweedfs, s3_bucket)
        wire.requests.clear()
        assert store.stat("a") is None
        stored = put(store, "a", self.CONTENT)
        # A part that was under way may still arrive after its sender was killed.
        assert len(parts_sent(wire)) <= 5 - len(held)
        # What is not sent is there, and nothing that is there is sent.
        assert sum(parts_sent(wire)) + stored.spared == len(self.CONTENT)
        assert stored.spared >= 2 * PART
        assert content_of(store, "a") == self.CONTENT

    def parts_held(self, service: SeaweedFS, bucket: str) -> set[int]:
        uploads = service.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return {
            part["PartNumber"]
            for each in uploads
            for part in service.client.list_parts(Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]).get(
                "Parts", []
            )
        }


_SENDER = """
import os, sys
from chorus_upload.storage.network import Network
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.s3_client import S3Access
url, bucket, path = sys.argv[1:]
access = S3Access(key_id=os.environ["KEY"], secret=os.environ["SECRET"])
with (
    S3Store(
        bucket, access=access, prefix="p", endpoint_url=url, network=Network(connections=3), part_size=5 << 20
    ) as store,
    open(path, "rb") as file,
):
    store.put("a", file, size=os.path.getsize(path), create_only=True)
"""


def wait_for(condition: object, *, seconds: float = 30) -> None:
    from tests.e2e.site import wait_until

    wait_until(condition, seconds=seconds)  # type: ignore[arg-type]


class OneCompletionAtATime(Wire):
    """SeaweedFS looks and then writes when it completes an upload in parts; Amazon does it in one step."""

    LOCK = threading.Lock()

    def _ask(self, head: bytes, body: bytes) -> bytes:
        if not head.startswith(b"POST") or b"uploadId=" not in head.partition(b"\r\n")[0]:
            return super()._ask(head, body)
        with self.LOCK:
            return super()._ask(head, body)


class TestConditions:
    @pytest.mark.parametrize("is_same", [False, True])
    def test_of_many_creators_of_a_large_object_one_wins(
        self, seaweedfs: SeaweedFS, s3_bucket: str, *, is_same: bool
    ) -> None:
        contents = [bytes([0 if is_same else name]) * (PART + 5) for name in range(4)]
        barrier = threading.Barrier(len(contents))

        def create(content: bytes) -> bool:
            with connect(seaweedfs, s3_bucket, service.port) as store:
                barrier.wait()
                try:
                    put(store, "a", content)
                except ObjectExists:
                    return False
                return True

        service = OneCompletionAtATime(seaweedfs.port)
        with service, ThreadPoolExecutor(len(contents)) as pool:
            won = list(pool.map(create, contents))
        assert sum(won) == 1
        assert seaweedfs.objects(s3_bucket) == {"p/a": contents[won.index(True)]}

    def test_a_conflict_is_looked_at_again(self, wire: Wire, store: S3Store) -> None:
        wire.script(refusal(409, "ConditionalRequestConflict"), method="PUT")
        store.put("a", b"content", size=7, create_only=True)
        assert wire.count("PUT") == 2

    def test_a_replacement_meets_another_one(self, store: S3Store) -> None:
        first = put(store, "a", b"first")
        put(store, "a", b"second", create_only=False)
        with pytest.raises(PreconditionFailed):
            store.put("a", io.BytesIO(bytes(PART + 1)), size=PART + 1, if_match=first.etag)
        assert content_of(store, "a") == b"second"

    def test_a_lost_answer_to_a_deletion(self, wire: Wire, store: S3Store) -> None:
        stored = put(store, "a", b"content")
        wire.script(DropAnswer(), method="DELETE")
        store.delete("a", if_match=stored.etag)
        assert store.stat("a") is None


class TestCopies:
    """What the bucket has already is copied there, if what the service says of the copy is our MD5."""

    CONTENT = os.urandom(PART + MIB)

    @pytest.mark.parametrize("size", [MIB, PART, PART + MIB])
    def test_no_byte_of_it_is_sent(self, wire: Wire, store: S3Store, size: int) -> None:
        content = self.CONTENT[:size]
        original = put(store, "old/name", content)
        wire.requests.clear()
        stored = put(store, "new name/ä+&", content, twin=Twin("old/name", original.etag))
        if size > MIB:
            assert parts_sent(wire) == []
            assert stored.spared == len(content)
        assert stored.transit_checked
        assert content_of(store, "new name/ä+&") == content

    def test_one_that_is_gone(self, store: S3Store) -> None:
        assert put(store, "b", self.CONTENT, twin=Twin("a", "0" * 32)).spared == 0
        assert content_of(store, "b") == self.CONTENT

    def test_one_that_was_written_again(self, store: S3Store) -> None:
        original = put(store, "a", self.CONTENT)
        put(store, "a", self.CONTENT[::-1], create_only=False)
        assert put(store, "b", self.CONTENT, twin=Twin("a", original.etag)).spared == 0
        assert content_of(store, "b") == self.CONTENT

    @pytest.mark.parametrize("size", [PART, PART + MIB])
    def test_one_with_other_content(self, store: S3Store, size: int) -> None:
        content = self.CONTENT[:size]
        other = put(store, "a", bytes([content[0] ^ 1]) + content[1:])
        put(store, "b", content, twin=Twin("a", other.etag))
        assert content_of(store, "b") == content

    def test_a_longer_one(self, store: S3Store) -> None:
        other = put(store, "a", self.CONTENT)
        assert put(store, "b", self.CONTENT[:PART], twin=Twin("a", other.etag)).spared == 0
        assert content_of(store, "b") == self.CONTENT[:PART]


@pytest.mark.parametrize(
    ("address", "moved"),
    [
        ("https://bucket.s3.amazonaws.com", "https://bucket.s3.eu-west-1.amazonaws.com"),
        ("https://bucket.s3.us-east-1.amazonaws.com", "https://bucket.s3.eu-west-1.amazonaws.com"),
        ("https://bucket.s3-us-west-2.amazonaws.com", "https://bucket.s3.eu-west-1.amazonaws.com"),
        ("https://s3.us-east-1.amazonaws.com/a.bucket", "https://s3.eu-west-1.amazonaws.com/a.bucket"),
        ("https://s3.hub.example.org/bucket", "https://s3.hub.example.org/bucket"),
    ],
)
def test_a_bucket_that_is_in_another_region(address: str, moved: str) -> None:
    assert in_region(address, "eu-west-1") == moved


class TestTrouble:
    @pytest.mark.parametrize("fault", [Answer(503), Answer(500), Answer(429), DropAnswer(), CutAnswer(20)])
    def test_what_passes_is_waited_for(self, wire: Wire, store: S3Store, fault: Answer | DropAnswer) -> None:
        for method in ("PUT", "HEAD", "GET"):
            wire.script(fault, method=method)
        stored = store.put("a", b"content", size=7)
        found = store.stat("a")
        assert found is not None
        assert found.etag == stored.etag
        assert content_of(store, "a") == b"content"
        wire.script(fault, method="GET", containing="list-type=2")
        assert [each.key for each in store.scan()] == ["a"]

    @pytest.mark.parametrize("code", ["SlowDown", "RequestTimeout"])
    def test_what_the_service_calls_passing_is(self, wire: Wire, store: S3Store, code: str) -> None:
        wire.script(refusal(400, code), method="PUT")
        store.put("a", b"content", size=7)
        assert wire.count("PUT") == 2

    def test_as_long_as_the_service_asks_for(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        waits: list[float] = []
        retry = Retry(patience=60, first=0.001, sleep=waits.append)
        with connect(seaweedfs, s3_bucket, wire.port, retry=retry) as store:
            wire.script(Answer(503, (("Retry-After", "7"), MARK)), method="HEAD")
            wire.script(Answer(503, (("Retry-After", "7"), MARK)), method="GET")
            assert store.stat("a") is None
        assert [round(each) for each in waits] == [7]

    def test_patience_ends(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        wire.script(Answer(503), method="PUT")
        with connect(seaweedfs, s3_bucket, wire.port, retry=NOT_PATIENT) as store, pytest.raises(TransientError):
            store.put("a", b"content", size=7)

    def test_nobody_answers(self, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        with connect(seaweedfs, s3_bucket, 1, retry=NOT_PATIENT) as store:
            with pytest.raises(TransientError, match="looking at a"):
                store.stat("a")
            with pytest.raises(TransientError, match="listing"):
                store.probe()

    def test_the_page_of_somebody_else_is_no_listing(self, wire: Wire, store: S3Store) -> None:
        store.put("a", b"1", size=1)
        wire.script(Answer(200, (("Content-Type", "text/html"),), b"<html>Log in!</html>"), method="GET")
        wire.script(Answer(200), method="GET")
        assert [each.key for each in store.scan()] == ["a"]

    def test_a_listing_that_breaks_off_is_asked_for_again(self, wire: Wire, store: S3Store) -> None:
        for name in range(20):
            store.put(f"{name}", b"", size=0)
        wire.script(CutAnswer(700), method="GET")
        assert len(list(store.scan())) == 20

    def test_bytes_that_break_off_are_fetched_again(self, wire: Wire, store: S3Store) -> None:
        content = os.urandom(2 * PART + 9)
        put(store, "a", content)
        wire.script(CutAnswer(1_000_000), method="GET")
        assert content_of(store, "a") == content

    def test_silence_is_not_waited_for(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        class Impatient(Traffic):
            def silence(self, size: int) -> float:
                return 0.2

        wire.script(Delay(30), method="PUT")
        with connect(seaweedfs, s3_bucket, wire.port, traffic=Impatient(3)) as store:
            store.put("a", b"content", size=7)
        assert wire.count("PUT") == 2

    def test_a_run_that_is_to_end_gives_up_what_is_long(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        stop = threading.Event()
        throttle = Throttle(BandwidthLimit.parse("100 KiB/s"))
        traffic = Traffic(3, throttle=throttle, stop=stop)
        threading.Timer(0.5, stop.set).start()
        with (
            connect(seaweedfs, s3_bucket, wire.port, traffic=traffic, retry=NOT_PATIENT) as store,
            pytest.raises(TransientError, match="the run is to end"),
        ):
            store.put("a", bytes(4 * MIB), size=4 * MIB)

    def test_the_limit_of_the_bandwidth_holds(self, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        slept: list[float] = []
        clock = [0.0]

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock[0] += seconds

        throttle = Throttle(BandwidthLimit.parse("1 MiB/s"), clock=lambda: clock[0], sleep=sleep)
        with connect(seaweedfs, s3_bucket, seaweedfs.port, traffic=Traffic(3, throttle=throttle)) as store:
            store.put("a", bytes(4 * MIB), size=4 * MIB)
        assert sum(slept) == pytest.approx(4, rel=0.1), "every byte counts once, although it is read to be signed, too"


class TestRefusals:
    def test_a_wrong_secret(self, seaweedfs: SeaweedFS, s3_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        access = S3Access(key_id=seaweedfs.key_id, secret="not/the+secret-at-all", session_token="the-session-token")
        assert "secret-at" not in repr(access)
        assert "the-session" not in repr(access)
        with connect(seaweedfs, s3_bucket, seaweedfs.port, access=access) as store:
            for act in (
                store.probe,
                lambda: store.put("a", b"1", size=1),
                lambda: store.stat("a"),
                lambda: store.open("a"),
                lambda: store.delete("a"),
            ):
                with pytest.raises(AccessDenied) as caught:
                    act()
                told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.hint)
                assert caught.value.hint
                assert caught.value.__context__ is None
                assert "secret-at" not in told
                assert "the-session" not in told
            assert "secret-at" not in repr(store)
        assert "secret-at" not in caplog.text
        assert "the-session" not in caplog.text
        assert "Signature=" not in caplog.text

    def test_a_session_that_has_expired(self, wire: Wire, store: S3Store) -> None:
        expired = refusal(400, "ExpiredToken", "The provided token has expired.")
        wire.script(expired, method="PUT")
        with pytest.raises(CredentialsExpired, match=r"writing a: The provided token has expired") as caught:
            store.put("a", b"1", size=1)
        assert "aws sso login" in (caught.value.hint or "")
        # The answer to a HEAD says nothing of it.
        wire.script(Answer(400), method="HEAD")
        wire.script(expired, method="GET")
        with pytest.raises(CredentialsExpired):
            store.stat("a")

    def test_an_archived_object(self, wire: Wire, store: S3Store) -> None:
        store.put("a", b"1", size=1)
        wire.script(refusal(403, "InvalidObjectState"), method="GET")
        with pytest.raises(StorageError, match="InvalidObjectState") as caught:
            store.open("a")
        assert type(caught.value) is StorageError
        assert "restored" in (caught.value.hint or "")

    def test_a_clock_that_is_wrong(self, wire: Wire, store: S3Store) -> None:
        wire.script(refusal(403, "RequestTimeTooSkewed"), method="PUT")
        with pytest.raises(AccessDenied) as caught:
            store.put("a", b"1", size=1)
        assert "clock" in (caught.value.hint or "")

    def test_a_profile_that_is_not_there(self, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        with connect(seaweedfs, s3_bucket, seaweedfs.port, access=S3Access(profile="nobody")) as store:
            with pytest.raises(AccessDenied, match="ProfileNotFound") as caught:
                store.probe()
            assert "aws_profile" in (caught.value.hint or "")

    def test_anonymous(self, seaweedfs: SeaweedFS, s3_bucket: str, wire: Wire) -> None:
        anybody = S3Access(anonymous=True)
        with connect(seaweedfs, s3_bucket, wire.port, access=anybody) as store, pytest.raises(AccessDenied):
            store.probe()
        assert "authorization" not in wire.requests[0].headers

    def test_who_pays(self, seaweedfs: SeaweedFS, s3_bucket: str, wire: Wire) -> None:
        access = S3Access(key_id=seaweedfs.key_id, secret=seaweedfs.secret, requester_pays=True)
        with connect(seaweedfs, s3_bucket, wire.port, access=access) as store:
            put(store, "a", bytes(PART + 1))
            store.put("b", b"", size=0)
            assert len(list(store.scan())) == 2
            assert content_of(store, "a") == bytes(PART + 1)
            store.delete("a")
        assert {each.headers.get("x-amz-request-payer") for each in wire.requests} == {"requester"}

    def test_a_missing_bucket(self, seaweedfs: SeaweedFS) -> None:
        with connect(seaweedfs, "missing", seaweedfs.port) as store:
            with pytest.raises(ObjectNotFound, match="NoSuchBucket"):
                store.stat("a")
            with pytest.raises(ObjectNotFound, match="NoSuchBucket"):
                put(store, "a", bytes(PART + 1))

    @pytest.mark.parametrize("name", ["x" * 1023, "ä" * 512, "a\\b", "a\nb", "a\x7fb"])
    def test_names(self, wire: Wire, store: S3Store, name: str) -> None:
        with pytest.raises(StorageError, match="cannot be stored in S3"):
            store.put(name, b"", size=0)
        assert not wire.requests

    def test_plain_http(self) -> None:
        with pytest.raises(ConfigError, match="not encrypted"):
            S3Store("bucket", access=S3Access(), endpoint_url="http://s3.hospital.org")


class TestTheWayIn:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    def test_certificates(self, seaweedfs: SeaweedFS, s3_bucket: str, authority: Authority, tmp_path: Path) -> None:
        with Wire(seaweedfs.port, tls=authority.server("127.0.0.1")) as wire:
            url = f"https://127.0.0.1:{wire.port}"
            trusting = Network(ca_bundle=authority.bundle)
            with S3Store(s3_bucket, access=access_to(seaweedfs), endpoint_url=url, network=trusting) as store:
                put(store, "a", b"content")
                assert content_of(store, "a") == b"content"
            with S3Store(s3_bucket, access=access_to(seaweedfs), endpoint_url=url) as store:
                with pytest.raises(TlsError, match="not trusted") as caught:
                    store.probe()
                assert "ca_bundle" in (caught.value.hint or "")

    def test_a_directory_of_certificates(
        self, seaweedfs: SeaweedFS, s3_bucket: str, authority: Authority, tmp_path: Path
    ) -> None:
        directory = tmp_path / "certificates"
        directory.mkdir()
        command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.bundle)]
        hashed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        (directory / f"{hashed}.0").write_bytes(authority.bundle.read_bytes())
        with Wire(seaweedfs.port, tls=authority.server("127.0.0.1")) as wire:
            url = f"https://127.0.0.1:{wire.port}"
            network = Network(ca_bundle=directory)
            with S3Store(s3_bucket, access=access_to(seaweedfs), endpoint_url=url, network=network) as store:
                store.probe()

    def test_the_content_is_not_signed_again_where_tls_keeps_it(
        self, seaweedfs: SeaweedFS, s3_bucket: str, authority: Authority
    ) -> None:
        with Wire(seaweedfs.port, tls=authority.server("127.0.0.1")) as wire:
            url, network = f"https://127.0.0.1:{wire.port}", Network(ca_bundle=authority.bundle)
            with S3Store(s3_bucket, access=access_to(seaweedfs), endpoint_url=url, network=network) as store:
                put(store, "a", b"content")
            [request] = [each for each in wire.requests if each.method == "PUT"]
        assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"

    def test_a_proxy(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        wire.script(Answer(407), method="GET")
        network = Network(proxy=f"http://user:pass-word@127.0.0.1:{wire.port}")
        url = "https://s3.hospital.org"
        with S3Store(
            s3_bucket, access=access_to(seaweedfs), endpoint_url=url, network=network, retry=NOT_PATIENT
        ) as at:
            wire.forget()
            wire.script(Answer(407), method="CONNECT")
            with pytest.raises(AccessDenied, match="the proxy asks for a user") as caught:
                at.probe()
        assert "pass-word" not in f"{caught.value} {caught.value.hint} {network}"
        [request] = wire.requests
        assert isinstance(request, Request)
        assert request.target == "s3.hospital.org:443"

    def test_a_socks_proxy(self) -> None:
        with pytest.raises(ConfigError, match="SOCKS"):
            S3Store("bucket", access=S3Access(), network=Network(proxy="socks5h://127.0.0.1:1"))


class TestProperties:
    def test_of_a_small_object(self, wire: Wire, store: S3Store, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        store.put("a", b"1", size=1, properties=lambda: Properties({"patient_count": "3"}, "STANDARD_IA"))
        assert seaweedfs.client.head_object(Bucket=s3_bucket, Key="p/a")["Metadata"] == {"patient_count": "3"}
        [request] = [each for each in wire.requests if each.method == "PUT"]
        assert request.headers["x-amz-storage-class"] == "STANDARD_IA"

    def test_a_tier_of_azure_is_none_of_s3(self, wire: Wire, store: S3Store) -> None:
        store.put("a", b"1", size=1, properties=lambda: Properties(tier="Cool"))
        assert not [each for each in wire.requests if "x-amz-storage-class" in each.headers]


class TestPlanning:
    @pytest.mark.parametrize("size", [1, 8 * MIB, 500 * 10**9, LARGEST - 1, LARGEST])
    def test_every_size_fits(self, size: int) -> None:
        part_size = part_size_for(size, at_least=8 * MIB)
        assert -(-size // part_size) <= 10_000
        assert part_size <= 5 << 30

    def test_one_that_is_too_large_is_not_begun(self, wire: Wire, store: S3Store) -> None:
        with pytest.raises(StorageError, match="more than"):
            store.put("a", io.BytesIO(b""), size=LARGEST + 1)
        assert not wire.requests

    def test_parts_wait_for_room(self, wire: Wire, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        traffic = Traffic(3, most_bytes=2 * PART)
        wire.script(Delay(0.2), containing="partNumber=", times=3)
        content = bytes(4 * PART)
        ahead: list[int] = []

        class Watched(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                ahead.append(self.tell() // PART - len(parts_sent(wire)))
                return super().read(size)

        with connect(seaweedfs, s3_bucket, wire.port, traffic=traffic) as store:
            store.put("a", Watched(content), size=len(content))
        assert max(ahead) <= 2


@pytest.mark.timeout(240)
class TestASite:
    """Its central store and its journal are in one bucket."""

    @pytest.mark.thorough  # as in tests/e2e/test_matrix.py
    def test_from_the_first_update_to_the_last_check(
        self, tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str
    ) -> None:
        large = os.urandom(9 * MIB)
        files: dict[str, Content] = {
            "OMOP/person.csv": "person_id\n1\n",
            "1/Images/a b&+ä.dcm": b"\0" * 1000,
            "1/Images/large": large,
        }
        cloud = Bucket(seaweedfs, s3_bucket)
        site = settle(tmp_path / "home", build(tmp_path / "source", files), cloud)
        site.run("journal", "update", "--version", "v1")
        site.run("file", "upload")
        site.run("file", "verify")
        assert site.pending() == set()
        evidence = {path: each["evidence"] for path, each in site.uploaded().items()}
        assert evidence == {"OMOP/person.csv": "server", "1/Images/a b&+ä.dcm": "server", "1/Images/large": "transit"}
        assert cloud.objects()["data/v1/1/Images/large"] == large
        assert "journal/journal.db.locked" not in cloud.objects()
        build(tmp_path / "source", {"1/Images/b.dcm": b"2"})
        site.run("journal", "update", "--version", "v2")
        site.run("file", "upload")
        site.run("file", "verify", "--version", "v2")
        seaweedfs.client.put_object(Bucket=s3_bucket, Key="data/v2/1/Images/b.dcm", Body=b"3")
        site.run("file", "verify", "--version", "v2", exit_code=3)

    @pytest.mark.thorough  # as in tests/e2e/test_matrix.py
    def test_what_lies_in_another_bucket(self, tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        """As a source: one listing says what has changed, and the files go on through memory."""
        origin = seaweedfs.create_bucket()
        files = {"OMOP/person.csv": b"1", "1/Images/a b&+ä.dcm": bytes(1000), "1/Images/large": os.urandom(9 * MIB)}
        for path, body in files.items():
            seaweedfs.client.put_object(Bucket=origin, Key=f"given/{path}", Body=body)
        cloud = Bucket(seaweedfs, s3_bucket)
        site = settle(tmp_path / "home", tmp_path, cloud)
        keys = cloud.config.partition("[journal.source.auth]")[2].partition("[central_path]")[0]
        place = f'path = "s3://{origin}/given"\n\n[site_path.default.auth]{keys}'
        site.configure(site.config.read_text().replace(f'path = "{tmp_path}"', place))
        site.run("journal", "update", "--version", "v1")
        site.run("file", "upload")
        site.run("file", "verify", "--deep")
        sent = {key: body for key, body in cloud.objects().items() if key.startswith("data/v1/") and "/" in key[8:]}
        assert sent == {f"data/v1/{path}": body for path, body in files.items()}
        seaweedfs.client.put_object(Bucket=origin, Key="given/OMOP/person.csv", Body=b"2")
        seaweedfs.client.put_object(Bucket=origin, Key="given/1/Images/a b&+ä.dcm", Body=bytes(1000))
        site.run("journal", "update", "--version", "v2")
        assert site.pending() == {"OMOP/person.csv"}

    @pytest.mark.thorough  # as in tests/e2e/test_racing.py
    def test_three_race_for_its_journal(self, tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
        source = build(tmp_path / "source", {"OMOP/person.csv": "person_id\n1\n"})
        sites = [settle(tmp_path / f"home-{each}", source, Bucket(seaweedfs, s3_bucket)) for each in range(3)]
        assert [each for each in race(sites, rounds=3) if not each.is_good] == []


def test_nothing_is_left_open(seaweedfs: SeaweedFS, s3_bucket: str) -> None:
    with connect(seaweedfs, s3_bucket, seaweedfs.port) as store:
        put(store, "a", bytes(PART + 1))
        store.open("a").close()
    gc.collect()
