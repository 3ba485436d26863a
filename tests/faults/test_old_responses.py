"""A cache that gives out the service's own responses of another time: they carry its mark, and prove nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chorus_upload.errors import TransientError
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3 import S3Store
from tests.e2e.clouds import CENTRAL, files_of
from tests.e2e.conftest import settle
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.storage.places import Place, opened_place
from tests.trees import Bytes, build
from tests.wire import Alter, Fault, Request, Wire

READS = ("GET", "HEAD")


@dataclass(slots=True)
class Cache:
    """Keeps every response to a request that reads; with `heeds` it gives none to a request that does not want it."""

    figures: Figures
    heeds: object = False
    _kept: dict[tuple[str, ...], bytes] = field(default_factory=dict)

    def __call__(self, request: Request) -> Fault | None:
        if request.method not in READS:
            assert "cache-control" not in request.headers, "a write would leave that with the object"
            return None
        if self.heeds and request.headers.get("cache-control") == request.headers.get("pragma") == "no-cache":
            self.figures.count("requests that want no old response")
            return None
        ranges = (request.headers.get(name, "") for name in ("range", "x-ms-range"))
        this = (request.method, request.target, *ranges)
        return Alter(lambda head, body: self._response(this, head, body))

    def _response(self, this: tuple[str, ...], head: bytes, body: bytes) -> bytes:
        if this in self._kept:
            self.figures.count("old responses")
            return self._kept[this]
        self._kept[this] = head + body
        return self._kept[this]


@pytest.mark.parametrize(("service", "heeds"), [("azure", False), *((service, True) for service in SERVICES)])
def test_verify_does_not_bless_what_is_gone(
    service: str, services: Services, tmp_path: Path, figures: Figures, heeds: object
) -> None:
    """A cache that heeds nothing is found by what Azure repeats of each request, even by another run."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        tree = {f"{number}/Images/scan.dcm": Bytes(100) for number in range(1001, 1004)}
        site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, patience=1)
        site.run("journal", "update", "--version", "spring")
        site.run("file", "upload")
        key = f"{CENTRAL}/spring/1002/Images/scan.dcm"
        assert key.partition("/")[2] in files_of(cloud.objects())
        wire.chance = Cache(figures, heeds=heeds)
        site.run("file", "verify", exit_code=None)
        cloud.delete(key)

        verify = site.run("file", "verify", exit_code=None)

        if heeds:
            assert verify.exit_code == 3
            assert "missing: " in verify.err + verify.out
        else:
            assert verify.exit_code == 26
            assert "the response is an old one" in verify.err
            assert "keeps old responses" in verify.err
            assert "is in the central store" not in verify.err + verify.out


@pytest.fixture(params=SERVICES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened_place(request.param, request.getfixturevalue, retry=Retry(patience=0)) as place:
        yield place


@pytest.mark.parametrize("place", ["azure", "s3"], indirect=True)
def test_what_was_there_before_is_not_believed_again(place: Place, figures: Figures) -> None:
    """Neither that an object is there, nor a page of a listing; in S3 nor that an object is not there.

    (Azurite does not repeat what the client calls a request when it refuses it, as the service does.)
    """
    store = place.store
    store.put("a", b"x", size=1)
    place.wire.chance = Cache(figures)
    assert store.stat("a") is not None
    assert store.stat("b") is None
    assert [each.key for each in store.scan()] == ["a"]

    asked: list[Callable[[], object]] = [lambda: store.stat("a"), lambda: list(store.scan())]
    if isinstance(store, S3Store):
        asked.append(lambda: store.stat("b"))
    for ask in asked:
        with pytest.raises(TransientError, match="the response is an old one") as caught:
            ask()
        assert "keeps old responses" in (caught.value.hint or "")


@pytest.mark.parametrize("place", ["s3", "google"], indirect=True)
def test_what_says_its_age_is_not_believed_at_all(place: Place, figures: Figures) -> None:
    """An orderly cache says it, also of what another run has asked for. (Azure names the request as well.)"""
    store = place.store
    store.put("a", b"x", size=1)

    def add_age(request: Request) -> Fault | None:
        if request.method not in READS:
            return None
        figures.count("old responses")
        return Alter(lambda head, body: head.replace(b"\r\n", b"\r\nAge: 86400\r\n", 1) + body)

    place.wire.chance = add_age
    for ask in (lambda: store.stat("a"), lambda: list(store.scan())):
        with pytest.raises(TransientError, match="the response is an old one"):
            ask()
