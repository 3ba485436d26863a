"""Plain file operations on the central store, which the journal learns nothing of."""

from __future__ import annotations

import os
import pty
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.clouds import Container, Disk
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import MODULE, Site, quick_program
from tests.trees import Bytes, Link, build, bytes_of, contents

TREE = {"OMOP/person.csv": Bytes(3_000), "1001/Images/a b/scan äö.dcm": Bytes(5_000)}
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


WHAT_IS_TYPED = pytest.mark.parametrize(
    "site", ["disk", pytest.param("container", marks=pytest.mark.thorough)], indirect=True
)
"""For what is decided by the words, wherever the central store is."""


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
    assert site.run("remote", "list", "s*/OMOP/*.csv", "spring/[01]*/").lines == [
        "spring/OMOP/person.csv",
        "spring/1001/Images/",
    ]
    assert site.run("remote", "list", "spring/**/*.dcm").lines == ["spring/1001/Images/a b/scan äö.dcm"]
    assert "nothing matches *.txt" in site.run("remote", "list", "*.txt", exit_code=23).err
    for top in ("/", ".", "./"):
        assert site.run("remote", "list", top).lines == ["spring/"]
    assert "an empty path names nothing" in site.run("remote", "list", "", exit_code=2).err
    assert "Paths are below the central path." in site.run("remote", "list", "../journal", exit_code=2).err


def test_upload(tmp_path: Path, site: Site) -> None:
    build(
        site.home, {"notes/a.txt": "1", "notes/deep/b.txt": Bytes(9_000_001), "c.txt": "3", "notes/link": Link("/etc")}
    )
    before = central(site)
    assert "-r takes" in site.run("remote", "upload", "notes", "/", exit_code=2).err
    ran = site.run("remote", "upload", "-r", "notes", "c.txt", "--to", "from us/here", exit_code=3)
    assert "left out: link (link-to-directory): what is to be sent" in ran.err
    assert "follow_links" not in ran.err
    assert ["left", "out", "1"] in [line.split() for line in ran.out.splitlines()]
    new = {
        "from us/here/notes/a.txt": b"1",
        "from us/here/notes/deep/b.txt": (site.home / "notes/deep/b.txt").read_bytes(),
        "from us/here/c.txt": b"3",
    }
    assert central(site) == before | new

    # The same again sends nothing; other content needs a word.
    (site.home / "notes/link").unlink()
    again = site.run("--json", "remote", "upload", "-r", "notes", "c.txt", "--to", "from us/here")
    assert again.event("remote-uploaded")["already_there"]["files"] == 3
    build(site.home, {"c.txt": "4"})
    refused = site.run("--json", "remote", "upload", "c.txt", "--to", "from us/here", exit_code=3)
    assert refused.event("file-failed")["kind"] == "key-taken"
    site.run("remote", "upload", "c.txt", "--to", "from us/here", "--overwrite")
    assert central(site) == before | new | {"from us/here/c.txt": b"4"}


@WHAT_IS_TYPED
def test_what_is_not_uploaded(tmp_path: Path, site: Site) -> None:
    build(site.home, {"a/x.txt": "1", "b/x.txt": "2"})
    before = site.cloud.objects()
    assert "there is no file nothing" in site.run("remote", "upload", "nothing", "/", exit_code=2).err
    assert "two files would become x.txt" in site.run("remote", "upload", "a/x.txt", "b/x.txt", "/", exit_code=2).err
    assert "credentials" in site.run("remote", "upload", "config.toml", "/", exit_code=2).err
    assert "no file that matches *.nothing" in site.run("remote", "upload", "*.nothing", "/", exit_code=2).err
    for empty in ("", " ", "/"):
        assert "hint:" in site.run("remote", "upload", "-r", empty, "notes/", exit_code=2).err
    assert "an empty path" in site.run("remote", "upload", "a/x.txt", "", exit_code=2).err
    assert "an empty path" in site.run("remote", "upload", "a/x.txt", "--to", "", exit_code=2).err
    assert site.cloud.objects() == before
    assert "left out: config.toml" in site.run("remote", "upload", "-r", ".", "--to", "copy").err
    assert site.cloud.objects().keys() - before == {"data/copy/home/a/x.txt", "data/copy/home/b/x.txt"}


