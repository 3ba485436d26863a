"""Google Cloud Storage: what goes over the wire, and what becomes of faults on it.

Against `gcs` (fake-gcs-server with what it lacks, see tests/gs.py) unless the point is what one of the emulators
knows by itself: fake-gcs-server of conditions, gcp-storage-emulator of MD5s and of uploads that go on.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.model import Twin
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.gs_credentials import Access, Anonymous, TokenFile
from chorus_upload.storage.gs_sessions import InFile, Sessions, Task
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import Checksum, ComputedBy, Properties, Store
from tests.faults.troubles import PORTAL
from tests.gs import MARK, Front, Service, with_mark
from tests.wire import Answer, CutAnswer, CutRequest, Delay, DropAnswer, Garble, Wire

MIB = 1 << 20
REST = 300_007
SIZE = 3 * MIB + REST
CONTENT = random.Random(7).randbytes(SIZE)  # noqa: S311 - the same in every run
IMPATIENT = Retry(patience=5, first=0.01, longest=0.05)


def open_gs(
    bucket: str,
    port: int,
    *,
    access: Access | None = None,
    sessions: Sessions | None = None,
    project: str | None = None,
    retry: Retry = IMPATIENT,
) -> GsStore:
    return GsStore(
        bucket,
        access=access or Anonymous(),
        prefix="in",
        project=project,
        endpoint=f"http://127.0.0.1:{port}",
        network=Network(connections=4),
        sessions=sessions,
        retry=retry,
        chunk_size=MIB,
    )


@pytest.fixture
def wire(gcs: Service) -> Iterator[Wire]:
    with Wire(gcs.port) as wire:
        yield wire


@pytest.fixture
def store(wire: Wire, gs_bucket: str) -> Iterator[GsStore]:
    with open_gs(gs_bucket, wire.port) as store:
        yield store


def md5_of(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def put_large(store: Store, content: bytes = CONTENT, *, create_only: bool = False) -> int:
    """How much had not to be sent."""
    stored = store.put("large", io.BytesIO(content), size=len(content), create_only=create_only)
    assert stored.checksum == Checksum(md5_of(content), ComputedBy.SERVICE)
    return stored.spared


class Broken(io.BytesIO):
    """A body that cannot be read further than that."""

    def __init__(self, content: bytes, *, after: int) -> None:
        super().__init__(content)
        self._after = after

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._after:
            raise OSError(5, "Input/output error")
        return super().read(size)


def break_off(store: Store, content: bytes = CONTENT, *, after: int = 2 * MIB, create_only: bool = True) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        store.put("large", Broken(content, after=after), size=len(content), create_only=create_only)


class TestOnTheWire:
    def test_a_small_one_is_one_request(self, store: GsStore, wire: Wire) -> None:
        stored = store.put(
            "a", b"body", size=4, create_only=True, properties=lambda: Properties({"x": "y"}, "coldline")
        )
        assert [(each.method, "uploadType=multipart" in each.target) for each in wire.requests] == [("POST", True)]
        assert "ifGenerationMatch=0" in wire.requests[0].target
        assert stored.checksum == Checksum(md5_of(b"body"), ComputedBy.SERVICE)

    def test_what_is_written_beside_it(self, store: GsStore, gcs: Service, gs_bucket: str) -> None:
        store.put("a", b"body", size=4, properties=lambda: Properties({"x": "y"}, "Cool"))
        found = gcs.describe(gs_bucket, "in/a")
        assert found is not None
        # A tier of Azure is no storage class here.
        assert (found["metadata"], found["storageClass"]) == ({"x": "y"}, "STANDARD")

    def test_a_large_one_goes_in_chunks_and_ends_with_its_md5(self, store: GsStore, wire: Wire) -> None:
        assert put_large(store) == 0
        begin, *parts = wire.requests
        assert "uploadType=resumable" in begin.target
        assert begin.headers["x-upload-content-length"] == str(SIZE)
        assert [each.headers["content-range"] for each in parts] == [
            f"bytes 0-{MIB - 1}/{SIZE}",
            f"bytes {MIB}-{2 * MIB - 1}/{SIZE}",
            f"bytes {2 * MIB}-{3 * MIB - 1}/{SIZE}",
            f"bytes {3 * MIB}-{SIZE - 1}/{SIZE}",
        ]
        assert ["x-goog-hash" in each.headers for each in parts] == [False, False, False, True]

    def test_a_listing_asks_for_what_is_needed(self, store: GsStore, wire: Wire) -> None:
        store.put("a", b"body", size=4)
        [listed] = store.scan()
        assert listed.checksum == Checksum(md5_of(b"body"), ComputedBy.SERVICE)
        assert "fields=kind%2CnextPageToken%2Cprefixes%2Citems%28" in wire.requests[-1].target

    def test_nobody_says_who_he_is(self, store: GsStore, wire: Wire) -> None:
        store.put("a", b"1", size=1)
        put_large(store)
        assert not [each for each in wire.requests if "authorization" in each.headers]

    def test_who_pays_is_said_everywhere(self, wire: Wire, gs_bucket: str) -> None:
        with open_gs(gs_bucket, wire.port, project="payer") as store:
            store.put("a", b"1", size=1)
            put_large(store)
            assert store.open("a").read() == b"1"
            store.delete("a")
            assert [each.key for each in store.scan()] == ["large"]
        # An upload session knows it from its beginning.
        silent = [each for each in wire.requests if "userProject=payer" not in each.target]
        assert {each.method for each in silent} == {"PUT"}

    def test_what_is_stored_compressed_is_read_as_it_is_stored(
        self, store: GsStore, wire: Wire, gcs: Service, gs_bucket: str
    ) -> None:
        packed = gzip.compress(b"text " * 1000)
        gcs.put(gs_bucket, "in/a.txt", packed, encoding="gzip")
        with store.open("a.txt") as stream:
            assert stream.read() == packed
        assert wire.requests[-1].headers["accept-encoding"] == "gzip"


class TestWhatEmulatorsKnowThemselves:
    def test_of_many_creators_one_wins(self, fake_gcs: Service) -> None:
        """By fake-gcs-server alone: gcp-storage-emulator knows no conditions."""
        bucket, start = fake_gcs.create_bucket(), threading.Barrier(8)

        def create(name: int) -> bool:
            with open_gs(bucket, fake_gcs.port) as store:
                start.wait()
                try:
                    store.put("lock", bytes([name]), size=1, create_only=True)
                except ObjectExists:
                    return False
                return True

        with ThreadPoolExecutor(8) as pool:
            won = [name for name, it in enumerate(pool.map(create, range(8))) if it]
        assert fake_gcs.objects(bucket) == {"in/lock": bytes(won)}

    def test_a_replacement_is_of_what_was_there(self, fake_gcs: Service) -> None:
        bucket = fake_gcs.create_bucket()
        with open_gs(bucket, fake_gcs.port) as store:
            first = store.put("journal", b"1", size=1)
            store.put("journal", b"2", size=1, if_match=first.etag)
            with pytest.raises(PreconditionFailed):
                store.put("journal", b"3", size=1, if_match=first.etag)
            # 0 would say that there is to be none.
            for no_generation in ("0", "0x8DC", "", "-1"):
                with pytest.raises(PreconditionFailed):
                    store.put("other", b"3", size=1, if_match=no_generation)
        assert fake_gcs.objects(bucket) == {"in/journal": b"2"}

    def test_a_garbled_body_is_refused(self, gcp_emulator: Service) -> None:
        """By gcp-storage-emulator alone: fake-gcs-server takes any MD5."""
        bucket = gcp_emulator.create_bucket()
        with Wire(gcp_emulator.port, chance=with_mark) as wire, open_gs(bucket, wire.port) as store:
            wire.script(Garble(300), method="POST")
            store.put("a", b"0123456789" * 100, size=1000)
            wire.script(Garble(300), method="POST", times=3)
            with pytest.raises(IntegrityError, match="other bytes than were sent"):
                store.put("b", b"0123456789" * 100, size=1000)
        assert gcp_emulator.objects(bucket) == {"in/a": b"0123456789" * 100}

    def test_an_upload_goes_on_where_it_broke_off(self, gcp_emulator: Service, tmp_path: Path) -> None:
        """By gcp-storage-emulator alone: fake-gcs-server takes a question for the end of the body."""
        bucket, file = gcp_emulator.create_bucket(), tmp_path / "sessions"
        with Wire(gcp_emulator.port, chance=with_mark) as wire:
            with open_gs(bucket, wire.port, sessions=InFile(file)) as store:
                # It knows no conditions, and a store that ignores them would not be used.
                break_off(store, create_only=False)
            assert gcp_emulator.objects(bucket) == {}
            wire.requests.clear()
            with open_gs(bucket, wire.port, sessions=InFile(file)) as store:
                assert put_large(store) == 2 * MIB
            sent = [each.size for each in wire.requests if each.method == "PUT"]
            assert sent == [0, MIB, REST]
            assert wire.count("POST") == 0
        assert gcp_emulator.objects(bucket) == {"in/large": CONTENT}

    def test_without_a_check_by_the_service_what_is_wrong_is_removed(self, gcp_emulator: Service) -> None:
        """It ignores the MD5 that comes with the last chunk, and says what it has computed."""
        bucket = gcp_emulator.create_bucket()
        with Wire(gcp_emulator.port, chance=with_mark) as wire, open_gs(bucket, wire.port) as store:
            wire.script(Garble(5), method="PUT")
            with pytest.raises(IntegrityError, match="not the body's"):
                put_large(store)
        assert gcp_emulator.objects(bucket) == {}


class TestUploadsThatBreakOff:
    def test_a_garbled_chunk_never_becomes_an_object(
        self, store: GsStore, wire: Wire, gcs: Service, gs_bucket: str
    ) -> None:
        wire.script(Garble(5), method="PUT")
        with pytest.raises(IntegrityError, match="other bytes than were sent"):
            put_large(store)
        assert wire.count("DELETE") == 0
        assert gcs.objects(gs_bucket) == {}
        assert put_large(store) == 0

    @pytest.mark.parametrize(
        "fault", [CutRequest(1000), DropAnswer(), CutAnswer(10), Answer(503, (("Retry-After", "0"),)), Answer(408)]
    )
    @pytest.mark.parametrize("chunk", ["bytes+0-", f"bytes+{3 * MIB}-"])
    def test_a_chunk_that_is_lost_is_asked_for(
        self, store: GsStore, wire: Wire, gcs: Service, gs_bucket: str, fault: CutRequest, chunk: str
    ) -> None:
        first = chunk == "bytes+0-"
        if first:
            wire.script(fault, method="PUT")
        else:
            # All but the last one, by way of an upload that breaks off there.
            break_off(store, after=3 * MIB)
            wire.script(Answer(308, (("Range", f"bytes=0-{3 * MIB - 1}"),)), method="PUT")
            wire.script(fault, method="PUT")
        put_large(store, create_only=True)
        assert gcs.objects(gs_bucket) == {"in/large": CONTENT}
        asked = [each for each in wire.requests if each.headers.get("content-range") == f"bytes */{SIZE}"]
        assert len(asked) == (1 if first else 2)

    def test_what_is_there_is_not_sent_again(self, store: GsStore, wire: Wire) -> None:
        """The answer to the last chunk is lost: it is asked for, and nothing is sent."""
        break_off(store, after=3 * MIB)
        wire.requests.clear()
        wire.script(Answer(308, (("Range", f"bytes=0-{3 * MIB - 1}"),)), method="PUT")
        wire.script(DropAnswer(), method="PUT")
        assert put_large(store, create_only=True) == 3 * MIB
        assert [each.size for each in wire.requests if each.method == "PUT"] == [0, REST, 0]

    def test_the_service_may_take_less_than_it_is_given(
        self, store: GsStore, gs_front: tuple[Front, Service], monkeypatch: pytest.MonkeyPatch, wire: Wire
    ) -> None:
        monkeypatch.setattr(gs_front[0], "most_of_a_part", 700_000)
        put_large(store)
        begins = [int(each.headers["content-range"][6:].partition("-")[0]) for each in wire.requests[1:]]
        assert begins[:4] == [0, 512 << 10, MIB, MIB + (512 << 10)]

    def test_another_file_that_begins_alike_is_not_mixed_up(self, store: GsStore, gcs: Service, gs_bucket: str) -> None:
        break_off(store)
        other = CONTENT[:MIB] + bytes(SIZE - MIB)
        with pytest.raises(IntegrityError):
            put_large(store, other, create_only=True)
        assert gcs.objects(gs_bucket) == {}
        assert put_large(store, other, create_only=True) == 0

    def test_another_beginning_or_condition_is_another_upload(self, store: GsStore) -> None:
        break_off(store)
        assert put_large(store, b"x" + CONTENT[1:]) == 0
        assert put_large(store) == 0

    def test_a_session_that_the_service_has_forgotten(self, store: GsStore, wire: Wire) -> None:
        break_off(store)
        wire.script(Answer(410, (MARK,)), method="PUT", times=2)
        assert put_large(store, create_only=True) == 0

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(308, (("Location", "https://portal.example/login"),)),
            Answer(308),
            Answer(404, (("Content-Type", "text/html"),), PORTAL),
            Answer(404, (("Content-Type", "text/plain"),), b"Not Found"),
            Answer(410),
            Answer(200, (("Content-Type", "text/html"),), PORTAL),
        ],
    )
    def test_nobody_else_says_that_it_is_forgotten(self, store: GsStore, wire: Wire, answer: Answer) -> None:
        """A portal's 308 is no "0 bytes have arrived", and its 404 not the end of a session."""
        break_off(store)
        wire.script(answer, method="PUT", times=3)
        wire.requests.clear()
        assert put_large(store, create_only=True) == 2 * MIB
        assert wire.count("POST") == 0
        # In the middle of a file as well.
        store.delete("large")
        wire.script(Delay(0), method="PUT")
        wire.script(answer, method="PUT", times=3)
        assert put_large(store, create_only=True) == 0
        assert wire.count("POST") == 1

    @pytest.mark.parametrize("answer", [Answer(404, (MARK,), b"No such upload"), Answer(410, (MARK,))])
    def test_the_service_is_asked_once_more(self, store: GsStore, wire: Wire, answer: Answer) -> None:
        break_off(store)
        wire.script(answer, method="PUT")
        assert put_large(store, create_only=True) == 2 * MIB

    def test_so_it_is_when_it_has_less_than_it_had(self, store: GsStore, wire: Wire) -> None:
        wire.script(Delay(0), method="PUT", times=2)
        wire.script(Answer(308, (MARK,)), method="PUT")
        assert put_large(store, create_only=True) == 0
        assert wire.count("POST") == 1

    @pytest.mark.parametrize("address", ["", ".evil.example/x?upload_id=1", "x y", "/a b"])
    def test_an_address_that_is_none_is_not_asked(
        self, wire: Wire, gs_bucket: str, tmp_path: Path, address: str
    ) -> None:
        """Neither one that an answer names nor one that stands in the file."""
        file = tmp_path / "sessions"
        with open_gs(gs_bucket, wire.port, sessions=InFile(file)) as store:
            wire.script(Answer(200, (("Location", address), MARK)), method="POST")
            break_off(store)
            kept = json.loads(file.read_text())
            file.write_text(json.dumps({name: (address, since) for name, (_, since) in kept.items()}))
            assert put_large(store, create_only=True) == 0

    def test_a_success_that_says_nothing_is_asked_about(self, store: GsStore, wire: Wire) -> None:
        wire.script(Answer(200), method="PUT")
        assert put_large(store) == 0

    @pytest.mark.parametrize(
        ("answer", "times"),
        [(Answer(404, (MARK,), b"No such upload"), 2), (Answer(410, (MARK,)), 2), (Answer(200, (MARK,)), 3)],
    )
    def test_a_session_that_ends_in_the_middle(self, store: GsStore, wire: Wire, answer: Answer, times: int) -> None:
        wire.script(answer, method="PUT", times=times)
        with pytest.raises(TransientError, match="has forgotten"):
            put_large(store)
        assert put_large(store) == 0

    def test_who_comes_first_wins(self, store: GsStore, gcs: Service, gs_bucket: str, wire: Wire) -> None:
        """Somebody else makes the object while ours is on its way."""

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() == 2 * MIB:
                    gcs.put(gs_bucket, "in/large", b"theirs")
                return super().read(size)

        with pytest.raises(ObjectExists):
            store.put("large", Slow(CONTENT), size=SIZE, create_only=True)
        assert gcs.objects(gs_bucket) == {"in/large": b"theirs"}
        wire.requests.clear()
        with pytest.raises(ObjectExists):
            store.put("large", io.BytesIO(CONTENT), size=SIZE, create_only=True)
        assert [each.method for each in wire.requests] == ["GET"]


