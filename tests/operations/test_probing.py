"""`config check --online`: what it says of places that work, and of those that do not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.showing import Finding, Level
from chorus_upload.model import Twin
from chorus_upload.operations import probing
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import Properties, StoredObject
from tests.e2e.clouds import Cloud, Container, Disk
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.emulators import Azurite
from tests.s3 import Bucket, SeaweedFS
from tests.trees import build
from tests.wire import Alter, Wire


@pytest.fixture(params=["disk", "azure", "s3"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Cloud:
    if request.param == "disk":
        return new_disk(tmp_path / "cloud")
    if request.param == "s3":
        service: SeaweedFS = request.getfixturevalue("seaweedfs")
        return Bucket(service, request.getfixturevalue("s3_bucket"))
    azurite: Azurite = request.getfixturevalue("azurite")
    container: str = request.getfixturevalue("azure_container")
    return Container(azurite, container, azurite.sas(container))


def site_with(tmp_path: Path, cloud: Cloud, *, patience: int = 5) -> Site:
    return settle(tmp_path / "home", build(tmp_path / "source", {"OMOP/person.csv": "1"}), cloud, patience=patience)


def test_all_is_well(tmp_path: Path, cloud: Cloud) -> None:
    site = site_with(tmp_path, cloud)
    site.run("journal", "update")
    before = cloud.objects()
    ran = site.run("--json", "config", "check", "--online")
    found = ran.events("finding")
    # The emulator's tokens do not live long.
    assert {each["level"] for each in found if "expires" not in each["text"]} == {"ok"}, ran.out
    for subject in ("[journal.source]", "[central_path]"):
        said = " | ".join(each["text"] for each in found if each["subject"] == subject)
        for step in ("can be listed", "files are proven by", "clocks agree", "read back", "honoured", "deleted again"):
            assert step in said
    assert any("the journal journal.db has" in each["text"] for each in found)
    (source,) = [each for each in found if "listed and read" in each["text"]]
    assert "[site_path.OMOP]" in source["subject"], "one place of several modalities is asked once"
    # It leaves nothing behind, and takes no lock.
    assert cloud.objects() == before


def test_a_lock_is_told(tmp_path: Path) -> None:
    site = site_with(tmp_path, new_disk(tmp_path / "cloud"))
    site.run("journal", "checkout")
    ran = site.run("--json", "config", "check", "--online")
    (held,) = [each for each in ran.events("finding") if each["level"] == "warning"]
    assert "holds it since" in held["text"]


def test_a_token_that_may_only_read(tmp_path: Path, azurite: Azurite, azure_container: str) -> None:
    """Its own words hide that: a policy of the container decides, or somebody has shortened them."""
    token = azurite.sas(azure_container, permissions="rl")
    site = site_with(tmp_path, Container(azurite, azure_container, token))
    ran = site.run("--json", "config", "check", "--online", exit_code=2)
    wrong = [each["text"] for each in ran.events("finding") if each["level"] == "error"]
    assert any(text.startswith("writing chorus-upload-check-") for text in wrong), wrong


def test_a_container_that_there_is_not(tmp_path: Path, azurite: Azurite) -> None:
    site = site_with(tmp_path, Container(azurite, "nothing-here", azurite.sas("nothing-here")))
    ran = site.run("config", "check", "--online", exit_code=2)
    assert "nothing-here" in ran.out
    # The other places are tried all the same.
    assert "listed and read" in ran.out


def test_a_host_that_there_is_not(tmp_path: Path, azurite: Azurite) -> None:
    site = site_with(tmp_path, Container(azurite, "container", azurite.sas("container")), patience=1)
    site.configure(site.config.read_text().replace(azurite.url_at(azurite.port), "https://nobody.blob.invalid"))
    ran = site.run("config", "check", "--online", exit_code=2)
    assert "nobody.blob.invalid has no address here" in " ".join(ran.out.split())


def test_a_service_that_never_says_that_it_is_one(tmp_path: Path, seaweedfs: SeaweedFS, s3_bucket: str) -> None:
    """Its listings are S3's; what else it says could be anybody's."""
    with Wire(seaweedfs.port) as wire:
        wire.chance = lambda _: Alter(lambda head, body: re.sub(rb"(?im)^x-amz-request-id:.*\r\n", b"", head) + body)
        site = site_with(tmp_path, Bucket(seaweedfs, s3_bucket, wire.port), patience=1)
        ran = site.run("--json", "config", "check", "--online", exit_code=2)
    wrong = [each for each in ran.events("finding") if each["level"] == "error"]
    assert [each["subject"] for each in wrong] == ["[journal.source]", "[central_path]"]
    for text in (each["text"] for each in wrong):
        assert "(404, without x-amz-request-id)" in text
        assert "the service never gives it, and cannot be used" in text
    assert not seaweedfs.objects(s3_bucket)


class Careless(LocalStore):
    """A service that does not care for conditions."""

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        ignored_create, ignored_match = self.ignored
        return super().put(
            key,
            body,
            size=size,
            create_only=create_only and not ignored_create,
            if_match=None if ignored_match else if_match,
            properties=properties,
        )

    ignored = (False, False)


def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStore) -> list[Finding]:
    site = site_with(tmp_path, Disk(tmp_path / "cloud"))
    monkeypatch.setattr(probing, "open_store", lambda *_, **__: store)
    return list(probing.probe_places(load(site.config, environ={})))


@pytest.mark.parametrize(
    ("ignored", "said"), [((True, False), "overwrites what it was told"), ((False, True), "replaces another object")]
)
def test_a_service_without_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: tuple[bool, bool], said: str
) -> None:
    new_disk(tmp_path / "cloud")
    store = Careless(tmp_path / "cloud")
    store.ignored = ignored
    found = probed(tmp_path, monkeypatch, store)
    assert [each.subject for each in found if each.level is Level.ERROR and said in each.text] == [
        "[journal.source]",
        "[central_path]",
    ]
    assert not list((tmp_path / "cloud").glob("chorus-upload-check*"))


def test_a_clock_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_disk(tmp_path / "cloud")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3_600)
    found = probed(tmp_path, monkeypatch, LocalStore(tmp_path / "cloud"))
    (first, second) = [each.text for each in found if each.level is Level.WARNING]
    assert first == second
    assert "clock is 3,600 s ahead of" in first
