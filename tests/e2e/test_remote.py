"""Plain file operations on the central store, which the journal learns nothing of."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.e2e.clouds import Container, Disk
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import MODULE, Site
from tests.trees import Bytes, Link, build, contents

TREE = {"OMOP/person.csv": Bytes(3_000), "1001/Images/a b/scan äö.dcm": Bytes(9_000_001)}
UPLOADED = {"spring/OMOP/person.csv", "spring/1001/Images/a b/scan äö.dcm"}


@pytest.fixture(params=["disk", "container"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    cloud: Disk | Container = (
        new_disk(tmp_path / "cloud") if request.param == "disk" else request.getfixturevalue("container")
    )
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    return site


def central(site: Site) -> dict[str, bytes]:
    return {key.removeprefix("data/"): body for key, body in site.cloud.objects().items() if key.startswith("data/")}


def test_list(site: Site) -> None:
    assert site.run("remote", "list").lines == ["spring/"]
    listed = site.run("remote", "list", "/spring/").lines
    assert [line for line in listed if "manifest" not in line] == ["spring/1001/", "spring/OMOP/", "spring/journal.db"]
    everything = set(site.run("remote", "list", "-r").lines)
    assert everything == central(site).keys()
    assert site.run("remote", "list", "spring/OMOP/person.csv").lines == ["spring/OMOP/person.csv"]
    (entry,) = site.run("--json", "remote", "list", "--recursive", "spring/OMOP").events("remote-entry")
    assert (entry["key"], entry["size"]) == ("spring/OMOP/person.csv", 3_000)
    assert entry["time"].startswith("20")
    assert "2.93 KiB" in site.run("remote", "list", "--long", "spring/OMOP").out
    assert "nothing at" in site.run("remote", "list", "summer", exit_code=23).err
    assert "Paths are below the central path." in site.run("remote", "list", "../journal", exit_code=2).err


def test_upload(tmp_path: Path, site: Site) -> None:
    build(
        site.home, {"notes/a.txt": "1", "notes/deep/b.txt": Bytes(9_000_001), "c.txt": "3", "notes/link": Link("/etc")}
    )
    before = central(site)
    assert "-r takes" in site.run("remote", "upload", "notes", exit_code=2).err
    ran = site.run("remote", "upload", "-r", "notes", "c.txt", "--to", "from us/here")
    assert "left out: link" in ran.err
    new = {
        "from us/here/notes/a.txt": b"1",
        "from us/here/notes/deep/b.txt": (site.home / "notes/deep/b.txt").read_bytes(),
        "from us/here/c.txt": b"3",
    }
    assert central(site) == before | new

    # The same again sends nothing; other content needs a word.
    again = site.run("--json", "remote", "upload", "-r", "notes", "c.txt", "--to", "from us/here")
    assert again.event("remote-uploaded")["already_there"]["files"] == 3
    build(site.home, {"c.txt": "4"})
    refused = site.run("--json", "remote", "upload", "c.txt", "--to", "from us/here", exit_code=3)
    assert refused.event("file-failed")["kind"] == "key-taken"
    site.run("remote", "upload", "c.txt", "--to", "from us/here", "--overwrite")
    assert central(site) == before | new | {"from us/here/c.txt": b"4"}


def test_what_is_not_uploaded(tmp_path: Path, site: Site) -> None:
    build(site.home, {"a/x.txt": "1", "b/x.txt": "2"})
    before = site.cloud.objects()
    assert "there is no file nothing" in site.run("remote", "upload", "nothing", exit_code=2).err
    assert "two files would become x.txt" in site.run("remote", "upload", "a/x.txt", "b/x.txt", exit_code=2).err
    assert "credentials" in site.run("remote", "upload", "config.toml", exit_code=2).err
    assert site.cloud.objects() == before
    assert "left out: config.toml" in site.run("remote", "upload", "-r", ".", "--to", "copy").err
    assert site.cloud.objects().keys() - before == {"data/copy/home/a/x.txt", "data/copy/home/b/x.txt"}


def test_download(tmp_path: Path, site: Site) -> None:
    to = tmp_path / "to"
    site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to))
    assert contents(to) == {"person.csv": (site.source / "OMOP/person.csv").read_bytes()}
    assert "-r takes" in site.run("remote", "download", "spring", "--to", str(to), exit_code=2).err
    site.run("remote", "download", "-r", "spring/1001", "spring/OMOP", "--to", str(to))
    assert {path for path in contents(to) if "/" in path} == {"1001/Images/a b/scan äö.dcm", "OMOP/person.csv"}
    build(to, {"person.csv": "mine"})
    assert "taken" in site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to), exit_code=3).err
    site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to), "--overwrite")
    assert contents(to)["person.csv"] == (site.source / "OMOP/person.csv").read_bytes()
    everything = tmp_path / "everything"
    site.run("remote", "download", "-r", "/", "--to", str(everything))
    assert contents(everything) == central(site)
    assert "nothing at" in site.run("remote", "download", "summer", "--to", str(to), exit_code=23).err


def test_delete(site: Site) -> None:
    site.cloud.put("data/notes/a.txt", b"1")
    site.cloud.put("data/notes/deep/b.txt", b"2")
    before = central(site)
    # Nobody can be asked here.
    ran = site.run("remote", "delete", "notes/a.txt", exit_code=2)
    assert "1 file, 1 B, would be deleted permanently" in ran.err
    assert "nothing was done, since nobody can be asked" in ran.err
    assert central(site) == before
    assert "-r takes" in site.run("remote", "delete", "--yes", "notes", exit_code=2).err
    site.run("remote", "delete", "--yes", "notes/a.txt")
    assert central(site) == {key: body for key, body in before.items() if key != "notes/a.txt"}
    assert "1 file, 1 B, deleted" in site.run("remote", "delete", "-r", "--yes", "notes").out
    assert not [key for key in central(site) if key.startswith("notes")]
    assert "nothing at" in site.run("remote", "delete", "--yes", "notes", exit_code=23).err

    # An interrupted one is typed again: what is gone already keeps nobody.
    site.cloud.put("data/notes/a.txt", b"1")
    ran = site.run("remote", "delete", "-r", "--yes", "notes/deep", "notes")
    assert "nothing at notes/deep" in ran.err
    assert not [key for key in central(site) if key.startswith("notes")]

    # What the journal calls delivered is missed.
    site.run("remote", "delete", "--yes", "spring/OMOP/person.csv")
    assert "missing: spring/OMOP/person.csv" in site.run("file", "verify", exit_code=3).out


@pytest.mark.parametrize(("answer", "is_gone"), [("y", True), ("n", False), ("", False)])
def test_somebody_at_a_terminal_is_asked(tmp_path: Path, answer: str, is_gone: bool) -> None:  # noqa: FBT001
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    disk.put("data/notes/a.txt", b"1")
    outer, inner = pty.openpty()
    try:
        os.write(outer, f"{answer}\n".encode())
        done = subprocess.run(
            [*MODULE, "remote", "delete", "-r", "notes"], cwd=site.home, stdin=inner, capture_output=True, check=False
        )
    finally:
        os.close(outer)
        os.close(inner)
    assert done.returncode == 0
    assert b"1 file, 1 B, would be deleted permanently" in done.stderr
    assert b"Delete them? [y/N]" in done.stderr
    assert ("data/notes/a.txt" not in disk.objects()) is is_gone


def test_the_journal_is_left_alone(tmp_path: Path) -> None:
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    site.configure(site.config.read_text().replace(str(disk.root / "data"), str(disk.root)))
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    build(site.home, {"journal/journal.db": "mine"})
    before = disk.objects()
    for words in (
        ("delete", "--yes", "journal/journal.db"),
        ("delete", "--yes", "-r", "journal"),
        ("delete", "--yes", "-r", "/"),
        ("upload", "-r", "journal", "--overwrite"),
    ):
        assert "is the journal, or belongs to it" in site.run("remote", *words, exit_code=2).err
    assert disk.objects() == before