class TestFaults:
    def test_a_download_goes_on_where_it_broke(self, store: GsStore, wire: Wire) -> None:
        put_large(store)
        wire.script(CutAnswer(500_000), method="GET", containing="alt=media")
        wire.script(Answer(503), method="GET", containing="alt=media")
        with store.open("large") as stream:
            assert stream.read() == CONTENT

    def test_what_does_not_arrive_as_it_is_stored(self, store: GsStore, wire: Wire) -> None:
        store.put("a", b"body", size=4)
        wire.script(
            Answer(206, (("X-Goog-Hash", "crc32c=AAAAAA==,md5=hBotaJrKa9FhFEdmPCLG/g=="),), b"b0dy"),
            containing="alt=media",
        )
        with store.open("a") as stream:
            assert stream.read() == b"body"

    @pytest.mark.parametrize("body", [b"<html>Log in</html>", b"", b"[]", b'{"kind": "something else"}'])
    def test_a_page_of_somebody_else_is_no_empty_bucket(self, store: GsStore, wire: Wire, body: bytes) -> None:
        store.put("a", b"1", size=1)
        wire.script(Answer(200, (), body), method="GET")
        assert [each.key for each in store.scan()] == ["a"]

    def test_a_lost_answer_to_a_creation_meets_its_own_object(self, store: GsStore, wire: Wire) -> None:
        wire.script(DropAnswer(), method="POST")
        with pytest.raises(ObjectExists):
            store.put("a", b"1", size=1, create_only=True)
        with store.open("a") as stream:
            assert stream.read() == b"1"

    def test_a_lost_answer_to_a_deletion(self, store: GsStore, wire: Wire) -> None:
        etag = store.put("a", b"1", size=1).etag
        wire.script(DropAnswer(), method="DELETE")
        store.delete("a", if_match=etag)
        assert store.stat("a") is None

    @pytest.mark.parametrize(
        ("status", "message", "reason", "kind", "hint"),
        [
            (400, "Bucket is a requester pays bucket but no user project provided", "none", AccessDenied, "_project"),
            (400, "Invalid argument.", "invalid", StorageError, ""),
            (401, "Anonymous caller does not have access.", "required", AccessDenied, "no credentials"),
            (403, "Insufficient Permission", "insufficientPermissions", AccessDenied, "no credentials"),
            (403, "Too many requests", "rateLimitExceeded", TransientError, ""),
            (404, "The specified bucket does not exist.", "notFound", ObjectNotFound, "bucket"),
            (412, "Precondition failed.", "conditionNotMet", PreconditionFailed, ""),
            (412, "Organisation policy.", "orgPolicyConstraintFailed", AccessDenied, ""),
            (429, "Slow down.", "rateLimitExceeded", TransientError, ""),
            (503, "Backend error.", "backendError", TransientError, ""),
        ],
    )  # fmt: skip
    def test_what_the_service_refuses(
        self, wire: Wire, gs_bucket: str, status: int, message: str, reason: str, kind: type[StorageError], hint: str
    ) -> None:
        secret = "see https://x/?upload_id=SECRET&y and Bearer SECRET ya29.SECRET"
        said = {"error": {"code": status, "message": f"{message} {secret}", "errors": [{"reason": reason}]}}
        wire.script(Answer(status, (), json.dumps(said).encode()), method="POST")
        with (
            open_gs(gs_bucket, wire.port, retry=Retry(patience=0)) as store,
            pytest.raises(kind) as caught,
        ):
            store.put("a", b"1", size=1)
        assert type(caught.value) is kind
        assert "SECRET" not in f"{caught.value} {caught.value.hint}"
        assert message.rstrip(".") in caught.value.message
        assert hint in (caught.value.hint or "")

    def test_overload_is_waited_for(self, store: GsStore, wire: Wire) -> None:
        wire.script(Answer(429, (("Retry-After", "0"),)), method="POST")
        wire.script(Answer(503), method="POST")
        store.put("a", b"1", size=1)
        assert wire.count("POST") == 3

    @pytest.mark.parametrize("key", ["a\nb", "x" * 1100, "tab\t"])
    def test_names_that_it_refuses_are_not_sent(self, store: GsStore, wire: Wire, key: str) -> None:
        with pytest.raises(StorageError, match="cannot be stored in Google"):
            store.put(key, b"1", size=1)
        assert wire.requests == []

    def test_a_reserved_name(self, gcs: Service, gs_bucket: str) -> None:
        with (
            GsStore(gs_bucket, access=Anonymous(), endpoint=gcs.url) as store,
            pytest.raises(StorageError, match="service's own"),
        ):
            store.put(".well-known/acme-challenge/x", b"1", size=1)


