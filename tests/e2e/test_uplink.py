"""The line to the cloud as hospitals have it: slow, far away, cut off in the middle, garbling, limited."""

from __future__ import annotations

import dataclasses
import time
from base64 import b64decode
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.clouds import Container, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import wait_until
from tests.relay import Relay
from tests.trees import Bytes, build, bytes_of
from tests.wire import Answer, CutAnswer, Delay, DropAnswer, Garble, Wire

BLOCK = 8 << 20
LARGE = "1001/Waveforms/recording.h5"
MIXED: dict[str, Bytes] = {
    "OMOP/person.csv": Bytes(40_000),
    "OMOP/empty.csv": Bytes(0),
    LARGE: Bytes(2 * BLOCK + 1_000),
    **{f"1001/Images/{number}.dcm": Bytes(5_000 + number) for number in range(12)},
}


def expected(tree: dict[str, Bytes]) -> dict[str, bytes]:
    return {f"spring/{path}": bytes_of(path, body) for path, body in tree.items()}


def blocks(wire: Wire) -> list[str]:
    """The blocks of the large file that went over the wire, without the receipts for them."""
    sent = [each for each in wire.requests if each.method == "PUT" and f"{LARGE}?comp=block&" in each.target]
    return [each.target for each in sent if each.size != 1]


def blocks_held(container: Container) -> set[str]:
    """What the service has of the large file before it is one, as far as there are receipts for it."""
    with (
        container.azurite.service() as service,
        service.get_blob_client(container.name, f"data/spring/{LARGE}") as blob,
    ):
        _, uncommitted = blob.get_block_list("uncommitted")
        names = {str(block.id) for block in uncommitted}
        return {name for name in names if "-" in name and name.replace("-", "+") in names}


def test_a_large_file_goes_on_where_a_kill_ended_it(tmp_path: Path, container: Container, wire: Wire) -> None:
    number = 7
    tree: dict[str, Bytes] = {LARGE: Bytes(number * BLOCK - 5)}
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, threads=2)
    site.run("journal", "update", "--version", "spring")
    wire.script(Delay(0.3), method="PUT", containing=f"{LARGE}?comp=block&", times=2 * number)

    with site.running("file", "upload"):  # leaving it kills
        wait_until(lambda: len(blocks(wire)) >= 4)
    time.sleep(0.5)  # what had left by then arrives
    held = blocks_held(container)
    assert 0 < len(held) < number
    wire.forget()
    wire.requests.clear()

    upload = site.run("--json", "file", "upload").event("upload-finished")

    again = {b64decode(parse_qs(urlsplit(target).query)["blockid"][0]).decode() for target in blocks(wire)}
    assert len(blocks(wire)) == len(again)
    assert not held & again
    assert len(held) + len(again) == number
    assert upload["spared"] == len(held) * BLOCK
    assert upload["evidence"] == {"transit": 1}
    assert files_of(container.objects()) == expected(tree)


def test_every_request_of_a_run(tmp_path: Path, container: Container, wire: Wire) -> None:
    """One request for each small file, one for each block, and nothing else that grows with the files.

    Of the first small file, and of the first large one, it is asked once whether it is there, and it is made twice: so
    conditions are checked.
    """
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", MIXED), cloud, threads=4)
    site.run("journal", "update", "--version", "spring")
    wire.requests.clear()
    wire.checks.clear()
    site.run("file", "upload")

    central = [each for each in wire.requests if "/data" in each.target and "/spring/" in each.target]
    of_files = [each for each in central if "manifest" not in each.target and "journal.db" not in each.target]
    counted = {
        "there?": sum(each.method == "HEAD" for each in of_files),
        "put": sum(each.method == "PUT" and "comp=" not in each.target for each in of_files),
        "block": sum("comp=block&" in each.target for each in of_files),
        "blocks there?": sum(each.method == "GET" and "comp=blocklist" in each.target for each in of_files),
        "list of blocks": sum(each.method == "PUT" and "comp=blocklist" in each.target for each in of_files),
    }
    assert counted == {"there?": 2, "put": len(MIXED) - 1, "block": 3, "blocks there?": 1, "list of blocks": 1}
    assert len(of_files) == sum(counted.values())
    assert sum("/spring/" in each.target for each in wire.checks) == 2
    wire.requests.clear()
    site.run("file", "verify")
    listings = [each.target for each in wire.requests if "comp=list" in each.target]
    [listing] = [each for each in listings if "journal" not in each]
    assert "maxresults=5000" in listing, listings


def test_whatever_the_wire_does_what_arrives_is_right(tmp_path: Path, container: Container, wire: Wire) -> None:
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", MIXED), cloud, threads=4)
    site.run("journal", "update", "--version", "spring")
    for fault in (Garble(10), CutAnswer(30), DropAnswer(), Answer(503), Answer(500), Garble(500)):
        wire.script(fault, method="PUT", containing="/Images/")
        wire.script(fault, method="PUT", containing=f"{LARGE}?comp=block&")
    wire.script(DropAnswer(), method="PUT", containing=f"{LARGE}?comp=blocklist")
    upload = site.run("--json", "file", "upload").event("upload-finished")
    assert upload["failed"] == 0
    assert files_of(container.objects()) == expected(MIXED)
    site.run("file", "verify", "--deep")


@pytest.mark.parametrize(
    "limited",
    [pytest.param(False, id="a slow wire", marks=pytest.mark.thorough), pytest.param(True, id="a limit of our own")],
)
def test_a_slow_line(tmp_path: Path, container: Container, *, limited: bool) -> None:
    """200 kB/s; the wire also takes 0.3 s for every 16 kB that it gets. Nothing times out, nothing is lost."""
    tree: dict[str, Bytes] = {f"1001/Images/{number}.dcm": Bytes(80_000 + number) for number in range(6)}
    with Relay(container.azurite.port, rate=None if limited else 200_000, delay=0 if limited else 0.3) as relay:
        cloud = dataclasses.replace(container, port=relay.port)
        limit = 'bandwidth_limit = "200 kB/s"' if limited else ""
        site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, threads=4, configuration=limit)
        site.run("journal", "update", "--version", "spring")
        before, begun = relay.passed, time.monotonic()
        site.run("file", "upload")
        seconds = time.monotonic() - begun
        assert files_of(container.objects()) == expected(tree)
    # The limit is for the files, not for the journal that goes along.
    content = 6 * 80_000
    assert relay.passed - before >= content
    assert seconds > 0.9 * content / 200_000
