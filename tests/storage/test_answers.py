"""What of an answer is believed: only what the service itself says, and only of what it was asked."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from chorus_upload.errors import StorageError, TransientError
from chorus_upload.storage.answers import foreign_wait, md5_in, moment_in, size_in
from chorus_upload.storage.cloud_source import CloudSource
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3_errors import FOREIGN, LedAway, translate
from chorus_upload.storage.service_mark import Unmarked
from tests.faults.troubles import PORTAL, another_range, flip_body, flip_header, redirect
from tests.storage.places import PART, Place, opened_place
from tests.trees import Bytes, bytes_of
from tests.wire import Alter, Answer, Wire

RETRY = Retry(patience=10, first=0.01, longest=0.05)
SMALL = bytes_of("small", Bytes(3_000))
LARGE = bytes_of("large", Bytes(PART + 300_000))
PAGE = Answer(200, (("Content-Type", "text/html"),), PORTAL)


@pytest.fixture(params=["azure", "s3", "google"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened_place(request.param, request.getfixturevalue, retry=RETRY) as place:
        yield place


@pytest.fixture(params=["azure", "s3", "google"])
def place_of_the_impatient(request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened_place(request.param, request.getfixturevalue, retry=Retry(patience=0)) as place:
        yield place


def content_of(place: Place, key: str) -> bytes:
    with place.store.open(key) as stream:
        return stream.read()


def test_a_page_of_somebody_else_deletes_nothing(place: Place) -> None:
    place.store.put("a", SMALL, size=len(SMALL))
    place.wire.script(PAGE, method="DELETE")
    place.store.delete("a")
    assert place.store.stat("a") is None


@pytest.mark.parametrize("page", [PAGE, Answer(201), Answer(200)], ids=["a page", "201", "200"])
def test_a_page_of_somebody_else_stores_nothing(page: Answer, place: Place) -> None:
    place.wire.script(page, method=place.sends_with)
    place.store.put("a", SMALL, size=len(SMALL), create_only=True)
    assert content_of(place, "a") == SMALL


@pytest.mark.parametrize("page", [PAGE, Answer(201), Answer(200)], ids=["a page", "201", "200"])
def test_nor_a_part_of_a_large_object(page: Answer, place: Place) -> None:
    place.wire.script(page, method="PUT")
    try:
        place.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    except TransientError:
        # The session of Google's is over then, as far as anybody can know, and the body cannot be read again.
        assert isinstance(place.store, GsStore)
        place.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    assert content_of(place, "a") == LARGE


def test_another_part_is_not_the_one_that_was_asked_for(place: Place) -> None:
    etag = place.store.put("a", LARGE, size=len(LARGE)).etag
    place.wire.script(Alter(another_range), method="GET", containing=place.for_content)
    assert content_of(place, "a") == LARGE
    place.wire.script(Alter(another_range), method="GET", containing=place.for_content)
    assert place.store.read_range("a", offset=10, length=20, etag=etag) == LARGE[10:30]


@pytest.mark.parametrize("header", ["content-md5", "etag", "last-modified", "date"])
def test_an_answer_that_is_garbled_is_no_defect_of_ours(header: str, place: Place) -> None:
    """It may be that what was sent is there, and even that nobody knows; the program knows what to do then."""
    place.wire.script(Alter(flip_header(header)), method=place.sends_with)
    try:
        place.store.put("a", SMALL, size=len(SMALL), create_only=True)
    except StorageError:
        assert content_of(place, "a") == SMALL


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_is_followed_to_another_place(status: int, place_of_the_impatient: Place) -> None:
    place = place_of_the_impatient
    place.store.put("a", SMALL, size=len(SMALL))
    with Wire(place.wire.upstream) as elsewhere:
        place.wire.chance = redirect(status, elsewhere.port).happen
        for ask in (
            lambda: list(place.store.scan()),
            lambda: place.store.stat("a"),
            lambda: content_of(place, "a"),
            lambda: place.store.put("b", SMALL, size=len(SMALL)),
            lambda: place.store.put("c", io.BytesIO(LARGE), size=len(LARGE)),
            lambda: place.store.delete("a"),
        ):
            with pytest.raises(StorageError):
                ask()
        assert elsewhere.requests == []


class TestFilesOfAService:
    """Of a file that nobody has read before, only the service can say whether it has arrived as it is."""

    def test_a_bit_that_is_another_one_on_its_way(self, place: Place) -> None:
        place.store.put("a", SMALL, size=len(SMALL))
        source = CloudSource(place.store)
        place.wire.script(Alter(flip_body(0.5)), method="GET", containing=place.for_content)
        assert source.read_small("a", size=len(SMALL)).data == SMALL
        with source.open("a") as stream:
            assert source.open_md5(stream) is not None

    def test_one_that_arrives_in_another_way_each_time(self, place: Place) -> None:
        place.store.put("a", SMALL, size=len(SMALL))
        source = CloudSource(place.store)
        for part in (0.5, 0.6, 0.7):
            place.wire.script(Alter(flip_body(part)), method="GET", containing=place.for_content)
        if isinstance(place.store, GsStore):
            # It compares each answer with the MD5 that comes with it, and asks again.
            assert source.read_small("a", size=len(SMALL)).data == SMALL
            return
        with pytest.raises(TransientError, match="does not arrive"):
            source.read_small("a", size=len(SMALL))


def test_what_headers_say() -> None:
    assert md5_in(None) is None
    assert md5_in("AAAAAAAAAAAAAAAAAAAAAA==") == bytes(16)
    assert size_in("bytes 3-5/9", b"abc", offset=3) == 9
    for wrong in ("bytes 4-6/9", "bytes 3-6/9", "bytes 3-5/*", "", None):
        with pytest.raises(TransientError):
            size_in(wrong, b"abc", offset=3)
    for wrong in ("AAAA", "no base64", "AAAAAAAAAAAAAAAAAAAA=="):
        with pytest.raises(TransientError):
            md5_in(wrong)
    with pytest.raises(TransientError):
        moment_in("yesterday")


@pytest.mark.parametrize(("asked", "seconds"), [("3600", 60.0), ("5", 5.0), (None, None)])
def test_a_page_of_somebody_else_holds_nobody_up_for_long(asked: str | None, seconds: float | None) -> None:
    assert foreign_wait(Unmarked(503, "x-ms-request-id", asked)) == seconds


def test_a_redirect_of_s3_is_an_error_of_ours() -> None:
    error = LedAway("the response is a redirect")

    assert isinstance(error, FOREIGN)
    assert "looking at a: the response is a redirect" in translate(error, doing="looking at a").message
