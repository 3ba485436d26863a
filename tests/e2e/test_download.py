"""The way back: the state of a version comes out of the central store as it went in, and nothing else does."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.clouds import Container, Disk
from tests.e2e.conftest import Prepared, new_disk, settle
from tests.e2e.site import LIKE_ANYBODY, Site, wait_until
from tests.emulators import Azurite
from tests.trees import Bytes, Content, Link, build, contents, forbidden, remove, rename
from tests.wire import CutAnswer, Delay, Wire

SPRING: dict[str, Content] = {
    "OMOP/person.csv": Bytes(3_000),
    "OMOP/empty.csv": Bytes(0),
    "1001/Images/a b/scan äö.dcm": Bytes(5_000),
    "1002/Images/scan.dcm": Bytes(70_000),
    "1002/Images/same.dcm": b"the same content",
    "1002/Waveforms/same.h5": b"the same content",
    "1002/Waveforms/large.h5": Bytes(9_000_001),
}
LARGE = "1002/Waveforms/large.h5"


@pytest.fixture(params=[pytest.param("disk", marks=pytest.mark.thorough), "container"])
def lively(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Site, dict[str, dict[str, bytes]]]:
    """A site with three versions, and what its source held at each."""
    cloud: Disk | Container = (
        new_disk(tmp_path / "cloud") if request.param == "disk" else request.getfixturevalue("container")
    )
    site = settle(tmp_path / "home", build(tmp_path / "source", SPRING), cloud)
    held = {"spring": contents(site.source)}
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    build(site.source, {"OMOP/person.csv": Bytes(3_000, edition=2), "1003/Images/new.dcm": Bytes(10)})
    rename(site.source, "1002/Images/scan.dcm", "1002/Images/renamed.dcm")
    remove(site.source / "OMOP/empty.csv")
    held["summer"] = contents(site.source)
    site.run("journal", "update", "--version", "summer", "--confirm-deletions")
    # Two versions in one upload.
    build(site.source, {"OMOP/empty.csv": Bytes(0), "OMOP/person.csv": Bytes(3_000)})
    held["autumn"] = contents(site.source)
    site.run("journal", "update", "--version", "autumn")
    site.run("file", "upload")
    return site, held


def times(root: Path) -> dict[str, int]:
    return {path: (root / path).stat().st_mtime_ns // 1000 for path in contents(root)}


def test_each_version_comes_back_as_it_was(tmp_path: Path, lively: tuple[Site, dict[str, dict[str, bytes]]]) -> None:
    site, held = lively
    for version in ("spring", "autumn"):
        site.run("file", "download", "--version", version, "--to", str(tmp_path / version))
        assert contents(tmp_path / version) == held[version]
    # The last one, into a directory of its name.
    ran = site.run("file", "download")
    assert contents(site.home / "autumn") == held["autumn"]
    assert times(site.home / "autumn") == times(site.source)
    assert "Every file of it is there, and is what the journal says." in ran.out


def test_what_was_never_sent_is_named(tmp_path: Path, lively: tuple[Site, dict[str, dict[str, bytes]]]) -> None:
    """Summer's person.csv was changed back before anything of summer was uploaded."""
    site, held = lively
    ran = site.run("--json", "file", "download", "--version", "summer", "--to", str(tmp_path / "it"), exit_code=3)
    (failed,) = ran.events("file-not-downloaded")
    assert (failed["kind"], failed["path"]) == ("not-delivered", "OMOP/person.csv")
    del held["summer"]["OMOP/person.csv"]
    assert contents(tmp_path / "it") == held["summer"]


def test_a_lost_source_is_as_it_was_for_the_journal_too(
    tmp_path: Path, lively: tuple[Site, dict[str, dict[str, bytes]]]
) -> None:
    site, held = lively
    shutil.rmtree(site.source)
    site.run("file", "download", "--to", str(site.source))
    assert contents(site.source) == held["autumn"]
    update = site.run("--json", "journal", "update").event("update-finished")
    assert {each["unchanged"]["files"] for each in update["modalities"].values()} == {2, 4, 0}
    assert site.pending() == set()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    commands = (("journal", "update", "--version", "spring"), ("file", "upload"))
    return Prepared.after(tmp_path_factory.mktemp("download"), SPRING, commands)


