"""A log-in page, or a proxy, that answers in the place of the service: it refuses nothing, and proves nothing.

Its answers have what those of nginx and Express have: any status, an ETag, and a page.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from chorus_upload.errors import ObjectExists, PreconditionFailed, TransientError
from chorus_upload.model import Twin
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import RangedStore
from tests.faults.figures import Figures
from tests.faults.troubles import PORTAL, portal
from tests.storage.places import PART, Place, opened_place
from tests.trees import Bytes, bytes_of
from tests.wire import Fault, Request

SERVICES = ("azure", "s3", "google")
SMALL = bytes_of("small", Bytes(3_000))
OTHER = bytes_of("other", Bytes(3_001))
LARGE = bytes_of("large", Bytes(PART + 300_000))
PATIENT = Retry(patience=20, first=0.001, longest=0.002)
RARE = (201, 204, 206, 302, 401, 403, 409, 412, 416)
"""They are met in thorough runs only."""


@dataclass(slots=True)
class EachOnce:
    """Of each request the first one meets the portal; its answer is of that `status`."""

    status: int
    met: set[tuple[object, ...]] = field(default_factory=set)

    def __call__(self, request: Request) -> Fault | None:
        said = {
            name: value for name, value in request.headers.items() if name.startswith(("if-", "range", "content-r"))
        }
        this = (request.method, request.target, request.size, *sorted(said.items()))
        if this in self.met:
            return None
        self.met.add(this)
        return portal(self.status)


@pytest.fixture(params=SERVICES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened_place(request.param, request.getfixturevalue, retry=PATIENT) as place:
        yield place


def told(store: RangedStore) -> list[object]:
    """All that a store can do, and what it says of that."""
    said: list[object] = []
    store.probe()
    said.append([list(store.scan()), list(store.browse())])
    first = store.put("a", SMALL, size=len(SMALL), create_only=True)
    said += [first.size, first.checksum]
    with pytest.raises(ObjectExists):
        store.put("a", OTHER, size=len(OTHER), create_only=True)
    found = store.stat("a")
    assert found is not None
    said += [found.etag == first.etag, found.size, store.stat("absent")]
    with store.open("a") as stream:
        said.append(stream.read() == SMALL)
    said.append(store.read_range("a", offset=10, length=20, etag=first.etag) == SMALL[10:30])
    large = store.put("large", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    said += [large.size, large.transit_checked, large.checksum]
    twin = Twin("large", large.etag)
    said.append(store.put("dir/twin", io.BytesIO(LARGE), size=len(LARGE), create_only=True, twin=twin).spared)
    origin = store.origin("a")
    assert origin is not None
    copied = store.copy("dir/copy", origin, create_only=True)
    assert copied is not None
    said.append(copied.size)
    said.append(store.put("a", OTHER, size=len(OTHER), if_match=first.etag).size)
    with pytest.raises(PreconditionFailed):
        store.put("a", SMALL, size=len(SMALL), if_match=first.etag)
    said += [sorted((each.key, each.size) for each in store.scan()), sorted(map(str, store.browse("dir"))) != []]
    for key in ("large", "dir/twin"):
        with store.open(key) as stream:
            said.append(hashlib.sha256(stream.read()).hexdigest())
    store.delete("a")
    store.delete("dir/copy", if_match=copied.etag)
    store.delete("absent")
    said.append(sorted(each.key for each in store.scan()))
    return said


Known = dict[str, list[object]]


@pytest.fixture(scope="module")
def known() -> Known:
    """What is told of each service that nothing is the matter with."""
    return {}


@pytest.mark.parametrize("status", [200, 404, 308, *(pytest.param(each, marks=pytest.mark.thorough) for each in RARE)])
def test_every_request_meets_it_once(
    status: int,
    place: Place,
    known: dict[type[RangedStore], list[object]],
    request: pytest.FixtureRequest,
    figures: Figures,
) -> None:
    """What is asked for is done all the same, and nothing is believed that was not."""
    service = request.node.callspec.params["place"]
    if service not in known:
        with opened_place(service, request.getfixturevalue, retry=PATIENT) as calm:
            known[service] = told(calm.store)
    place.wire.chance = meets = EachOnce(status)
    assert told(place.store) == known[service]
    figures.count("faults", len(meets.met))


def test_it_says_what_is_in_the_way(request: pytest.FixtureRequest) -> None:
    """When patience ends: that something else has answered, and which key there is for that."""
    for service in SERVICES:
        with opened_place(service, request.getfixturevalue, retry=Retry(patience=0)) as place:
            store = place.store
            place.wire.chance = lambda _: portal(200)
            for ask in (
                store.probe,
                lambda store=store: list(store.scan()),
                lambda store=store: store.stat("a"),
                lambda store=store: store.open("a"),
                lambda store=store: store.put("a", SMALL, size=len(SMALL)),
                lambda store=store: store.put("a", SMALL, size=len(SMALL), create_only=True),
                lambda store=store: store.put("a", io.BytesIO(LARGE), size=len(LARGE)),
                lambda store=store: store.delete("a"),
            ):
                asked: Callable[[], object] = ask
                with pytest.raises(TransientError, match="something between here and the service") as caught:
                    asked()
                assert "`proxy`" in (caught.value.hint or "")
                assert PORTAL.decode() not in caught.value.message


def test_a_part_of_a_large_file_is_sent_again(place: Place, request: pytest.FixtureRequest) -> None:
    """It was refused for good: the service "reported a checksum that is not the part's"."""
    store, service = place.store, request.node.callspec.params["place"]
    part = {"azure": "comp=block&", "s3": "partNumber=2", "google": "upload_id"}[service]
    place.wire.script(portal(200), method="PUT", containing=part)
    store.put("large", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    with store.open("large") as stream:
        assert stream.read() == LARGE