@WHAT_IS_TYPED
def test_the_last_argument_of_an_upload_is_where_to(site: Site) -> None:
    """Sites type it so. A directory of theirs that is called as the one in the store was sent, with what is in it."""
    build(site.home, {"notes.md": "notes", "docs/secret.txt": "do not send", "a.csv": "1", "b.csv": "2", ".c.csv": "3"})
    before = central(site)
    site.run("remote", "upload", "-r", "notes.md", "docs/")
    assert central(site) == before | {"docs/notes.md": b"notes"}

    # As in a shell: into a directory that is there; else a single file is called so, and several make a directory.
    site.run("remote", "upload", "a.csv", "docs")
    site.run("remote", "upload", "a.csv", "./docs/first.csv")
    site.run("remote", "upload", "a.csv", "b.csv", "tables")
    site.run("remote", "upload", "*.csv", "matched/")
    site.run("remote", "upload", "notes.md")
    site.run("remote", "upload", "b.csv", "/")
    assert central(site) == before | {
        "docs/notes.md": b"notes",
        "docs/a.csv": b"1",
        "docs/first.csv": b"1",
        "tables/a.csv": b"1",
        "tables/b.csv": b"2",
        "matched/a.csv": b"1",
        "matched/b.csv": b"2",
        "notes.md": b"notes",
        "b.csv": b"2",
    }


def test_a_place_that_was_forgotten(site: Site) -> None:
    build(site.home, {"docs/secret.txt": "do not send", "a.csv": "1", "b.csv": "2", "c.csv": "3"})
    before = site.cloud.objects()
    for words in (
        ("-r", "docs/"),
        ("-r", "docs"),
        ("*.csv",),
        ("a.csv", "b.csv"),
        ("a.csv", "b.csv", "c.csv"),
    ):
        assert (
            "Where to in the central store? Add it at the end" in site.run("remote", "upload", *words, exit_code=2).err
        )
    assert site.cloud.objects() == before


@WHAT_IS_TYPED
def test_a_pattern_leaves_out_what_is_never_sent(site: Site) -> None:
    build(site.home, {"a.txt": "1", "notes/b.txt": "2"})
    before = central(site)
    ran = site.run("remote", "upload", "*", "copy/")
    assert "left out: config.toml is the program's own" in ran.err
    assert "left out: notes is a directory" in ran.err
    assert central(site) == before | {"copy/a.txt": b"1"}


@WHAT_IS_TYPED
def test_the_last_argument_of_a_download_is_where_to(tmp_path: Path, site: Site) -> None:
    """What sites type fetched the whole store."""
    site.run("journal", "update", "--version", "20250630080000")
    build(site.source, {"OMOP/person.csv": "new", "OMOP/visit.csv": "visit"})
    site.run("journal", "update", "--amend")
    site.run("file", "upload")
    inbox = build(tmp_path / "inbox", {})
    site = replace(site, home=inbox, program=(*MODULE, "-c", str(site.config)))

    site.run("remote", "download", "-r", "20250630080000/OMOP/", "./")
    assert contents(inbox) == {"OMOP/person.csv": b"new", "OMOP/visit.csv": b"visit"}

    site.run("remote", "download", "20250630080000/OMOP/visit.csv", "mine.csv")
    site.run("remote", "download", "20250630080000/OMOP/visit.csv")
    site.run("remote", "download", "20250630080000/OMOP/visit.csv", "20250630080000/OMOP/person.csv", "both")
    site.run("remote", "download", "2025*/OMOP/v*.csv", "tables/")
    assert contents(inbox) == {
        "OMOP/person.csv": b"new",
        "OMOP/visit.csv": b"visit",
        "mine.csv": b"visit",
        "visit.csv": b"visit",
        "both/visit.csv": b"visit",
        "both/person.csv": b"new",
        "tables/visit.csv": b"visit",
    }


@WHAT_IS_TYPED
def test_nothing_is_read_from_the_root_by_an_empty_argument(tmp_path: Path, site: Site) -> None:
    to = tmp_path / "to"
    before = site.cloud.objects()
    for top in ("", ".", "./", "/", "//"):
        assert "hint:" in site.run("remote", "download", "-r", top, str(to), exit_code=2).err
        assert "hint:" in site.run("remote", "download", "-r", top, "--to", str(to), exit_code=2).err
        assert "hint:" in site.run("remote", "delete", "-r", "--yes", top, exit_code=2).err
        assert "hint:" in site.run("remote", "delete", "-r", "--yes", "spring", top, exit_code=2).err
    assert "an empty path" in site.run("remote", "download", "spring/OMOP/person.csv", "", exit_code=2).err
    assert "an empty path" in site.run("remote", "download", "spring/OMOP/person.csv", "--to", "", exit_code=2).err
    assert not to.exists()
    assert site.cloud.objects() == before


@WHAT_IS_TYPED
def test_a_download_whose_names_or_place_cannot_be_meant(tmp_path: Path, site: Site) -> None:
    site.cloud.put("data/summer/OMOP/person.csv", b"other")
    to = str(tmp_path / "to")
    ran = site.run("remote", "download", "s*/OMOP/person.csv", to, exit_code=2)
    assert "spring/OMOP/person.csv and summer/OMOP/person.csv would both become person.csv" in ran.err
    ran = site.run("remote", "download", "spring/OMOP/person.csv", "summer/OMOP/person.csv", exit_code=2)
    assert "summer/OMOP/person.csv is in the central store" in ran.err
    assert not (site.home / "summer").exists()
    ran = site.run("remote", "download", "spring/*", to)
    assert "left out: spring/OMOP/ is a directory; -r takes all that is below it" in ran.err
    assert "spring/OMOP is a directory" in site.run("remote", "download", "spring/OM*", to, exit_code=2).err