@pytest.fixture
def at_rest(prepared: Prepared) -> Site:
    """A site on a disk that has uploaded its spring."""
    return prepared.restore()


def test_a_part_of_it(tmp_path: Path, at_rest: Site) -> None:
    to = tmp_path / "part"
    at_rest.run("file", "download", "--modality", "images", "--patient", "1002", "--to", str(to))
    assert contents(to).keys() == {"1002/Images/scan.dcm", "1002/Images/same.dcm"}
    at_rest.run("file", "download", "--patient", "1001", "--patient", "1002", "--to", str(to))
    assert contents(to).keys() == {path for path in SPRING if path.startswith("100")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--version", "sprung"), "Did you mean spring?"),
        (("--patient", "9999"), "no files of patient 9999"),
        (("--modality", "Xrays"), "unknown modality"),
    ],
)
def test_what_there_is_not(tmp_path: Path, at_rest: Site, arguments: tuple[str, ...], said: str) -> None:
    ran = at_rest.run("file", "download", *arguments, "--to", str(tmp_path / "to"), exit_code=2)
    assert said in ran.err
    assert not (tmp_path / "to").exists()


def test_before_there_is_any_version(tmp_path: Path, site: Site) -> None:
    site.run("journal", "checkout")
    assert "no version" in site.run("file", "download", "--to", str(tmp_path / "to"), exit_code=2).err


def test_what_the_store_lost_or_has_otherwise_does_not_come_back(tmp_path: Path, at_rest: Site) -> None:
    at_rest.cloud.delete("data/spring/OMOP/person.csv")
    at_rest.cloud.put("data/spring/1002/Images/scan.dcm", bytes(70_000))
    at_rest.cloud.put(f"data/spring/{LARGE}", bytes(9_000_001))
    at_rest.cloud.put("data/spring/OMOP/empty.csv", b"not any more")
    to = tmp_path / "to"
    ran = at_rest.run("--json", "file", "download", "--to", str(to), exit_code=3)
    assert {(each["path"], each["kind"]) for each in ran.events("file-not-downloaded")} == {
        ("OMOP/person.csv", "missing"),
        ("1002/Images/scan.dcm", "wrong"),
        (LARGE, "wrong"),
        ("OMOP/empty.csv", "wrong"),
    }
    assert ran.event("download-finished")["failures"] == {"missing": 1, "wrong": 3}
    assert contents(to).keys() == {
        "1001/Images/a b/scan äö.dcm",
        "1002/Images/same.dcm",
        "1002/Waveforms/same.h5",
    }


def test_a_central_store_that_is_gone_is_said_once(tmp_path: Path, at_rest: Site) -> None:
    assert isinstance(at_rest.cloud, Disk)
    shutil.rmtree(at_rest.cloud.root / "data")
    ran = at_rest.run("file", "download", "--to", str(tmp_path / "to"), exit_code=7)
    assert ran.err.count("error:") == 1
    assert "there is no such directory. It is probably on a share that is not mounted" in ran.err


def test_what_is_in_the_target_is_never_overwritten_in_silence(tmp_path: Path, at_rest: Site) -> None:
    to = build(
        tmp_path / "to",
        {
            "OMOP/person.csv": "mine",
            "1002/Images/same.dcm": b"the same content",
            "1002/Images/scan.dcm": Bytes(70_000, edition=7),
            "other.txt": "not of this",
        },
    )
    ran = at_rest.run("file", "download", "--to", str(to), exit_code=3)
    assert ran.err.count("taken: ") == 2
    assert (to / "OMOP/person.csv").read_text() == "mine"
    # What was the same has the right time now.
    assert times(to)["1002/Images/same.dcm"] == times(at_rest.source)["1002/Images/same.dcm"]

    finished = at_rest.run("--json", "file", "download", "--to", str(to), "--overwrite").event("download-finished")
    assert finished["fetched"]["files"] == 2
    assert finished["was_there"]["files"] == len(SPRING) - 2
    assert contents(to) == contents(at_rest.source) | {"other.txt": b"not of this"}


