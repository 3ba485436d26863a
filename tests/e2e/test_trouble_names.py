"""Names that people and machines give to files, and links that lead anywhere."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from tests.e2e.clouds import Container, Disk, files_of, manifest_for, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.trees import Content, Directory, Link, build, bytes_of

ODD = {
    "1001/Images/'single' and \"double\".dcm": "a",
    "1001/Images/--confirm-deletions": "b",
    "1001/Images/-rf/-": "c",
    "1001/Images/$(reboot) `reboot` %PATH% !x! & | ; # ?q=1 [a] {b} *": "d",
    "1001/Images/" + "n" * 251 + ".dcm": "e",
    "1001/Images/Übersicht ☂ 日本 😀.dcm": "f",
    "1001/Images/.hidden/.DS_Store": "g",
    "1001/Images/ leading, two  inside and trailing ": "h",
    "1001/Images/100% %41 +.dcm": "i",
    "1001/Images/" + unicodedata.normalize("NFC", "é.dcm"): "composed",
    "1001/Images/" + unicodedata.normalize("NFD", "é.dcm"): "decomposed",
    "1001/Images/Scan.DCM": "upper case",
    "1001/Images/scan.dcm": "lower case",
    "1001/Images/ends with a dot.": "j",
    "1001/Images/CON": "k",
}
# Azure takes no control characters, and would make a slash of a backslash.
BEYOND_AZURE = {
    "1001/Images/two\nlines.dcm": "l",
    "1001/Images/tab\there.dcm": "m",
    "1001/Images/back\\slash.dcm": "n",
}


def test_names_arrive_as_they_are(site: Site, disk: Disk) -> None:
    tree, invalid = ODD | BEYOND_AZURE, os.fsdecode(b"1001/Images/invalid-\xff.dcm")
    build(site.source, tree | {invalid: "cannot be a key"})

    update = site.run("--json", "journal", "update", "--version", "spring", exit_code=3)

    problems = [(each["problem"]["kind"], each["problem"]["path"]) for each in update.events("problem-found")]
    alike = [unicodedata.normalize("NFC", path).lower() for kind, path in problems if kind != "invalid-name"]
    assert ("invalid-name", "1001/Images/invalid-\\xff.dcm") in problems
    assert len(problems) == 3
    assert sorted(alike) == ["1001/images/scan.dcm", "1001/images/é.dcm"]

    assert set(site.run("file", "list", "--null").out.split("\0")) == {*tree, ""}
    site.run("file", "upload")

    objects = disk.objects()
    assert files_of(objects) == {f"spring/{path}": bytes_of(path, body) for path, body in tree.items()}
    assert manifest_of(objects, "spring") == manifest_for(files_of(objects), "spring", evidence="readback")
    site.run("file", "verify")

    # They can be named, too.
    site.run("file", "mark_as_deleted", "--file=1001/Images/--confirm-deletions", "--file", "1001/Images/-rf/-")
    again = site.run("--json", "journal", "update", exit_code=3).event("update-finished")["modalities"]["Images"]
    assert (again["added"]["files"], again["unchanged"]["files"]) == (2, len(tree) - 2)


def test_names_in_azure(azure_site: Site, container: Container) -> None:
    """What the service would refuse, or make another name of, is named; all others arrive."""
    site = azure_site
    build(site.source, ODD | BEYOND_AZURE | {"1001/Images/back/slash.dcm": "another file"})
    site.run("journal", "update", "--version", "spring")

    upload = site.run("--json", "file", "upload", exit_code=3)

    failed = {each["path"]: each["kind"] for each in upload.events("file-failed")}
    arrived = ODD | {"1001/Images/back/slash.dcm": "another file"}
    assert failed == dict.fromkeys(BEYOND_AZURE, "refused")
    objects = container.objects()
    assert files_of(objects) == {f"spring/{path}": bytes_of(path, body) for path, body in arrived.items()}
    assert manifest_of(objects, "spring") == manifest_for(files_of(objects), "spring", evidence="server")
    site.run("file", "verify")


def test_a_list_of_names_with_line_breaks(site: Site) -> None:
    """What `file list --null` writes, `--file-list` reads."""
    names = {"1001/Images/two\nlines.dcm": "a", "1001/Images/plain.dcm": "b", "1001/Images/other.dcm": "c"}
    build(site.source, names)
    site.run("journal", "update")
    everything = site.home / "everything"

    site.run("file", "list", "--null", "--output-file", str(everything))
    site.run("file", "mark-as-deleted", "--file-list", str(everything))

    assert everything.read_bytes().split(b"\0")[-1] == b""
    assert site.pending() == set()


def test_two_directories_with_one_central_key(site: Site, disk: Disk) -> None:
    """Patterns ignore case, and the central name of a modality has but one spelling."""
    tree = {"1001/Images/same.dcm": "one", "1001/images/same.dcm": "another", "1001/images/unlike.dcm": "third"}
    build(site.source, tree)

    update = site.run("--json", "journal", "update", "--version", "spring", exit_code=3)

    found = [each["problem"] for each in update.events("problem-found") if each["problem"]["kind"] == "same-key"]
    assert [each["path"] for each in found] == ["1001/images/same.dcm"]
    assert "1001/Images/same.dcm" in found[0]["detail"]
    site.run("file", "upload")
    assert files_of(disk.objects()) == {
        "spring/1001/Images/same.dcm": b"one",
        "spring/1001/Images/unlike.dcm": b"third",
    }

    # It stays so: the second does not take the place of the first, whatever is listed first.
    site.run("journal", "update", "--version", "summer", exit_code=3)
    assert site.pending() == set()

    (site.source / "1001/images/same.dcm").rename(site.source / "1001/images/renamed.dcm")
    site.run("journal", "update", "--version", "autumn")
    site.run("file", "upload")
    assert files_of(disk.objects())["autumn/1001/Images/renamed.dcm"] == b"another"


LINKED: dict[str, Content] = {
    "1001/Images/real.dcm": "real",
    "1001/Images/link.dcm": Link("real.dcm"),
    "1001/Images/outside.dcm": Link("../../../archive/old.dcm"),
    "1001/Images/broken.dcm": Link("nowhere"),
    "1001/Images/loop.dcm": Link("loop.dcm"),
    "1001/Images/archive": Link("../../../archive"),
    "1001/Images/up": Link(".."),
    "1001/Images/empty": Directory(),
}


@pytest.mark.parametrize("follow", [None, False, True], ids=["not decided", "not followed", "followed"])
def test_links(follow: bool | None, tmp_path: Path, disk: Disk) -> None:  # noqa: FBT001
    configuration = "" if follow is None else f"follow_links = {str(follow).lower()}"
    site = settle(tmp_path / "home", tmp_path / "source", disk, configuration=configuration)
    build(tmp_path / "archive", {"old.dcm": "old", "deep/older.dcm": "older"})
    build(site.source, LINKED)

    update = site.run("--json", "journal", "update", "--version", "spring", exit_code=3)
    site.run("file", "upload")

    problems = {each["problem"]["path"]: each["problem"]["kind"] for each in update.events("problem-found")}
    arrived = {"real.dcm": b"real", "link.dcm": b"real"}
    expected = {"broken.dcm": "unreadable-file", "loop.dcm": "unreadable-file"}
    if follow:
        arrived |= {"outside.dcm": b"old", "archive/old.dcm": b"old", "archive/deep/older.dcm": b"older"}
        expected |= {"up": "link-loop"}
    else:
        kind = "link-to-directory" if follow is None else "skipped-link"
        expected |= {"archive": kind, "up": kind, "outside.dcm": "link-to-outside"}
    assert problems == {f"1001/Images/{name}": kind for name, kind in expected.items()}
    assert files_of(disk.objects()) == {f"spring/1001/Images/{name}": body for name, body in arrived.items()}