class TestTwins:
    @pytest.mark.parametrize("size", [MIB, SIZE])
    def test_the_service_copies(self, store: GsStore, wire: Wire, size: int) -> None:
        content = CONTENT[:size]
        first = store.put("one", io.BytesIO(content), size=size)
        wire.requests.clear()
        second = store.put("two", io.BytesIO(content), size=size, create_only=True, twin=Twin("one", first.etag))
        assert (second.spared, second.checksum) == (size, first.checksum)
        assert max(each.size for each in wire.requests) < 1000
        with store.open("two") as stream:
            assert stream.read() == content

    @pytest.mark.parametrize("size", [10, MIB, SIZE])
    def test_what_was_written_again_is_not_copied(self, store: GsStore, size: int) -> None:
        content = CONTENT[:size]
        first = store.put("one", io.BytesIO(content), size=size)
        store.put("one", io.BytesIO(bytes(size)), size=size)
        second = store.put("two", io.BytesIO(content), size=size, twin=Twin("one", first.etag))
        assert second.spared == 0
        with store.open("two") as stream:
            assert stream.read() == content

    def test_what_may_not_be_copied_is_sent(self, store: GsStore, wire: Wire) -> None:
        first = store.put("one", CONTENT[:MIB], size=MIB)
        wire.script(Answer(403, (MARK,)), method="POST", containing="rewriteTo", times=2)
        assert store.put("two", CONTENT[:MIB], size=MIB, twin=Twin("one", first.etag)).spared == 0
        large = store.put("large", io.BytesIO(CONTENT), size=SIZE)
        # It was read to its end, and whoever gave it has to give it again.
        with pytest.raises(IntegrityError, match="could not copy"):
            store.put("more", io.BytesIO(CONTENT), size=SIZE, twin=Twin("large", large.etag))
        assert store.stat("more") is None

    def test_a_taken_key(self, store: GsStore) -> None:
        first = store.put("one", CONTENT[:MIB], size=MIB)
        store.put("two", b"other", size=5)
        with pytest.raises(ObjectExists):
            store.put("two", CONTENT[:MIB], size=MIB, create_only=True, twin=Twin("one", first.etag))