def test_what_looks_right_is_believed_unless_it_is_to_be_read(tmp_path: Path, at_rest: Site) -> None:
    to = tmp_path / "to"
    at_rest.run("file", "download", "--to", str(to))
    victim = to / "1002/Images/scan.dcm"
    status = victim.stat()
    victim.write_bytes(bytes(70_000))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    at_rest.run("file", "download", "--to", str(to))
    assert victim.read_bytes() == bytes(70_000)
    assert "taken" in at_rest.run("file", "download", "--to", str(to), "--reread", exit_code=3).err
    at_rest.run("file", "download", "--to", str(to), "--reread", "--overwrite")
    assert contents(to) == contents(at_rest.source)


def test_links_and_files_in_the_way(tmp_path: Path, at_rest: Site) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    to = build(
        tmp_path / "to",
        {"1001": Link(str(elsewhere)), "OMOP": "a file", "1002/Images/scan.dcm": Link(str(elsewhere / "x"))},
    )
    ran = at_rest.run("file", "download", "--to", str(to), "--overwrite", exit_code=3)
    assert ran.err.count("refused: ") == 4, ran.err
    assert contents(elsewhere) == {}


def test_unfinished_files_stay_in_the_target(tmp_path: Path, at_rest: Site) -> None:
    (tmp_path / "elsewhere").mkdir()
    to = build(tmp_path / "to", {".chorus-upload-parts": Link(str(tmp_path / "elsewhere"))})
    assert "is a link" in at_rest.run("file", "download", "--to", str(to), exit_code=2).err
    assert contents(tmp_path / "elsewhere") == {}


def test_a_target_that_is_none(tmp_path: Path, at_rest: Site) -> None:
    build(tmp_path, {"file": "1", "closed/x": "1"})
    assert "is not a directory" in at_rest.run("file", "download", "--to", str(tmp_path / "file"), exit_code=2).err
    anybody = dataclasses.replace(at_rest, program=LIKE_ANYBODY)
    with forbidden(tmp_path / "closed", leaving=0o500):
        ran = anybody.run("file", "download", "--to", str(tmp_path / "closed" / "to"), exit_code=21)
    assert "Permission denied" in ran.err


@pytest.mark.parametrize(
    "directory",
    ["..", "../beside", "/tmp", "1002/../../beside", "a//b", "./x", ".chorus-upload-parts"],  # noqa: S108
)
def test_a_journal_that_leads_astray(tmp_path: Path, at_rest: Site, directory: str) -> None:
    """Somebody made a journal whose paths lead out of the target."""
    at_rest.run("journal", "checkout")
    with closing(sqlite3.connect(at_rest.journal)) as connection, connection:
        connection.execute("UPDATE directory SET path = ? WHERE path = '1001/Images/a b'", (directory,))
    to = tmp_path / "inside" / "to"
    ran = at_rest.run("--json", "file", "download", "--to", str(to), exit_code=3)
    (failed,) = ran.events("file-not-downloaded")
    assert failed["kind"] == "refused"
    assert contents(tmp_path / "inside").keys() == {f"to/{path}" for path in SPRING if not path.startswith("1001")}
    assert not (tmp_path / "inside" / "beside").exists()


def test_two_modalities_with_one_path(tmp_path: Path) -> None:
    site = settle(
        tmp_path / "home",
        build(tmp_path / "source", {"OMOP/person.csv": "1"}),
        new_disk(tmp_path / "cloud"),
        more=f"""
[site_path.Images]
path = "{tmp_path / "images"}"
pattern = "{{filepath}}"

[site_path.Waveforms]
path = "{tmp_path / "waveforms"}"
pattern = "{{filepath}}"
""",
    )
    build(tmp_path / "images", {"a/same": "same", "a/other": "1"})
    build(tmp_path / "waveforms", {"a/same": "same", "a/other": "2"})
    site.run("journal", "update")
    site.run("file", "upload")
    to = tmp_path / "to"
    ran = site.run("file", "download", "--to", str(to), exit_code=2)
    assert "Images and Waveforms both have a file a/other" in ran.err
    site.run("file", "download", "--modality", "Waveforms,OMOP", "--to", str(to))
    assert contents(to) == {"a/same": b"same", "a/other": b"2", "OMOP/person.csv": b"1"}


