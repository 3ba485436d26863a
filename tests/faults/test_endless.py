"""Nothing is repeated for ever, and nothing without a pause: not even beside a cache that always says the same."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, AuthMode, Location
from chorus_upload.errors import ObjectNotFound, TransientError
from chorus_upload.operations import lock
from chorus_upload.storage import tries
from chorus_upload.storage.guard import guarded
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store
from chorus_upload.storage.parts import new_part
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.share_source import Found, Kind, Share, ShareSource
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.store import ObjectStream, StoredObject
from tests.e2e.clouds import Container
from tests.e2e.conftest import settle
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.gs import Bucket as GsBucket
from tests.s3 import Bucket as S3Bucket
from tests.trees import Bytes, build
from tests.wire import Alter, Fault, Request, Wire

OF_THE_REQUEST = re.compile(rb"(?im)^(?:x-ms-client-request-id|x-amz-request-id): [^\r\n]*\r\n")


class Cache:
    """Gives to all requests of a kind what the first one got, as if it had been asked for again.

    So it looks like a service that goes in a circle; what shows itself to be old is in test_old_responses.py.
    """

    def __init__(self, is_meant: Callable[[Request], bool], figures: Figures) -> None:
        self._is_meant = is_meant
        self._figures = figures
        self._kept: bytes | None = None

    def __call__(self, request: Request) -> Fault | None:
        return Alter(self._response) if self._is_meant(request) else None

    def _response(self, head: bytes, body: bytes) -> bytes:
        if self._kept is None:
            self._kept = OF_THE_REQUEST.sub(b"", head) + body
        else:
            self._figures.count("old responses")
        line, _, rest = self._kept.partition(b"\r\n")
        return line + b"\r\n" + b"".join(each[0] for each in OF_THE_REQUEST.finditer(head)) + rest


def test_unlocking_beside_a_cache_that_keeps_the_head_of_the_lock(
    tmp_path: Path, container: Container, wire: Wire, figures: Figures
) -> None:
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", {"a": Bytes(1)}), cloud)
    site.run("journal", "checkout")
    wire.chance = Cache(lambda request: request.method == "HEAD" and ".locked" in request.target, figures)
    # It gets into the cache, and then the lock is given back without the cache hearing of it.
    site.run("journal", "unlock", exit_code=None)
    container.delete("journal/journal.db.locked")
    wire.requests.clear()

    unlock = site.run("journal", "unlock", "--yes", exit_code=26)

    assert "journal.db.locked in " in unlock.err
    assert "cannot be read" in unlock.err
    assert "keep old responses" in unlock.err
    assert wire.count("HEAD", ".locked") < 10


class Forgetful(LocalStore):
    """Says that there is a lock, and has none."""

    looks = 0

    def stat(self, key: str) -> StoredObject | None:
        self.looks += 1
        return StoredObject(key, 10, "etag", 0)

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        raise ObjectNotFound(key)


def test_a_lock_that_is_there_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    paused: list[float] = []
    monkeypatch.setattr(time, "sleep", paused.append)
    store = Forgetful(tmp_path)

    with pytest.raises(TransientError, match="cannot be read"):
        lock.read(store, "journal.db")

    figures.count("old responses", store.looks)
    assert store.looks == 5
    assert len(paused) == 4
    assert all(seconds > 0 for seconds in paused)


def _place(services: Services, service: str) -> tuple[Callable[[int], Location], Callable[[str, bytes], None], int]:
    """A place at a service by the port through which it is reached, what puts an object there, and its own port."""
    cloud, port = services.cloud(service)
    match cloud:
        case Container():
            token = SecretStr(cloud.token)

            def at(port: int) -> Location:
                url = dataclasses.replace(cloud, port=port).url
                auth = Auth(mode=AuthMode.SAS_TOKEN, azure_account_url=url, azure_sas_token=token)
                return Location(path=f"az://{cloud.name}", auth=auth)

        case S3Bucket():
            secret = SecretStr(cloud.service.secret)

            def at(port: int) -> Location:
                auth = Auth(
                    mode=AuthMode.ACCESS_KEY,
                    aws_access_key_id=cloud.service.key_id,
                    aws_secret_access_key=secret,
                    aws_endpoint_url=cloud.service.url_at(port),
                )
                return Location(path=f"s3://{cloud.name}", auth=auth)

        case GsBucket():

            def at(port: int) -> Location:
                auth = Auth(mode=AuthMode.ANONYMOUS, google_endpoint_url=cloud.service.url_at(port))
                return Location(path=f"gs://{cloud.name}", auth=auth)

        case _:
            raise AssertionError(service)
    return at, cloud.put, port


@pytest.mark.parametrize("service", SERVICES)
def test_a_listing_whose_pages_are_all_the_same_ends(service: str, services: Services, figures: Figures) -> None:
    at, put, port = _place(services, service)
    for name in "abc":
        put(name, b"x")
    with Wire(port) as wire, open_store(at(wire.port), Network(patience=1)) as store:
        vars(store)["_page_size"] = 1
        assert {found.key for found in store.scan()} == set("abc")
        wire.chance = Cache(
            lambda request: (
                request.method == "GET" and any(mark in request.target for mark in ("comp=list", "list-type=2", "/o?"))
            ),
            figures,
        )
        wire.requests.clear()

        with pytest.raises(TransientError, match="the same page comes again and again"):
            list(store.scan())

        assert wire.count("GET") < 5


def test_a_share_that_leads_in_a_circle_ends(figures: Figures) -> None:
    class Circle:
        url = "sftp://host/data"

        def list(self, path: str) -> list[Found]:
            figures.count("directories")
            return [Found("again", Kind.DIRECTORY, FileStat(0, 0)), Found("a.txt", Kind.FILE, FileStat(1, 0))]

    found = list(ShareSource(cast(Share, Circle()), Retry()).walk())

    assert len(found) < 1_024
    assert "so deep" in found[-1].problems[0].detail


@pytest.fixture
def _files_without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system on which a file that is opened never is the one that was looked at."""
    monkeypatch.setattr(os.path, "samestat", lambda _one, _other: False)
    monkeypatch.setattr(tries, "_LONGEST_SECONDS", 0.0)


@pytest.mark.usefixtures("_files_without_identity")
def test_a_file_system_that_does_not_tell_files_apart(tmp_path: Path, figures: Figures) -> None:
    figures.count("files without identity", 2)

    with pytest.raises(OSError, match="always replaced"), guarded(tmp_path):
        pass
    with pytest.raises(OSError, match="always replaced"):
        new_part(tmp_path)
