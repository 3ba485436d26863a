"""A service that ignores conditions, or a gateway that takes them off: it is found before it is trusted."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from chorus_upload.errors import ConditionsIgnored, ObjectExists, PreconditionFailed, StorageError, TransientError
from chorus_upload.model import Twin
from chorus_upload.storage import azure_upload, gs_upload, s3_upload
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.retry import Retry
from tests.e2e.clouds import LOCK, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.faults.troubles import portal
from tests.storage.places import PART, Place, opened_place
from tests.trees import Bytes, build, bytes_of
from tests.wire import DropAnswer, Fault, Request, Wire

PATIENT = Retry(patience=20, first=0.001, longest=0.002)
SMALL = bytes_of("small", Bytes(3_000))
LARGE = bytes_of("large", Bytes(PART + 300_000))


def without_conditions(head: bytes) -> bytes:
    """The head of a request as a gateway lets it through that knows no conditions on writes."""
    if head.startswith((b"GET", b"HEAD")):
        return head
    line, _, rest = re.sub(rb"(?im)^if-(none-)?match:[^\r\n]*\r\n", b"", head).partition(b"\r\n")
    return re.sub(rb"&?\bifGenerationMatch=\d+", b"", line) + b"\r\n" + rest


def ignore_conditions(wire: Wire, fixture: Callable[[str], Any], service: str) -> None:
    """S3 signs headers: there an object is removed before the write that must not meet it, which comes to the same."""
    wire.forward = without_conditions
    if service == "s3":
        client = fixture("seaweedfs").client
        wire.forward = bytes

        def remove(request: Request) -> None:
            if request.headers.get("if-none-match") and request.method in ("PUT", "POST"):
                bucket, _, key = unquote(urlsplit(request.target).path).lstrip("/").partition("/")
                client.delete_object(Bucket=bucket, Key=key)

        wire.chance = remove


def is_completion(line: bytes) -> bool:
    """Whether a request makes an object of its parts, or begins what ends so: there conditions belong to it."""
    is_multipart = b"uploadId=" in line and line.startswith(b"POST")
    return is_multipart or b"comp=blocklist" in line or b"uploadType=resumable" in line


def ignore_them_for_parts(wire: Wire, fixture: Callable[[str], Any], service: str) -> None:
    """As some services like S3 do, which honour conditions of objects in one request."""
    ignore_conditions(wire, fixture, service)
    ignored, removed = wire.forward, wire.chance
    wire.forward = lambda head: ignored(head) if is_completion(head.partition(b"\r\n")[0]) else head
    if removed is not None:
        wire.chance = lambda it: removed(it) if is_completion(f"{it.method} {it.target}".encode()) else None


def is_write(request: Request) -> bool:
    return request.method in ("PUT", "POST")


def content_of(place: Place, key: str) -> bytes:
    with place.store.open(key) as stream:
        return stream.read()


@pytest.fixture
def check() -> ConditionCheck:
    return ConditionCheck("the place")


@pytest.fixture(params=SERVICES)
def place(check: ConditionCheck, request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened_place(request.param, request.getfixturevalue, retry=PATIENT, check=check) as it:
        yield it


@pytest.fixture
def ignoring(place: Place, request: pytest.FixtureRequest) -> Place:
    ignore_conditions(place.wire, request.getfixturevalue, request.node.callspec.params["place"])
    return place


def test_the_first_put_is_repeated_and_no_other(place: Place) -> None:
    stored = place.store.put("a", SMALL, size=len(SMALL), create_only=True)
    writes = [each for each in place.wire.requests if is_write(each)]
    assert len(writes) == len(place.wire.checks) == 1
    assert place.wire.checks[0].asks_as(writes[0])
    place.wire.requests.clear()
    place.store.put("b", SMALL, size=len(SMALL), create_only=True)
    assert len(place.wire.requests) == 1
    # The first replacement is tried with an etag that no object has.
    place.wire.requests.clear()
    replaced = place.store.put("a", SMALL + b"!", size=len(SMALL) + 1, if_match=stored.etag)
    assert len([each for each in place.wire.requests if is_write(each)]) == 2
    place.wire.requests.clear()
    place.store.put("a", SMALL, size=len(SMALL), if_match=replaced.etag)
    assert len(place.wire.requests) == 1
    assert len(place.wire.checks) == 1
    assert content_of(place, "a") == SMALL


def test_a_large_one_is_not_sent_twice(place: Place, request: pytest.FixtureRequest) -> None:
    stored = place.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    found = place.store.stat("a")
    assert found is not None
    # In Azure and Google each write has another etag, and nothing was written again.
    assert found.etag == stored.etag
    assert sum(each.size for each in place.wire.requests) < len(LARGE) + 10_000
    assert [each.key for each in place.store.scan()] == ["a"]
    if request.node.callspec.params["place"] == "s3":
        bucket = place.store.url.rpartition("/")[2]
        assert request.getfixturevalue("seaweedfs").sessions(bucket) == []
    other = LARGE[::-1]
    with pytest.raises(PreconditionFailed):
        place.store.put("a", io.BytesIO(other), size=len(other), if_match="0x1")
    place.store.put("a", io.BytesIO(other), size=len(other), if_match=stored.etag)
    assert content_of(place, "a") == other


def test_a_copy_may_be_the_first(place: Place, request: pytest.FixtureRequest) -> None:
    twin = Twin("a", place.store.put("a", io.BytesIO(LARGE), size=len(LARGE)).etag)
    stored = place.store.put("b", io.BytesIO(LARGE), size=len(LARGE), create_only=True, twin=twin)
    assert stored.spared == len(LARGE)
    assert content_of(place, "b") == LARGE


def test_a_lost_answer_to_it(place: Place) -> None:
    """The repeated request meets its own result, and is refused: that is what was asked for."""
    place.wire.script(DropAnswer(), method=place.sends_with)
    with pytest.raises(ObjectExists):
        place.store.put("a", SMALL, size=len(SMALL), create_only=True)
    place.wire.requests.clear()
    place.store.put("b", SMALL, size=len(SMALL), create_only=True)
    assert len(place.wire.requests) == 1


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_nothing_more_is_written_where_it_is_accepted(ignoring: Place, content: bytes, figures: Figures) -> None:
    with pytest.raises(ConditionsIgnored, match="the place ignores conditions: it took a a second time") as caught:
        ignoring.store.put("a", io.BytesIO(content), size=len(content), create_only=True)
    assert "Do not use this place" in (caught.value.hint or "")
    # A session at Google is tried with another name.
    assert content_of(ignoring, "a") == content
    with pytest.raises(ConditionsIgnored):
        ignoring.store.put("b", SMALL, size=len(SMALL), create_only=True)
    assert [each.key for each in ignoring.store.scan()] == ["a"]
    figures.count("places that ignore conditions")


def test_what_somebody_else_has_put_there_is_not_overwritten(ignoring: Place, figures: Figures) -> None:
    """Not even by the first put."""
    ignoring.store.put("a", b"theirs", size=6)
    for content in (SMALL, LARGE):
        with pytest.raises(ObjectExists):
            ignoring.store.put("a", io.BytesIO(content), size=len(content), create_only=True)
    assert content_of(ignoring, "a") == b"theirs"
    figures.count("places that ignore conditions")


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("place", ["azure", "google"], indirect=True)
def test_nor_is_it_replaced(ignoring: Place, content: bytes, figures: Figures) -> None:
    """(Of S3 that cannot be shown here: it signs the condition.)"""
    etag = ignoring.store.put("a", SMALL + b"!", size=len(SMALL) + 1).etag
    ignoring.store.put("a", b"theirs", size=6)
    with pytest.raises(PreconditionFailed):
        ignoring.store.put("a", io.BytesIO(content), size=len(content), if_match=etag)
    assert content_of(ignoring, "a") == b"theirs"
    there = ignoring.store.stat("a")
    assert there is not None
    with pytest.raises(ConditionsIgnored, match="told to replace another object"):
        ignoring.store.put("a", io.BytesIO(content), size=len(content), if_match=there.etag)
    figures.count("places that ignore conditions")


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_huge_object_is_not_copied_onto_itself(
    place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """Others would wait for that. It is tried with one byte, and nothing wrong stays where that is accepted."""
    monkeypatch.setattr(s3_upload, "_LARGEST_COPIED", len(LARGE) - 1)
    place.store.put("huge", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    assert content_of(place, "huge") == LARGE
    assert not [each for each in place.wire.requests if "x-amz-copy-source" in each.headers]
    bucket = place.store.url.rpartition("/")[2]
    assert request.getfixturevalue("seaweedfs").sessions(bucket) == []
    with opened_place("s3", request.getfixturevalue, retry=PATIENT, check=ConditionCheck("the place")) as other:
        ignore_them_for_parts(other.wire, request.getfixturevalue, "s3")
        with pytest.raises(ConditionsIgnored, match="it took a a second time"):
            other.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
        assert list(other.store.scan()) == []
        # Nor does a wrong one pass for the right one when the answer to that is lost.
        with opened_place("s3", request.getfixturevalue, retry=PATIENT, check=ConditionCheck("the place")) as lossy:
            ignore_them_for_parts(lossy.wire, request.getfixturevalue, "s3")
            removed, completions = lossy.wire.chance, []

            def lose(it: Request) -> Fault | None:
                removed(it) if removed is not None else None
                completions.extend([it] if it.method == "POST" and "uploadId=" in it.target else [])
                return DropAnswer() if len(completions) == 2 and it is completions[1] else None

            lossy.wire.chance = lose
            with pytest.raises(ConditionsIgnored, match="it took a a second time"):
                lossy.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
            assert list(lossy.store.scan()) == []
    figures.count("places that ignore conditions")


def test_one_that_ignores_them_for_parts_only(place: Place, request: pytest.FixtureRequest, figures: Figures) -> None:
    """A small file has gone well before, and one that somebody else writes meanwhile is not overwritten."""
    ignore_them_for_parts(place.wire, request.getfixturevalue, request.node.callspec.params["place"])
    place.store.put("small", SMALL, size=len(SMALL), create_only=True)
    with pytest.raises(ConditionsIgnored, match="a second time"):
        place.store.put("a", io.BytesIO(LARGE), size=len(LARGE), create_only=True)
    assert content_of(place, "a") == LARGE
    # Nothing more is written, in whatever way.
    for content in (SMALL, LARGE):
        with pytest.raises(ConditionsIgnored):
            place.store.put("b", io.BytesIO(content), size=len(content), create_only=True)
    assert sorted(each.key for each in place.store.scan()) == ["a", "small"]
    figures.count("places that ignore conditions")


@pytest.mark.parametrize("place", ["azure", "google"], indirect=True)
def test_and_replaces_no_large_one(place: Place, request: pytest.FixtureRequest, figures: Figures) -> None:
    ignore_them_for_parts(place.wire, request.getfixturevalue, request.node.callspec.params["place"])
    etag = place.store.put("small", SMALL, size=len(SMALL), create_only=True).etag
    place.store.put("small", SMALL + b"!", size=len(SMALL) + 1, if_match=etag)
    theirs = place.store.put("a", io.BytesIO(LARGE), size=len(LARGE))
    with pytest.raises(ConditionsIgnored, match="told to replace another object"):
        place.store.put("a", io.BytesIO(LARGE[::-1]), size=len(LARGE), if_match=theirs.etag)
    figures.count("places that ignore conditions")


def test_a_second_write_that_comes_to_nothing_holds_up_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """The object is there, and the next one finds out whether conditions are honoured."""
    for module in (azure_upload, gs_upload, s3_upload):
        monkeypatch.setattr(module, "HASTE", 0.0)
    writes: list[Request] = []

    def hinder(request: Request) -> Fault | None:
        if not is_write(request):
            return None
        writes.append(request)
        return portal(503) if len(writes) == 2 else None

    place.wire.chance = hinder
    assert place.store.put("a", SMALL, size=len(SMALL), create_only=True).size == len(SMALL)
    assert len(writes) == 2
    place.store.put("b", SMALL, size=len(SMALL), create_only=True)
    place.store.put("c", SMALL, size=len(SMALL), create_only=True)
    assert len(writes) == 5
    figures.count("pages of a proxy")


def test_an_object_that_is_kept_back_holds_up_nobody(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """It comes first, and all others wait for it; a filter on the way does not let it pass."""
    for module in (azure_upload, gs_upload, s3_upload):
        monkeypatch.setattr(module, "HASTE", 0.0)
    retry = Retry(patience=20, first=0.001, longest=0.002, aside=20)
    retry.liveness.ask = lambda: None
    with opened_place("azure", request.getfixturevalue, retry=retry, check=ConditionCheck("the place")) as place:
        place.wire.chance = lambda request: portal(403) if is_write(request) and "/secret" in request.target else None
        with pytest.raises(TransientError, match="after 3 attempts"):
            place.store.put("secret", SMALL, size=len(SMALL), create_only=True)
        place.store.put("a", SMALL, size=len(SMALL), create_only=True)
        figures.count("pages of a filter", place.wire.count("PUT", "/secret"))
    assert place.wire.count("PUT", "/secret") == 3


def test_of_sixteen_threads_one_writes(ignoring: Place, figures: Figures) -> None:
    def put(number: int) -> type[StorageError] | None:
        try:
            ignoring.store.put(f"file-{number}", SMALL, size=len(SMALL), create_only=True)
        except StorageError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(put, range(32))) == {ConditionsIgnored}
    assert len(list(ignoring.store.scan())) == 1
    figures.count("places that ignore conditions")


@pytest.mark.parametrize("service", SERVICES)
def test_two_machines(
    service: str, services: Services, tmp_path: Path, request: pytest.FixtureRequest, figures: Figures
) -> None:
    """The second check-out is refused by the lock of the first, or the first refuses to work there."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        source = build(tmp_path / "source", {f"{number}/Images/scan.dcm": Bytes(100) for number in range(1001, 1009)})
        site = settle(tmp_path / "home", source, cloud, threads=4)
        other = Site(tmp_path / "other", source, cloud)
        other.configure(site.config.read_text().replace(str(site.home), str(other.home)))
        site.run("journal", "update", "--version", "spring")
        site.run("journal", "checkout")
        lock = cloud.objects()[LOCK]

        ignore_conditions(wire, request.getfixturevalue, service)
        other.run("journal", "checkout", exit_code=10)
        assert cloud.objects()[LOCK] == lock
        # The first has its lock already; it sends one file at most, and no second one.
        refused = site.run("file", "upload", exit_code=30)
        assert "ignores conditions" in refused.err
        assert "hint:" in refused.err
        assert len(files_of(cloud.objects())) <= 1

        cloud.delete(LOCK)
        other.run("journal", "checkout", exit_code=30)
        assert LOCK not in cloud.objects()
    figures.count("places that ignore conditions")