@pytest.fixture
def wired(tmp_path: Path, azurite: Azurite, azure_container: str, wire: Wire) -> Site:
    """A site whose cloud is behind a wire, and that has uploaded one large file and a small one."""
    cloud = Container(azurite, azure_container, azurite.sas(azure_container), port=wire.port)
    tree = {"OMOP/person.csv": Bytes(3_000), LARGE: Bytes(40_000_000)}
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    wire.requests.clear()
    return site


def ranges(wire: Wire) -> list[str]:
    """What was asked for of the large file."""
    return [
        each.headers.get("x-ms-range", "whole")
        for each in wire.requests
        if each.method == "GET" and "large.h5" in each.target
    ]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.thorough), signal.SIGKILL])
def test_a_large_file_goes_on_where_it_was(tmp_path: Path, wired: Site, wire: Wire, number: int) -> None:
    to = tmp_path / "to"
    # The third range takes longer than anybody waits.
    wire.script(Delay(0), method="GET", containing="large.h5", times=2)
    wire.script(Delay(600), method="GET", containing="large.h5")
    with wired.running("file", "download", "--to", str(to)) as process:
        wait_until(lambda: len(ranges(wire)) == 3)
        process.send_signal(number)
        if number == signal.SIGINT:
            # The first one would let the range come to its end.
            time.sleep(0.5)
            process.send_signal(number)
        process.wait(30)
    assert not (to / LARGE).exists()
    wire.forget()
    wire.requests.clear()
    finished = wired.run("--json", "file", "download", "--to", str(to)).event("download-finished")
    assert contents(to) == contents(wired.source)
    assert finished["fetched"]["files"] + finished["was_there"]["files"] == 2
    # 40 MB are five ranges: two had come.
    assert len(ranges(wire)) == 3, ranges(wire)


def test_a_large_file_that_was_another_one_half_way(tmp_path: Path, wired: Site, wire: Wire) -> None:
    """What was kept is not trusted: the whole has to be right, and is fetched anew if it is not."""
    to = tmp_path / "to"
    wire.script(Delay(0), method="GET", containing="large.h5", times=2)
    wire.script(Delay(600), method="GET", containing="large.h5")
    with wired.running("file", "download", "--to", str(to)) as process:
        wait_until(lambda: len(ranges(wire)) == 3)
        process.kill()
    wire.forget()
    (part,) = [path for path in (to / ".chorus-upload-parts").iterdir() if path.stat().st_size > 1_000_000]
    part.write_bytes(bytes(part.stat().st_size))
    wired.run("file", "download", "--to", str(to))
    assert contents(to) == contents(wired.source)


def test_a_read_that_breaks_off_goes_on(tmp_path: Path, wired: Site, wire: Wire) -> None:
    wire.script(CutAnswer(5_000), method="GET", containing="large.h5", times=2)
    wired.run("file", "download", "--to", str(tmp_path / "to"))
    assert contents(tmp_path / "to") == contents(wired.source)


def test_several_at_once(tmp_path: Path, at_rest: Site) -> None:
    """Two programs fill one directory: each file comes once, or twice the same."""
    to = tmp_path / "to"
    with (
        at_rest.running("file", "download", "--to", str(to)) as first,
        at_rest.running("file", "download", "--to", str(to)) as second,
    ):
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert contents(to) == contents(at_rest.source)
    assert {path.name for path in to.iterdir()} == {"OMOP", "1001", "1002"}


def test_a_version_whose_label_leads_astray(tmp_path: Path, at_rest: Site) -> None:
    """Somebody made a journal whose versions are called like other directories."""
    at_rest.run("journal", "checkout")
    with closing(sqlite3.connect(at_rest.journal)) as connection, connection:
        connection.execute("UPDATE version SET label = '../beside'")
    before = contents(tmp_path).keys()
    refused = at_rest.run("file", "download", exit_code=4)
    assert "'../beside' cannot be a version" in refused.err
    assert {path for path in contents(tmp_path).keys() - before if "journal.db" not in path} == set()
    at_rest.run("file", "download", "--to", str(tmp_path / "to"))
