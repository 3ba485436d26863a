"""Google Cloud Storage as the home of the journal, as the central store, and as the source of a modality."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clouds import JOURNAL, LOCK, Disk, files_of, manifest_for, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site, wait_until
from tests.gs import MARK, Bucket, Service
from tests.trees import Bytes, build, bytes_of, contents
from tests.wire import Answer, CutAnswer, Delay, Wire

MIB = 1 << 20
TREE = {
    "OMOP/person.csv": Bytes(3_000),
    "1001/Images/a b/scan äö.dcm": Bytes(5_000),
    "1002/Images/scan.dcm": Bytes(70_000),
    "1002/Waveforms/large.h5": Bytes(9 * MIB + 1),
}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A token that lives an hour, as somebody has put it there."""
    file = tmp_path / "token.txt"
    file.touch(mode=0o600)
    file.write_text("ya29.a-token-of-the-tests\n")
    return file


@pytest.fixture
def gs_wire(gcs: Service) -> Iterator[Wire]:
    with Wire(gcs.port) as wire:
        yield wire


@pytest.fixture
def bucket(gcs: Service, gs_bucket: str, gs_wire: Wire, token_file: Path) -> Bucket:
    return Bucket(gcs, gs_bucket, token_file, gs_wire.port)


@pytest.fixture
def gs_site(tmp_path: Path, bucket: Bucket) -> Site:
    """A site whose cloud is a bucket."""
    return settle(tmp_path / "home", build(tmp_path / "source", TREE), bucket)


def test_two_submissions(gs_site: Site, bucket: Bucket) -> None:
    gs_site.run("journal", "update", "--version", "spring")
    gs_site.run("file", "upload")
    gs_site.run("file", "verify", "--deep")
    objects = bucket.objects()
    assert files_of(objects) == {f"spring/{path}": body for path, body in contents(gs_site.source).items()}
    # Large or small: the service says what it has computed.
    assert manifest_of(objects, "spring") == manifest_for(files_of(objects), "spring", evidence="server")
    assert LOCK not in objects

    build(gs_site.source, {"OMOP/person.csv": Bytes(4_000)})
    gs_site.run("journal", "update", "--version", "summer")
    assert gs_site.pending() == {"OMOP/person.csv"}
    gs_site.run("file", "upload")
    assert files_of(bucket.objects())["summer/OMOP/person.csv"] == (gs_site.source / "OMOP/person.csv").read_bytes()
    assert len(bucket.backups()) > 0


def test_what_was_renamed_is_copied_by_the_service(gs_site: Site, bucket: Bucket, gs_wire: Wire) -> None:
    gs_site.run("journal", "update", "--version", "spring")
    gs_site.run("file", "upload")
    (gs_site.source / "1002/Waveforms/large.h5").rename(gs_site.source / "1002/Waveforms/renamed.h5")
    gs_site.run("journal", "update", "--version", "summer")
    gs_wire.requests.clear()
    gs_site.run("file", "upload")
    body = (gs_site.source / "1002/Waveforms/renamed.h5").read_bytes()
    assert files_of(bucket.objects())["summer/1002/Waveforms/renamed.h5"] == body
    # And once more of itself: by that it is checked that the service honours conditions.
    assert gs_wire.count("POST", "/rewriteTo/") == 2
    assert gs_wire.count("PUT") == 0


def test_two_managers(tmp_path: Path, gs_site: Site, bucket: Bucket) -> None:
    """Custody: one atomic request makes the lock, and what comes back replaces only what was taken."""
    theirs = settle(tmp_path / "theirs", gs_site.source, bucket)
    gs_site.run("journal", "update", "--version", "spring")
    gs_site.run("journal", "checkout")
    assert "holds it since" in theirs.run("journal", "update", exit_code=10).err
    theirs.run("journal", "unlock", "--yes")
    theirs.run("journal", "update", "--version", "summer")
    assert "hint:" in gs_site.run("journal", "checkin", exit_code=12).err
    assert bucket.objects().keys() == {JOURNAL}


