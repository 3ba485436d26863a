"""What the service has already does not go over the wire again: renamed files, and content that is there twice."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import settings

from chorus_upload.journal import planning
from tests.e2e.clouds import CENTRAL, Container, files_of, manifest_for, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.mortal import Fault
from tests.e2e.site import Site
from tests.e2e.test_model import TwoHistories
from tests.trees import Bytes, build, bytes_of, contents, rename
from tests.wire import Wire

LARGE = 9 << 20
SMALL = 100 << 10


@pytest.fixture
def site(tmp_path: Path, container: Container, wire: Wire) -> Site:
    """A site that is separated from its cloud by a wire."""
    return settle(tmp_path / "home", tmp_path / "source", dataclasses.replace(container, port=wire.port))


def bytes_sent(wire: Wire, container: Container) -> dict[str, int]:
    """How many bytes of each file went over the wire since the last time that this was asked for."""
    start = f"/{container.name}/{CENTRAL}/"
    sent: dict[str, int] = {}
    for request in wire.requests:
        key = unquote(urlsplit(request.target).path).partition(start)[2]
        if request.method == "PUT" and key.endswith(".dcm") and "comp=blocklist" not in request.target:
            sent[key] = sent.get(key, 0) + request.size
    wire.requests.clear()
    return sent


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one block", "several"])
def test_a_renamed_file(size: int, site: Site, container: Container, wire: Wire) -> None:
    """It is where the new version has it, proven, and its bytes went out once."""
    build(site.source, {"1001/Images/old.dcm": Bytes(size)})
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    assert bytes_sent(wire, container) == {"spring/1001/Images/old.dcm": size}
    rename(site.source, "1001/Images/old.dcm", "1001/Images/new.dcm")
    build(site.source, {"1001/Images/more.dcm": Bytes(50)})

    site.run("journal", "update", "--version", "autumn")
    upload = site.run("--verbose", "file", "upload")

    key = "autumn/1001/Images/new.dcm"
    assert bytes_sent(wire, container) == {key: 0, "autumn/1001/Images/more.dcm": 50}
    body = bytes_of("1001/Images/old.dcm", Bytes(size))
    objects = container.objects()
    assert files_of(objects)[key] == body
    assert manifest_of(objects, "autumn")[key] == manifest_for({key: body}, "autumn", evidence="transit")[key]
    assert "were there already or were copied inside the service." in upload.out
    assert f"{key}: sent (but for " in upload.err
    site.run("file", "verify")


def test_content_that_is_there_more_than_once(site: Site, container: Container, wire: Wire) -> None:
    content = bytes_of("a scan", Bytes(LARGE))
    build(site.source, {f"{patient}/Images/scan.dcm": content for patient in (1001, 1002, 1003)})
    site.run("journal", "update", "--version", "spring")

    upload = site.run("--json", "file", "upload")

    sent = bytes_sent(wire, container)
    assert sorted(sent.values()) == [0, 0, LARGE]
    assert sorted(each["spared"] for each in upload.events("file-delivered")) == [0, LARGE, LARGE]
    assert upload.event("upload-finished")["spared"] == 2 * LARGE
    tree = {f"spring/{path}": body for path, body in contents(site.source).items()}
    assert files_of(container.objects()) == tree
    assert manifest_of(container.objects(), "spring") == manifest_for(tree, "spring", evidence="transit")


def test_a_copy_that_somebody_has_changed_is_not_copied(site: Site, container: Container, wire: Wire) -> None:
    """Under the old name there is something else by now: then the file is sent."""
    build(site.source, {"1001/Images/old.dcm": Bytes(SMALL)})
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    bytes_sent(wire, container)
    container.put(f"{CENTRAL}/spring/1001/Images/old.dcm", bytes(SMALL))
    rename(site.source, "1001/Images/old.dcm", "1001/Images/new.dcm")

    site.run("journal", "update", "--version", "autumn", "--confirm-deletions")
    upload = site.run("--json", "file", "upload").event("upload-finished")

    key = "autumn/1001/Images/new.dcm"
    assert (upload["delivered"]["files"], upload["spared"]) == (1, 0)
    assert files_of(container.objects())[key] == bytes_of("1001/Images/old.dcm", Bytes(SMALL))
    assert bytes_sent(wire, container) == {key: SMALL}


class TwinsOfAnySize(TwoHistories):
    """The histories of `test_model.py`, when the smallest files may have twins: all must end as well as without."""

    def _upload(self, *, max_files: int | None, faults: list[Fault | None], after: int | None = None) -> set[str]:
        with patch.object(planning, "TWIN_BYTES", 1):
            return super()._upload(max_files=max_files, faults=faults, after=after)


TwinsOfAnySize.TestCase.settings = settings(
    TwoHistories.TestCase.settings, max_examples=100 if os.environ.get("CHORUS_EVERY_STEP") else 6
)
# As there: finding the shortest history that fails takes longer than a test may take.
TestTwinsOfAnySize = pytest.mark.timeout(600)(TwinsOfAnySize.TestCase)
