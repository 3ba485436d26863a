"""What `file verify` asks of the cloud, what it reads back, and what it leaves behind for others to read."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clouds import CENTRAL, Container, Disk
from tests.e2e.conftest import settle
from tests.e2e.site import Site, wait_until
from tests.emulators import MARK
from tests.trees import Bytes, build
from tests.wire import Answer, Delay, Wire

TREE = {f"{patient}/Images/scan.dcm": Bytes(2_000) for patient in range(1001, 1013)}
MIB = 1 << 20


def uploaded(home: Path, cloud: Container | Disk, *, patience: int = 5, threads: int = 4) -> Site:
    """A site whose twelve scans have been sent, as version `spring`."""
    site = settle(home / "home", build(home / "source", TREE), cloud, patience=patience, threads=threads)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    return site


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_submission_that_nobody_touched_takes_one_request(tmp_path: Path, container: Container, wire: Wire) -> None:
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port))
    site.run("journal", "checkout")
    wire.requests.clear()

    verify = site.run("--json", "file", "verify")

    (request,) = wire.requests
    assert request.method == "GET"
    assert "comp=list" in request.target
    assert {each["evidence"] for each in verify.events("file-verified")} == {"server"}
    assert verify.event("verify-finished")["results"] == {"matched": len(TREE)}


def test_reading_everything_back(tmp_path: Path, container: Container, wire: Wire) -> None:
    """Each object is asked for once, and the report has a row for each."""
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port))
    wire.requests.clear()

    verify = site.run("file", "verify", "--deep", "--report", "deep.csv")

    assert wire.count("GET", "/Images/") == len(TREE)
    assert "Evidence: readback 12.\n" in verify.out
    assert "Read back: 12 files, 23.4 KiB.\n" in verify.out
    assert "a row for every file is in deep.csv" in verify.err
    report = rows(site.home / "deep.csv")
    assert {row["path"] for row in report} == set(TREE)
    assert {(row["result"], row["evidence"], row["size"], row["version"]) for row in report} == {
        ("matched", "readback", "2000", "spring")
    }
    known = {each["path"]: (each["md5"], each["fingerprint"]) for each in site.uploaded().values()}
    assert {row["path"]: (row["md5"], row["fingerprint"]) for row in report} == known


def test_a_random_part(tmp_path: Path, container: Container, wire: Wire) -> None:
    """Chance chooses, and its seed chooses again."""
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port))
    wire.requests.clear()

    first = site.run("--json", "file", "verify", "--sample", "25%")

    seed = first.event("verify-finished")["seed"]
    assert wire.count("GET", "/Images/") == len(read_back(first.events("file-verified"))) >= 1
    again = site.run("--json", "file", "verify", "--sample", "25%", "--seed", str(seed))
    assert read_back(again.events("file-verified")) == read_back(first.events("file-verified"))
    assert again.event("verify-finished")["results"] == {"matched": len(TREE)}
    told = site.run("file", "verify", "--sample", "5", "--seed", str(seed))
    assert f"Sample: 5, chosen by --seed {seed}.\n" in told.out
    assert "Evidence: server 7, readback 5.\n" in told.out


def read_back(events: list[dict[str, Any]]) -> set[str]:
    return {each["path"] for each in events if each["evidence"] == "readback"}


def test_everything_that_can_be_wrong_is_in_the_report(tmp_path: Path, container: Container) -> None:
    site = uploaded(tmp_path, container)
    container.delete(f"{CENTRAL}/spring/1001/Images/scan.dcm")
    container.put(f"{CENTRAL}/spring/1002/Images/scan.dcm", b"short")
    container.put(f"{CENTRAL}/spring/1003/Images/scan.dcm", bytes(2_000))
    container.put(f"{CENTRAL}/spring/stranger.txt", b"?")
    archive(container, f"{CENTRAL}/spring/1004/Images/scan.dcm")

    verify = site.run("file", "verify", "--deep", "--report", "deep.jsonl", exit_code=3)

    lines = (site.home / "deep.jsonl").read_text(encoding="utf-8").splitlines()
    found = {line["key"]: line for line in map(json.loads, lines)}
    bad = {key: line["result"] for key, line in found.items() if line["result"] != "matched"}
    assert bad == {
        "spring/1001/Images/scan.dcm": "missing",
        "spring/1002/Images/scan.dcm": "size-differs",
        "spring/1003/Images/scan.dcm": "checksum-differs",
        "spring/1004/Images/scan.dcm": "unreadable",
        "spring/stranger.txt": "not-in-journal",
    }
    assert len(found) == len(TREE) + 1
    assert "archived blob (409 BlobArchived)" in found["spring/1004/Images/scan.dcm"]["detail"]
    assert "could not be read: spring/1004/Images/scan.dcm (" in verify.out
    assert "Next: " in verify.err
    assert "file mark-as-deleted --file PATH" in verify.err


def test_what_was_put_into_an_archive_is_where_it_was(tmp_path: Path, container: Container) -> None:
    """Another tier is no other object: without reading there is nothing to complain of."""
    site = uploaded(tmp_path, container)
    for path in TREE:
        archive(container, f"{CENTRAL}/spring/{path}")

    site.run("file", "verify")
    deep = site.run("--json", "file", "verify", "--deep", exit_code=3)

    assert deep.event("verify-finished")["results"] == {"unreadable": len(TREE)}


def archive(container: Container, key: str) -> None:
    with container.azurite.service() as service, service.get_blob_client(container.name, key) as blob:
        blob.set_standard_blob_tier("Archive")


def test_a_service_that_fails_for_one_object(tmp_path: Path, container: Container, wire: Wire) -> None:
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port), patience=0)
    wire.script(Answer(503, (MARK, ("x-ms-error-code", "ServerBusy"))), method="GET", containing="1003/Images")

    verify = site.run("--json", "file", "verify", "--deep", exit_code=3)

    (bad,) = (each for each in verify.events("file-verified") if each["result"] != "matched")
    assert (bad["path"], bad["result"], bad["evidence"]) == ("1003/Images/scan.dcm", "unreadable", None)
    assert "ServerBusy" in bad["detail"]
    assert verify.event("verify-finished")["results"] == {"matched": len(TREE) - 1, "unreadable": 1}


def test_a_service_that_fails_for_a_moment(tmp_path: Path, container: Container, wire: Wire) -> None:
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port), patience=20)
    wire.script(Answer(503), method="GET", containing="1003/Images")

    site.run("file", "verify", "--deep")


def test_a_token_that_may_list_and_not_read(tmp_path: Path, container: Container) -> None:
    """Looking at the listing is permitted; the first objects to be read say that reading is not, and it ends."""
    site = uploaded(tmp_path, container)
    poor = dataclasses.replace(container, central_token=container.azurite.sas(container.name, permissions="l"))
    reader = settle(site.home, site.source, poor)

    reader.run("file", "verify")
    refused = reader.run("file", "verify", "--deep", "--report", "deep.csv", exit_code=21)

    assert "403" in refused.err
    assert not (site.home / "deep.csv").exists()


def test_an_interruption_ends_it_in_order(tmp_path: Path, container: Container, wire: Wire) -> None:
    site = uploaded(tmp_path, dataclasses.replace(container, port=wire.port), threads=2)
    wire.script(Delay(0.5), method="GET", containing="/Images/", times=2)
    wire.requests.clear()

    with site.running("file", "verify", "--deep", "--report", "deep.csv") as verify:
        wait_until(lambda: wire.count("GET", "/Images/") == 2)
        verify.send_signal(signal.SIGINT)
        assert verify.wait(30) == 130

    assert wire.count("GET", "/Images/") == 2
    assert not [path for path in site.home.iterdir() if "csv" in path.name]
    site.run("file", "verify", "--deep")


def test_an_interruption_does_not_wait_for_the_rest_of_a_large_object(
    tmp_path: Path, container: Container, wire: Wire
) -> None:
    site = settle(
        tmp_path / "home",
        build(tmp_path / "source", {"1001/Images/large.dcm": Bytes(40 * MIB)}),
        dataclasses.replace(container, port=wire.port),
        threads=1,
    )
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    wire.script(Delay(0.5), method="GET", containing="/Images/")
    wire.requests.clear()

    with site.running("file", "verify", "--deep") as verify:
        wait_until(lambda: wire.count("GET", "/Images/"))
        verify.send_signal(signal.SIGTERM)
        assert verify.wait(30) == 130

    assert wire.count("GET", "/Images/") == 1


def test_a_large_object_is_read_in_pieces(tmp_path: Path, container: Container) -> None:
    site = settle(tmp_path / "home", build(tmp_path / "source", {"1001/Images/large.dcm": Bytes(20 * MIB)}), container)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")

    verify = site.run("--json", "file", "verify", "--deep")

    assert verify.event("verify-finished")["read_back"] == {"files": 1, "bytes": 20 * MIB}
    assert verify.events("verify-progressed")[-1]["bytes"] == 20 * MIB


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--deep", "--sample", "1%"), "--deep and --sample exclude each other"),
        (("--sample", "0%"), "a sample of '0%' makes no sense"),
        (("--sample", "half"), "like 1% or 0.5%"),
        (("--seed", "7"), "--seed chooses a sample"),
        (("--sample", "1%", "--seed", "x"), "should be a valid integer"),
        (("--sample", "1%", "--seed", "-1"), "should be greater than or equal to 0"),
        (("--report", "report.txt"), "the name says no format"),
        (("--report", "nowhere/report.csv"), "cannot write nowhere/report.csv"),
        (("--version", "winter"), "there is no version winter in the journal"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_cannot_be_meant(site: Site, arguments: tuple[str, ...], said: str) -> None:
    build(site.source, {"OMOP/person.csv": "person_id\n"})
    site.run("journal", "update")

    refused = site.run("file", "verify", *arguments, exit_code=2)

    assert said in refused.err
    assert "hint: " in refused.err or "--report nowhere" in " ".join(arguments)
    assert refused.out == ""


def test_names_with_line_breaks_are_one_row(site: Site, disk: Disk) -> None:
    name = '1001/Images/a "b", c\nd.dcm'
    build(site.source, {name: "scan"})
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")

    site.run("file", "verify", "--report", "report.csv")

    (row,) = rows(site.home / "report.csv")
    assert (row["path"], row["key"], row["result"]) == (name, f"spring/{name}", "matched")
    assert f"{CENTRAL}/spring/{name}" in disk.objects()
