"""An account behind a host of the central site's own: that host is no copy source, and the account itself is."""

from __future__ import annotations

import io
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chorus_upload.config.accounts import Account, account_of, own_address
from chorus_upload.model import Twin
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SasToken
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from tests.emulators import Authority, Azurite
from tests.wire import Wire

FRONT = "front.example.org"
MIB = 1 << 20


@dataclass(slots=True)
class Front(Wire):
    """Stands before the account as a host of somebody else's. `own` is the account's address, as Azure knows it.

    The emulator finds accounts by paths, and itself at `upstream` only: both are put right on the way.
    """

    own: str = ""
    account: str = ""
    copied_from: list[str] = field(default_factory=list)

    def _ask(self, head: bytes, body: bytes) -> bytes:
        line, _, headers = head.partition(b"\r\n")
        method, target, version = line.split(b" ")
        lines = []
        for each in headers.split(b"\r\n"):
            name, _, value = each.partition(b": ")
            if name.lower() == b"host":
                value = f"127.0.0.1:{self.upstream}".encode()
            if name.lower() == b"x-ms-copy-source":
                self.copied_from.append(value.decode().partition("?")[0])
                here = f"http://127.0.0.1:{self.upstream}/{self.account}"
                value = value.replace(self.own.encode(), here.encode())
            lines.append(name + b": " + value if name else each)
        start = b" ".join([method, f"/{self.account}".encode() + target, version])
        return Wire._ask(self, start + b"\r\n" + b"\r\n".join(lines), body)


@contextmanager
def store_behind(
    front: Front, authority: Authority, azurite: Azurite, container: str, own: str
) -> Iterator[AzureStore]:
    url = f"https://{FRONT}:{front.port}"
    network = Network(ca_bundle=authority.bundle)
    with AzureStore(
        url,
        container,
        credential=SasToken(azurite.sas(container)),
        own_url=own,
        endpoint_ip="127.0.0.1",
        network=network,
        retry=Retry(patience=0),
        block_size=MIB,
    ) as store:
        yield store


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged is heard here, also after a test that has set up the logging of the program."""
    monkeypatch.setattr(logging.getLogger("chorus_upload"), "propagate", True)


@pytest.fixture
def front(azurite: Azurite, authority: Authority) -> Iterator[Front]:
    tls: ssl.SSLContext = authority.server(FRONT)
    own = f"https://{azurite.account}.blob.core.windows.net"
    with Front(azurite.port, tls, own=own, account=azurite.account) as front:
        yield front


def test_what_is_there_already_is_copied_from_the_account_itself(
    front: Front, authority: Authority, azurite: Azurite, azure_container: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = os.urandom(2 * MIB + 1)
    with store_behind(front, authority, azurite, azure_container, front.own) as store:
        original = store.put("old", io.BytesIO(content), size=len(content))
        copy = store.put("new", io.BytesIO(content), size=len(content), twin=Twin("old", original.etag))
        assert copy.spared == len(content)
        with store.open("new") as stream:
            assert stream.read() == content
    assert set(front.copied_from) == {f"{front.own}/{azure_container}/old"}
    assert caplog.records == []


def test_what_cannot_be_copied_is_sent_and_that_is_said_once(
    front: Front, authority: Authority, azurite: Azurite, azure_container: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The emulator does not find the front, as Azure does not."""
    content = os.urandom(2 * MIB + 1)
    with store_behind(front, authority, azurite, azure_container, f"https://{FRONT}:{front.port}") as store:
        original = store.put("old", io.BytesIO(content), size=len(content))
        for key in ("new", "another"):
            copy = store.put(key, io.BytesIO(content), size=len(content), twin=Twin("old", original.etag))
            assert copy.spared == 0
            with store.open(key) as stream:
                assert stream.read() == content
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"not copied inside Azure from https://{FRONT}:{front.port}/{azure_container}, and sent instead" in said
    assert "sig=" not in said


@pytest.mark.parametrize(
    ("name", "url", "own"),
    [
        ("hospital", "https://upload.example.org", "https://hospital.blob.core.windows.net"),
        ("hospital", None, "https://hospital.blob.core.windows.net"),
        ("hospital", "https://hospital.blob.core.usgovcloudapi.net", "https://hospital.blob.core.usgovcloudapi.net"),
        (None, "https://hospital.blob.core.windows.net/", "https://hospital.blob.core.windows.net"),
        ("devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1"),
    ],
)
def test_the_address_of_an_account_itself(name: str | None, url: str | None, own: str) -> None:
    assert own_address(account_of(name, url)) == own


def test_of_nothing_nothing_is_known() -> None:
    assert own_address(Account(None, None)) is None
