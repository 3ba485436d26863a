"""A filter on the way down that blackens what looks like a number of a patient, at the same length."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chorus_upload.errors import TransientError
from chorus_upload.operations.local_files import fetch
from chorus_upload.storage.retry import Retry
from chorus_upload.transfer.publish import publish
from tests.e2e.clouds import files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.storage.places import PART, opened_place
from tests.trees import Bytes, build, bytes_of, contents
from tests.wire import Alter, Fault, Request, Wire

NUMBER, BLACK = b"1234567890", b"XXXXXXXXXX"
QUICK = Retry(patience=0, first=0.001, longest=0.002)
CHECKSUMS = re.compile(rb"(?im)^(?:content-md5|x-ms-blob-content-md5|x-goog-hash): [^\r\n]*\r\n")


@dataclass(slots=True)
class Filter:
    """Blackens `number` in what is read of objects with `meant` in their names; with `hides` it removes checksums."""

    figures: Figures
    meant: str
    number: bytes = NUMBER
    hides: bool = False
    is_on: bool = True
    _acted: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Fault | None:
        is_read = request.method in ("GET", "HEAD") and self.meant in request.target
        return Alter(self._response) if self.is_on and is_read and "list" not in request.target else None

    def _response(self, head: bytes, body: bytes) -> bytes:
        if self.hides:
            head = CHECKSUMS.sub(b"", head)
        if self.number in body:
            self.figures.count("bodies blackened")
            body = body.replace(self.number, BLACK)
        return head + body


@pytest.mark.parametrize("service", SERVICES)
def test_no_altered_journal_is_taken(service: str, services: Services, tmp_path: Path, figures: Figures) -> None:
    """On a fresh machine: the history would become that of the altered one, and all would be sent again."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        source = build(tmp_path / "source", {f"{number}/Images/1234567890.dcm": Bytes(10) for number in range(3)})
        first = settle(tmp_path / "home", source, cloud, patience=0)
        first.run("journal", "update", "--version", "spring")
        first.run("file", "upload")
        before = cloud.objects()

        wire.chance = black = Filter(figures, "journal.db")
        fresh = Site(tmp_path / "fresh", source, cloud)
        fresh.configure(first.config.read_text().replace(str(first.home), str(fresh.home)))
        for command in ("update", "check", "list"):
            refused = fresh.run("journal", command, exit_code=26)
            assert "as it is stored" in refused.err
        assert not fresh.journal.exists()
        assert cloud.objects() == before

        black.is_on = False
        fresh.run("journal", "update", "--version", "summer")
        fresh.run("file", "upload")
        assert files_of(cloud.objects()) == files_of(before)
        fresh.run("file", "verify", "--all-versions")


@pytest.mark.parametrize("size", [3_000, PART + 300_000], ids=["small", "large"])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("hides", [False, True])
def test_an_object_of_ours_is_compared_with_what_we_wrote_beside_it(
    service: str, size: int, tmp_path: Path, request: pytest.FixtureRequest, figures: Figures, *, hides: bool
) -> None:
    """Where the service says no checksum of all of it (S3, in parts), or the filter hides it."""
    journal = tmp_path / "journal.db"
    content = bytes_of("journal", Bytes(size - len(NUMBER))) + NUMBER
    journal.write_bytes(content)
    with opened_place(service, request.getfixturevalue, retry=QUICK) as place:
        publish(place.store, "journal.db", journal)
        place.wire.chance = black = Filter(figures, "journal.db", hides=hides)
        with pytest.raises(TransientError, match="as it is stored"):
            fetch(place.store, "journal.db", tmp_path / "fetched")
        black.is_on = False
        fetch(place.store, "journal.db", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content


TREE = {"OMOP/person.csv": b"SSN 1234567890\n" * 20, "OMOP/note.csv": bytes(3 << 20) + NUMBER}
CLEAN = {"OMOP/care.csv": b"no number\n" * 20}


@pytest.mark.parametrize("service", ["azure", "s3"])
def test_no_altered_file_of_a_source_is_delivered(
    service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    """It is named with both checksums, and all others arrive."""
    origin, port = services.cloud(service)
    for path, body in {**TREE, **CLEAN}.items():
        origin.put(f"data/{path}", body)
    with Wire(port) as wire:
        origin = dataclasses.replace(origin, port=wire.port)  # type: ignore[type-var]
        wire.chance = black = Filter(figures, "OMOP/")
        cloud = new_disk(tmp_path / "cloud")
        site = settle(tmp_path / "home", tmp_path, cloud, patience=0)
        place = origin.config.partition("[central_path]")[2].replace("[central_path.auth]", "[site_path.default.auth]")
        site.configure(site.config.read_text().replace(f'path = "{tmp_path}"', place))
        site.run("journal", "update", "--version", "spring")

        upload = site.run("--json", "file", "upload", exit_code=3)

        failed = {each["path"]: each["detail"] for each in upload.events("file-failed")}
        assert failed.keys() == TREE.keys()
        for path, body in TREE.items():
            assert md5(body) in failed[path]
            assert md5(body.replace(NUMBER, BLACK)) in failed[path]
        assert files_of(cloud.objects()) == {f"spring/{path}": body for path, body in CLEAN.items()}

        black.is_on = False
        site.run("file", "upload")
        assert files_of(cloud.objects()) == {f"spring/{path}": body for path, body in {**TREE, **CLEAN}.items()}

        # What was delivered and is of another time is read at the update.
        for path, body in TREE.items():
            origin.put(f"data/{path}", body[::-1])
        black.number, black.is_on = NUMBER[::-1], True
        site.run("journal", "update", "--version", "summer")
        site.run("file", "upload", exit_code=3)
        assert not [key for key, body in files_of(cloud.objects()).items() if BLACK in body]


@pytest.mark.parametrize("service", SERVICES)
def test_no_altered_object_is_brought_back(service: str, services: Services, tmp_path: Path, figures: Figures) -> None:
    cloud, port = services.cloud(service)
    for path, body in {**TREE, **CLEAN}.items():
        cloud.put(f"data/{path}", body)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        wire.chance = black = Filter(figures, "OMOP")
        site = settle(tmp_path / "home", build(tmp_path / "source", {}), cloud, patience=0)

        download = site.run("remote", "download", "-r", "OMOP", "here", exit_code=3)

        assert contents(site.home / "here") == CLEAN
        assert "whole" not in download.out
        assert "as it is stored" in download.out + download.err
        black.is_on = False
        site.run("remote", "download", "-r", "OMOP", "here")
        assert contents(site.home / "here") == {**TREE, **CLEAN}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
