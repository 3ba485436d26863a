"""A gateway that changes what passes through it, at the same length, and removes the checksums that tell (Azure)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorus_upload.errors import IntegrityError, TransientError
from chorus_upload.model import Evidence, Twin
from chorus_upload.storage import azure_upload
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SasToken
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import ComputedBy
from chorus_upload.transfer.evidence import Verdict, judge
from tests.e2e.clouds import Container, ask, files_of, manifest_for, manifest_of
from tests.e2e.conftest import settle
from tests.emulators import Azurite
from tests.faults.figures import Figures
from tests.faults.troubles import portal
from tests.trees import Bytes, build, bytes_of
from tests.wire import Alter, Fault, Request, Wire

MIB = 1 << 20
SMALL = bytes_of("small", Bytes(3_000))
LARGE = bytes_of("large", Bytes(6 * MIB + 17))
CHECKSUMS = re.compile(rb"(?im)^(?:content-md5|x-ms-content-crc64|x-ms-source-content-md5): [^\r\n]*\r\n")


def nothing(_head: bytes, _body: bytes) -> bool:
    return False


DATE = re.compile(rb"(?im)^Date: [^\r\n]*")


@dataclass(slots=True)
class Gateway(Wire):
    """A wire on which the bodies that are `meant` end with another byte, and no checksum goes with them.

    With `hides` there is none in the responses either. Unless it `rewrites`, that is all that it does.
    """

    meant: Callable[[bytes, bytes], bool] = nothing
    hides: bool = False
    rewrites: bool = True
    acted: int = 0

    def _ask(self, head: bytes, body: bytes) -> bytes:
        if not self.meant(head, body):
            return Wire._ask(self, head, body)
        self.acted += 1
        if self.rewrites:
            head, body = CHECKSUMS.sub(b"", head), body[:-1] + bytes([body[-1] ^ 1]) if body else b""
        answer = Wire._ask(self, head, body)
        if not self.hides:
            return answer
        said, _, rest = answer.partition(b"\r\n\r\n")
        return CHECKSUMS.sub(b"", said + b"\r\n") + b"\r\n" + rest


def everything(head: bytes, body: bytes) -> bool:
    """Whatever is sent, without what has no body."""
    return head.startswith(b"PUT ") and len(body) > 1 and b"comp=blocklist" not in head.partition(b"\r\n")[0]


def copies(head: bytes, _: bytes) -> bool:
    return b"x-ms-copy-source" in head.lower()


@pytest.fixture
def gateway(azurite: Azurite) -> Iterator[Gateway]:
    with Gateway(azurite.port) as gateway:
        yield gateway


@pytest.fixture
def store(gateway: Gateway, azurite: Azurite, azure_container: str) -> Iterator[AzureStore]:
    with AzureStore(
        azurite.url_at(gateway.port),
        azure_container,
        credential=SasToken(azurite.sas(azure_container)),
        retry=Retry(patience=0),
        network=Network(connections=2),
        block_size=MIB,
    ) as store:
        yield store


@pytest.fixture(params=["crc64", "md5"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The checksum of blocks: where no library computes a CRC-64, it is an MD5."""
    if request.param == "md5":
        monkeypatch.setattr(azure_upload, "crc64_of", lambda _: None)
    return str(request.param)


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def content_of(store: AzureStore, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def put(store: AzureStore, content: bytes, *, twin: Twin | None = None, proven: bool = True) -> int:
    """Gives how many bytes had not to be sent."""
    stored = store.put("a", io.BytesIO(content), size=len(content), create_only=True, twin=twin)
    assert judge(stored, size=len(content), md5=md5(content)) is (Evidence.TRANSIT if proven else Verdict.UNPROVEN)
    return stored.spared


class TestLarge:
    def test_a_block_that_arrived_as_another_one_does_not_count(
        self, gateway: Gateway, store: AzureStore, by: str
    ) -> None:
        gateway.meant = everything
        if by == "md5":
            # The service says the MD5 only if it was sent one.
            put(store, LARGE, proven=False)
        else:
            with pytest.raises(IntegrityError, match="the service received other bytes"):
                put(store, LARGE)
            assert store.stat("a") is None
        assert gateway.acted

    def test_one_of_which_nobody_says_how_it_arrived_proves_nothing(
        self, gateway: Gateway, store: AzureStore, by: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        last = len(LARGE) % MIB
        gateway.meant, gateway.hides = lambda head, body: everything(head, body) and len(body) == last, True
        put(store, LARGE, proven=False)
        store.put("b", io.BytesIO(LARGE), size=len(LARGE))
        assert gateway.acted == 2
        (told,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert "removes the service's checksums" in told

    @pytest.mark.parametrize("hides", [False, True])
    def test_blocks_that_it_left_are_sent_again(
        self, gateway: Gateway, store: AzureStore, by: str, *, hides: bool
    ) -> None:
        """They lie at the service under the right names, and are others."""
        gateway.meant, gateway.hides = everything, hides
        with pytest.raises(IntegrityError, match=r"the body ended|received other bytes"):
            store.put("a", io.BytesIO(LARGE[:-1]), size=len(LARGE), create_only=True)
        gateway.meant = nothing
        assert put(store, LARGE) == 0
        assert content_of(store, "a") == LARGE

    def test_blocks_that_were_seen_to_arrive_are_not(self, gateway: Gateway, store: AzureStore, by: str) -> None:
        last = len(LARGE) % MIB
        gateway.chance = lambda request: portal(503) if request.size == last else None
        with pytest.raises(TransientError):
            put(store, LARGE)
        gateway.chance = None
        assert put(store, LARGE) == len(LARGE) - last
        assert content_of(store, "a") == LARGE

    @pytest.mark.parametrize("hides", [False, True])
    def test_a_copy_of_something_else_is_none(
        self, gateway: Gateway, store: AzureStore, by: str, *, hides: bool
    ) -> None:
        """The service was to compare the MD5 of what it copies, and never heard of it."""
        other = store.put("b", io.BytesIO(LARGE[::-1]), size=len(LARGE))
        gateway.meant, gateway.hides = copies, hides
        assert put(store, LARGE, twin=Twin("b", other.etag)) == 0
        assert gateway.acted
        assert content_of(store, "a") == LARGE


class TestSmall:
    @pytest.mark.parametrize("create_only", [False, True])
    def test_what_arrived_as_something_else_does_not_count(
        self, gateway: Gateway, store: AzureStore, *, create_only: bool
    ) -> None:
        gateway.meant = everything
        with pytest.raises(IntegrityError, match="other bytes than were sent"):
            store.put("a", SMALL, size=len(SMALL), create_only=create_only)
        assert gateway.acted == 3
        if create_only:
            assert store.stat("a") is None

    def test_nothing_foreign_leaves_where_it_cannot_be_removed(self, gateway: Gateway, store: AzureStore) -> None:
        def say_a_date_that_cannot_be(request: Request) -> Fault | None:
            if request.method != "DELETE":
                return None
            return Alter(lambda head, body: DATE.sub(b"Date: Mon, 01 Jan 0001 00:00:00 +2359", head) + body)

        gateway.meant, gateway.chance = everything, say_a_date_that_cannot_be
        with pytest.raises(IntegrityError, match="other bytes than were sent"):
            store.put("a", SMALL, size=len(SMALL), create_only=True)
        assert gateway.count("DELETE") >= 1

    def test_once(self, gateway: Gateway, store: AzureStore) -> None:
        gateway.meant = lambda head, body: everything(head, body) and not gateway.acted
        store.put("a", SMALL, size=len(SMALL), create_only=True)
        assert content_of(store, "a") == SMALL

    def test_what_replaces_another_is_for_the_caller_to_judge(self, gateway: Gateway, store: AzureStore) -> None:
        before = store.put("a", SMALL, size=len(SMALL))
        gateway.meant = everything
        stored = store.put("a", SMALL[::-1], size=len(SMALL), if_match=before.etag)
        assert judge(stored, size=len(SMALL), md5=md5(SMALL[::-1])) is Verdict.WRONG

    def test_what_nobody_speaks_for_is_unproven(self, gateway: Gateway, store: AzureStore) -> None:
        gateway.meant, gateway.hides = everything, True
        stored = store.put("a", SMALL, size=len(SMALL), create_only=True)
        assert judge(stored, size=len(SMALL), md5=md5(SMALL)) is Verdict.UNPROVEN
        gateway.meant = nothing
        honest = store.put("b", SMALL, size=len(SMALL), create_only=True)
        assert honest.checksum is not None
        assert (honest.checksum.md5, honest.checksum.computed_by) == (md5(SMALL), ComputedBy.SERVICE)


def test_behind_one_that_only_removes_checksums_all_files_arrive(
    gateway: Gateway, container: Container, tmp_path: Path, figures: Figures
) -> None:
    """They are read back, and the user hears why once."""
    tree = {f"{number}/Images/large.h5": Bytes(9 * MIB) for number in (1001, 1002)}
    tree["1001/Images/small.dcm"] = Bytes(3_000)
    cloud = dataclasses.replace(container, port=gateway.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, patience=0)
    site.run("journal", "update", "--version", "spring")
    gateway.meant, gateway.hides, gateway.rewrites = lambda head, _: head.startswith(b"PUT "), True, False

    upload = site.run("file", "upload")

    figures.count("responses without checksums", gateway.acted)
    expected = {f"spring/{path}": bytes_of(path, body) for path, body in tree.items()}
    assert files_of(container.objects()) == expected
    assert manifest_of(container.objects(), "spring") == manifest_for(expected, "spring", evidence="readback")
    assert " ".join(upload.err.split()).count("removes the service's checksums") == 1
    assert "warning: something between here and" in upload.err
    assert "chorus_upload.storage" not in upload.err
    notices = [each["text"] for each in site.run("--json", "file", "verify").events("notice")]
    assert len([each for each in notices if "removes the service's checksums" in each]) == 1


@pytest.mark.parametrize("hides", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_no_file_that_it_has_changed_is_called_delivered(
    gateway: Gateway, container: Container, tmp_path: Path, figures: Figures, *, hides: bool
) -> None:
    tree = {"1001/Images/large.h5": Bytes(9 * MIB), "1001/Images/small.dcm": Bytes(3_000)}
    cloud = dataclasses.replace(container, port=gateway.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, patience=0)
    site.run("journal", "update", "--version", "spring")
    gateway.meant = lambda head, body: everything(head, body) and b"/Images/" in head
    gateway.hides = hides

    site.run("file", "upload", exit_code=3)

    figures.count("bodies rewritten", gateway.acted)
    assert gateway.acted
    assert ask(site.journal, "SELECT * FROM delivery") == []
    assert files_of(container.objects()) == {}
    assert manifest_of(container.objects(), "spring") == {}

    gateway.meant = nothing
    site.run("file", "upload")
    expected = {f"spring/{path}": bytes_of(path, body) for path, body in tree.items()}
    assert files_of(container.objects()) == expected
    large, small = ({key: expected[key]} for key in expected)
    assert manifest_of(container.objects(), "spring") == {
        **manifest_for(large, "spring", evidence="transit"),
        **manifest_for(small, "spring", evidence="server"),
    }
