"""Keys that hold something else: left alone, or replaced where the configuration says so; and named in both cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clouds import Container, Disk, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.trees import Bytes, build, bytes_of

KEYS = {name: f"spring/1001/Images/{name}.dcm" for name in ("taken", "shorter", "same", "free")}
THEIRS = b"put there by somebody else"


def arrange(site: Site, cloud: Disk | Container) -> dict[str, bytes]:
    """Files of which two keys hold something else, and one the right thing; gives what ought to be there."""
    build(site.source, {key.removeprefix("spring/"): Bytes(2_000) for key in KEYS.values()})
    right = {key: bytes_of(key.removeprefix("spring/"), Bytes(2_000)) for key in KEYS.values()}
    cloud.put(f"data/{KEYS['taken']}", THEIRS)
    cloud.put(f"data/{KEYS['shorter']}", right[KEYS["shorter"]][:-1])
    cloud.put(f"data/{KEYS['same']}", right[KEYS["same"]])
    site.run("journal", "update", "--version", "spring")
    return right


def allow_replacing(site: Site) -> None:
    text = site.config.read_text(encoding="utf-8")
    site.configure(text.replace("[central_path]\n", '[central_path]\noverwrite = "replace"\n'))


@pytest.fixture(params=["disk", "container"])
def cloud(request: pytest.FixtureRequest) -> Disk | Container:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, (Disk, Container))
    return found


def test_they_are_replaced(tmp_path: Path, cloud: Disk | Container) -> None:
    """All is as it should be in the end, and everybody can see what had to give way for that."""
    site = settle(tmp_path / "home", tmp_path / "source", cloud)
    allow_replacing(site)
    right = arrange(site, cloud)

    upload = site.run("--json", "file", "upload")

    finished = upload.event("upload-finished")
    assert (finished["replaced"], finished["failed"], finished["remaining"]["files"]) == (2, 0, 0)
    assert finished["already_there"]["files"] == 1
    assert {each["key"] for each in upload.events("file-delivered") if each["replaced"]} == {
        KEYS["taken"],
        KEYS["shorter"],
    }
    assert files_of(cloud.objects()) == right
    site.run("file", "verify")


def test_a_person_is_told_which(site: Site, disk: Disk) -> None:
    allow_replacing(site)
    arrange(site, disk)

    upload = site.run("file", "upload")

    assert f"warning: replaced: 1001/Images/taken.dcm: {KEYS['taken']} held other content" in upload.err
    assert "warning: 2 files replaced other content under the same key, named above." in upload.err


def test_without_a_word_in_the_configuration_they_are_left_alone(site: Site, disk: Disk) -> None:
    right = arrange(site, disk)

    upload = site.run("--json", "file", "upload", exit_code=3)

    assert {each["key"] for each in upload.events("file-failed")} == {KEYS["taken"], KEYS["shorter"]}
    assert upload.event("upload-finished")["replaced"] == 0
    assert files_of(disk.objects()) == right | {
        KEYS["taken"]: THEIRS,
        KEYS["shorter"]: right[KEYS["shorter"]][:-1],
    }