def test_download(tmp_path: Path, site: Site) -> None:
    to = tmp_path / "to"
    site.cloud.put("data/spring/1001/Images/large.dcm", bytes_of("large", Bytes(9_000_001)))
    site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to))
    assert contents(to) == {"person.csv": (site.source / "OMOP/person.csv").read_bytes()}
    assert "-r takes" in site.run("remote", "download", "spring", "--to", str(to), exit_code=2).err
    site.run("remote", "download", "-r", "spring/1001", "spring/OMOP", "--to", str(to))
    assert {path for path in contents(to) if "/" in path} == {
        "1001/Images/a b/scan äö.dcm",
        "1001/Images/large.dcm",
        "OMOP/person.csv",
    }
    build(to, {"person.csv": "mine"})
    assert "taken" in site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to), exit_code=3).err
    site.run("remote", "download", "spring/OMOP/person.csv", "--to", str(to), "--overwrite")
    assert contents(to)["person.csv"] == (site.source / "OMOP/person.csv").read_bytes()
    everything = tmp_path / "everything"
    site.run("remote", "download", "-r", "*", "--to", str(everything))
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

    site.cloud.put("data/notes/a.csv", b"1")
    site.cloud.put("data/notes/b.txt", b"2")
    site.run("remote", "delete", "--yes", "notes/*.csv")
    assert [key for key in central(site) if key.startswith("notes")] == ["notes/b.txt"]
    assert "nothing matches notes/*.csv" in site.run("remote", "delete", "--yes", "notes/*.csv", exit_code=23).err
    site.run("remote", "delete", "--yes", "notes/b.txt")

    # An interrupted one is typed again: what is gone already keeps nobody.
    site.cloud.put("data/notes/a.txt", b"1")
    ran = site.run("remote", "delete", "-r", "--yes", "notes/deep", "notes")
    assert "nothing at notes/deep" in ran.err
    assert not [key for key in central(site) if key.startswith("notes")]

    # What the journal calls delivered is missed.
    site.run("remote", "delete", "--yes", "spring/OMOP/person.csv")
    assert "missing: spring/OMOP/person.csv" in site.run("file", "verify", exit_code=3).out


def test_the_store_is_never_emptied(site: Site) -> None:
    """Somebody quotes what the shell should expand, or names one folder after the other."""
    site.cloud.put("data/notes/a.txt", b"1")
    before = site.cloud.objects()
    for everything in (
        ["*"],
        ["**"],
        ["?*"],
        ["./*"],
        ["[!.]*"],
        ["**/*"],
        ["*/*"],
        ["spring", "notes"],
        ["s*", "n*/"],
    ):
        refused = site.run("remote", "delete", "-r", "--yes", *everything, exit_code=2)
        assert "all of the central store, and 'remote delete' never empties it" in refused.err
    assert "never empties it" in site.run("remote", "delete", "--yes", "**", exit_code=2).err
    assert site.cloud.objects() == before

    site.run("remote", "delete", "-r", "--yes", "spring")
    assert central(site) == {"notes/a.txt": b"1"}
    assert "never empties it" in site.run("remote", "delete", "--yes", "notes/*", exit_code=2).err
    # An object by its whole name is meant.
    site.run("remote", "delete", "--yes", "notes/a.txt")
    assert not central(site)


@pytest.mark.parametrize(("answer", "is_gone"), [("y", True), ("n", False), ("", False)])
def test_somebody_at_a_terminal_is_asked(tmp_path: Path, answer: str, is_gone: bool) -> None:  # noqa: FBT001
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    disk.put("data/notes/a.txt", b"1")
    disk.put("data/kept.txt", b"1")
    outer, inner = pty.openpty()
    try:
        os.write(outer, f"{answer}\n".encode())
        done = subprocess.run(
            [quick_program().command, "remote", "delete", "-r", "notes"],
            cwd=site.home,
            stdin=inner,
            capture_output=True,
            check=False,
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
        ("delete", "--yes", "-r", "*"),
        ("delete", "--yes", "journal/j*.db"),
        ("upload", "-r", "journal", "/", "--overwrite"),
        ("upload", "journal/journal.db", "journal/", "--overwrite"),
        ("upload", "--overwrite", "journal/journal.db", "journal/journal.db.locked"),
    ):
        assert "is the journal, or belongs to it" in site.run("remote", *words, exit_code=2).err
    # Who leaves only the journal empties the store.
    assert "never empties it" in site.run("remote", "delete", "--yes", "-r", "spring", exit_code=2).err
    assert disk.objects() == before