def test_a_token_that_ends_while_files_are_sent(gs_site: Site, bucket: Bucket, gs_wire: Wire, token_file: Path) -> None:
    """It ends, and says what to do; with a new one the same command goes on in the middle of the file."""
    gs_site.run("journal", "update", "--version", "spring")
    with gs_site.running("file", "upload"):
        gs_wire.script(Delay(60), method="PUT", containing="upload_id")
        wait_until(lambda: gs_wire.count("PUT", "upload_id"))
    # It is refused however often it is used; by the second time it is known that its file is still the same.
    gs_wire.script(Answer(401, (MARK,)), method="PUT", containing="upload_id", times=9)
    gs_wire.requests.clear()
    refused = gs_site.run("file", "upload", exit_code=22)
    assert str(token_file) in refused.err
    assert gs_wire.count("PUT", "upload_id") <= 2
    gs_wire.forget()

    token_file.write_text("ya29.another\n")
    gs_wire.requests.clear()
    gs_site.run("file", "upload")
    assert files_of(bucket.objects()) == {f"spring/{path}": body for path, body in contents(gs_site.source).items()}
    assert {each.headers["authorization"] for each in gs_wire.requests} == {"Bearer ya29.another"}
    assert gs_site.pending() == set()


def test_killed_in_the_middle_of_a_large_file(tmp_path: Path, gcs: Service, gs_bucket: str, token_file: Path) -> None:
    size = 40 * MIB + 5
    name = gcs.create_bucket()
    with Wire(gcs.port) as wire:
        bucket = Bucket(gcs, gs_bucket, token_file, central=(gcs, name, wire.port))
        source = build(tmp_path / "source", {"1001/Waveforms/large.h5": Bytes(size)})
        site = settle(tmp_path / "home", source, bucket)
        site.run("journal", "update", "--version", "spring")

        # Three chunks arrive, and the fourth does not before all is over.
        wire.script(Delay(0), method="PUT", containing="upload_id", times=3)
        wire.script(Answer(503, (("Retry-After", "60"),)), method="PUT", containing="upload_id")
        with site.running("file", "upload"):
            wait_until(lambda: wire.count("PUT", "upload_id") == 4)
            sessions = site.home / "journal.db.sessions"
            assert sessions.exists()
        assert gcs.objects(name) == {}
        assert stat.S_IMODE(sessions.stat().st_mode) == 0o600

        wire.requests.clear()
        site.run("file", "upload")
        put = [each.size for each in wire.requests if each.method == "PUT"]
        # First it is asked what is there; of 40 MiB the last two chunks are sent, and the five bytes. Then
        # one byte shows whether conditions are honoured.
        assert put[0] == 0
        assert sum(put) == size - 24 * MIB + 1
    objects = bucket.objects()
    files = files_of(objects)
    assert files == {"spring/1001/Waveforms/large.h5": bytes_of("1001/Waveforms/large.h5", Bytes(size))}
    assert manifest_of(objects, "spring") == manifest_for(files, "spring", evidence="server")
    assert LOCK not in objects
    assert not sessions.exists()


def test_a_source(tmp_path: Path, disk: Disk, gcs: Service, gs_wire: Wire, token_file: Path) -> None:
    """It is journaled from one listing; what is read is read where it lies, and goes on where a connection broke."""
    name = gcs.create_bucket()
    for path, body in TREE.items():
        gcs.put(name, f"given/{path}", bytes_of(path, body))
    site = settle(tmp_path / "home", tmp_path / "nothing", disk)
    config = site.config.read_text().replace(
        f'path = "{tmp_path / "nothing"}"',
        f"""path = "gs://{name}/given"

[site_path.default.auth]
google_token_file = "{token_file}"
google_endpoint_url = "http://127.0.0.1:{gs_wire.port}"
""",
    )
    site.configure(config)
    site = dataclasses.replace(site, cloud=disk)
    site.run("journal", "update", "--version", "spring")
    assert [each.method for each in gs_wire.requests] == ["GET"]

    gs_wire.script(CutAnswer(100_000), method="GET", containing="large.h5?alt=media")
    site.run("file", "upload")
    assert files_of(disk.objects()) == {f"spring/{path}": bytes_of(path, body) for path, body in TREE.items()}
    site.run("journal", "update", "--version", "summer")
    assert site.pending() == set()

    gcs.put(name, "given/OMOP/person.csv", bytes_of("OMOP/person.csv", Bytes(3_000, edition=2)))
    # Written again with the same content: a new time, the same MD5, and nothing to send.
    gcs.put(name, "given/1002/Images/scan.dcm", bytes_of("1002/Images/scan.dcm", TREE["1002/Images/scan.dcm"]))
    site.run("journal", "update", "--version", "autumn")
    assert site.pending() == {"OMOP/person.csv"}
    gcs.delete(name, "given/OMOP/person.csv")
    assert "person.csv" in site.run("file", "upload", exit_code=3).err