class TestTokenFiles:
    def test_a_new_token_is_used_from_the_next_request_on(self, wire: Wire, gs_bucket: str, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("first\n")
        with open_gs(gs_bucket, wire.port, access=TokenFile(file)) as store:
            store.put("a", b"1", size=1)
            file.write_text("second one"[:6])
            store.put("b", b"1", size=1)
            file.write_text("third!")
            store.put("c", b"1", size=1)
        used = [each.headers["authorization"] for each in wire.requests]
        assert used == ["Bearer first", "Bearer second", "Bearer third!"]

    def test_one_that_is_written_while_it_is_refused(self, wire: Wire, gs_bucket: str, tmp_path: Path) -> None:
        """In the middle of a large file, and where the times of the file system do not tell."""
        file = tmp_path / "token"
        file.write_text("first")
        with open_gs(gs_bucket, wire.port, access=TokenFile(file)) as store:
            break_off(store)
            before = file.stat()
            file.write_text("other")
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            wire.script(Answer(401, (MARK,)), method="PUT")
            assert put_large(store, create_only=True) == 2 * MIB
        assert {each.headers["authorization"] for each in wire.requests[-3:]} == {"Bearer other"}

    def test_an_expired_one_says_where_a_new_one_belongs(self, wire: Wire, gs_bucket: str, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("SECRET-TOKEN")
        access = TokenFile(file)
        wire.script(Answer(401, (), b'{"error": {"code": 401, "message": "Invalid Credentials"}}'), method="PUT")
        with open_gs(gs_bucket, wire.port, access=access) as store, pytest.raises(CredentialsExpired) as caught:
            put_large(store)
        assert str(file) in (caught.value.hint or "")
        assert "SECRET" not in f"{caught.value!r} {caught.value.hint} {access!r}"

    def test_a_session_outlives_the_token(self, wire: Wire, gs_bucket: str, tmp_path: Path) -> None:
        file, sessions = tmp_path / "token", InFile(tmp_path / "sessions")
        file.write_text("old")
        with open_gs(gs_bucket, wire.port, access=TokenFile(file), sessions=sessions) as store:
            break_off(store)
        file.write_text("new")
        with open_gs(gs_bucket, wire.port, access=TokenFile(file), sessions=sessions) as store:
            assert put_large(store, create_only=True) == 2 * MIB

    @pytest.mark.parametrize("content", [None, b"", b"  \n", b"two words", "tökén".encode(), b'{"type": "x"}\n\n{}'])
    def test_what_is_no_token(self, gcs: Service, gs_bucket: str, tmp_path: Path, content: bytes | None) -> None:
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        with open_gs(gs_bucket, gcs.port, access=TokenFile(file)) as store, pytest.raises(AccessDenied) as caught:
            store.probe()
        assert str(file) in caught.value.message


class TestSessions:
    TASK = Task("https://x/b/o/a", 10, b"md5", {"ifGenerationMatch": 0})

    def test_they_are_kept_in_a_file_of_ones_own(self, tmp_path: Path) -> None:
        file = tmp_path / "journal.db.sessions"
        before = os.umask(0)
        try:
            InFile(file).keep(self.TASK, "https://x/?upload_id=1")
        finally:
            os.umask(before)
        if os.name == "posix":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert InFile(file).find(self.TASK) == "https://x/?upload_id=1"
        InFile(file).forget(self.TASK)
        assert list(tmp_path.iterdir()) == []

    def test_after_a_week_the_service_has_forgotten_them(self, tmp_path: Path) -> None:
        file = tmp_path / "sessions"
        InFile(file, clock=lambda: 0.0).keep(self.TASK, "x")
        assert InFile(file, clock=lambda: 6 * 86_400.0).find(self.TASK) == "x"
        assert InFile(file, clock=lambda: 8 * 86_400.0).find(self.TASK) is None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe"])
    def test_a_damaged_file_costs_only_its_sessions(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "sessions"
        file.write_bytes(content)
        assert InFile(file).find(self.TASK) is None
        InFile(file).keep(self.TASK, "x")
        assert InFile(file).find(self.TASK) == "x"

    def test_a_place_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        sessions = InFile(tmp_path / "missing" / "sessions")
        sessions.keep(self.TASK, "x")
        assert sessions.find(self.TASK) is None
