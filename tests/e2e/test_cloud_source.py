"""Files that already lie in a cloud: they are journaled from a listing, and go through memory to the central store."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from tests.e2e.clouds import Cloud, Container, ask, files_of
from tests.e2e.conftest import new_disk
from tests.e2e.site import Site, wait_until
from tests.emulators import Azurite
from tests.gs import Bucket
from tests.trees import Bytes, bytes_of
from tests.wire import CutAnswer, Request, Wire

SPRING = {
    "OMOP/person.csv": Bytes(3_000),
    "OMOP/empty.csv": Bytes(0),
    "1001/Images/a b/scan äö.dcm": Bytes(5_000),
    "1002/Images/scan.dcm": Bytes(70_000),
    "1002/Waveforms/large.h5": Bytes(9_000_001),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Another institution's container, given out as a SAS URL."""

    azurite: Azurite
    name: str
    port: int

    def put(self, path: str, body: Bytes, *, with_md5: bool = True) -> None:
        data = bytes_of(path, body)
        with self.azurite.service() as service, service.get_blob_client(self.name, f"given/out/{path}") as blob:
            blob.upload_blob(data, overwrite=True)
            if not with_md5:
                blob.set_http_headers(ContentSettings(content_type="text/plain"))

    def put_again(self, path: str, body: Bytes) -> None:
        """As `put`, at another time than before, of which services tell seconds only."""
        data = bytes_of(path, body)
        with self.azurite.service() as service, service.get_blob_client(self.name, f"given/out/{path}") as blob:
            before = blob.get_blob_properties().last_modified
            wait_until(lambda: blob.upload_blob(data, overwrite=True)["last_modified"] > before)

    def delete(self, path: str) -> None:
        with self.azurite.service() as service:
            service.get_blob_client(self.name, f"given/out/{path}").delete_blob()

    @property
    def url(self) -> str:
        token = self.azurite.sas(self.name, permissions="rl")
        return f"{self.azurite.url_at(self.port)}/{self.name}/given/out?{token}"


@pytest.fixture
def origin(request: pytest.FixtureRequest, azurite: Azurite, wire: Wire) -> Origin:
    account = azurite.neighbour if getattr(request, "param", "") == "another account" else azurite
    found = Origin(account, account.create_container(), wire.port)
    for path, body in SPRING.items():
        found.put(path, body)
    return found


@pytest.fixture(params=["disk", "container"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Cloud:
    if request.param == "disk":
        return new_disk(tmp_path / "cloud")
    container: Container = request.getfixturevalue("container")
    if request.param == "container":
        return container
    if request.param == "google":
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text("ya29.a-token-of-the-tests")
        return Bucket(request.getfixturevalue("gcs"), request.getfixturevalue("gs_bucket"), token)
    # The emulator copies within itself only, and knows itself by the address at which it is asked.
    wire: Wire = request.getfixturevalue("wire")
    return dataclasses.replace(container, port=wire.port)


@pytest.fixture
def site(tmp_path: Path, origin: Origin, cloud: Cloud) -> Site:
    site = Site(tmp_path / "home", tmp_path / "nothing", cloud)
    site.configure(
        f"""
[configuration]
retry_seconds = 5

[journal]
journaling_mode = "full"

[journal.local]
path = "{site.journal}"
{cloud.config}
[site_path.default]
path = "{origin.url}"
"""
    )
    return site


def fetched(wire: Wire, origin: Origin) -> list[str]:
    """What was read of the files of the origin."""
    return [each.target for each in wire.requests if each.method == "GET" and "comp=list" not in each.target]


def expected(version: str, *paths: str, **bodies: Bytes) -> dict[str, bytes]:
    return {f"{version}/{path}": bytes_of(path, bodies.get(path, SPRING.get(path, Bytes(0)))) for path in paths}


def test_two_submissions(site: Site, origin: Origin, wire: Wire, cloud: Cloud) -> None:
    update = site.run("--json", "journal", "update", "--version", "spring").event("update-finished")
    assert sum(each["added"]["files"] for each in update["modalities"].values()) == len(SPRING)
    # One page of a listing, and nothing is read.
    assert fetched(wire, origin) == []
    assert wire.count("GET", f"/{origin.name}?") == 1

    site.run("file", "upload")
    assert files_of(cloud.objects()) == expected("spring", *SPRING)
    site.run("file", "verify", "--deep")

    wire.requests.clear()
    site.run("journal", "update", "--version", "summer")
    assert site.pending() == set()

    origin.put("OMOP/person.csv", Bytes(3_000, edition=2))
    # Written again with the same content: a new time, and nothing to send.
    origin.put_again("1002/Images/scan.dcm", SPRING["1002/Images/scan.dcm"])
    origin.put("1003/Images/new.dcm", Bytes(10))
    origin.delete("OMOP/empty.csv")
    update = site.run("--json", "journal", "update", "--confirm-deletions", "--version", "autumn").event(
        "update-finished"
    )
    found = {
        (modality, change): tally["files"]
        for modality, changes in update["modalities"].items()
        for change, tally in changes.items()
        if isinstance(tally, dict) and tally["files"] and change != "unchanged"
    }
    assert found == {
        ("OMOP", "modified"): 1,
        ("OMOP", "retired"): 1,
        ("Images", "added"): 1,
        ("Images", "touched"): 1,
    }
    assert fetched(wire, origin) == []
    assert site.pending() == {"OMOP/person.csv", "1003/Images/new.dcm"}
    site.run("file", "upload")
    objects = files_of(cloud.objects())
    assert objects["autumn/OMOP/person.csv"] == bytes_of("OMOP/person.csv", Bytes(3_000, edition=2))
    assert objects.keys() == expected("spring", *SPRING).keys() | {
        "autumn/OMOP/person.csv",
        "autumn/1003/Images/new.dcm",
    }


def test_without_a_checksum_what_has_another_time_is_read(site: Site, origin: Origin, wire: Wire) -> None:
    for path in ("1002/Images/scan.dcm", "OMOP/person.csv"):
        origin.put(path, SPRING[path], with_md5=False)
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    time.sleep(1.1)  # the service's times are whole seconds
    origin.put("1002/Images/scan.dcm", SPRING["1002/Images/scan.dcm"], with_md5=False)
    origin.put("OMOP/person.csv", Bytes(3_000, edition=2), with_md5=False)
    wire.requests.clear()
    site.run("journal", "update", "--version", "summer")
    assert {target.partition("?")[0].rpartition("/")[2] for target in fetched(wire, origin)} == {
        "scan.dcm",
        "person.csv",
    }
    assert site.pending() == {"OMOP/person.csv"}


def test_a_renamed_object(site: Site, origin: Origin) -> None:
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    origin.delete("1002/Images/scan.dcm")
    with origin.azurite.service() as service:
        body = bytes_of("1002/Images/scan.dcm", SPRING["1002/Images/scan.dcm"])
        service.get_blob_client(origin.name, "given/out/1002/Images/other.dcm").upload_blob(body)
    update = site.run("--json", "journal", "update").event("update-finished")
    assert update["modalities"]["Images"]["renamed"]["files"] == 1


def test_a_claim_that_is_a_lie_is_found_out(site: Site, origin: Origin, cloud: Cloud) -> None:
    """Somebody wrote the MD5 of other content beside an object, or something on the way changes it: who can tell?"""
    with origin.azurite.service() as service:
        blob = service.get_blob_client(origin.name, "given/out/OMOP/person.csv")
        blob.set_http_headers(ContentSettings(content_type="text/plain", content_md5=bytearray(16)))
    site.run("journal", "update", "--version", "spring")
    refused = site.run("file", "upload", exit_code=3)
    assert "unreadable: OMOP/person.csv" in refused.err
    assert f"the service says {bytes(16).hex()}" in refused.err
    assert "have the checksum at the service corrected" in " ".join(refused.err.split())
    assert files_of(cloud.objects()) == expected("spring", *(SPRING.keys() - {"OMOP/person.csv"}))
    origin.put("OMOP/person.csv", SPRING["OMOP/person.csv"])
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    assert files_of(cloud.objects()) == expected("spring", *SPRING)


def test_what_changes_after_the_listing_is_not_sent_as_what_was_listed(
    site: Site, origin: Origin, cloud: Cloud
) -> None:
    site.run("journal", "update", "--version", "spring")
    time.sleep(1.1)
    origin.put("OMOP/person.csv", Bytes(3_000, edition=2))
    origin.delete("1001/Images/a b/scan äö.dcm")
    ran = site.run("file", "upload", exit_code=3)
    assert "person.csv" in ran.err
    assert "scan äö.dcm" in ran.err
    assert (
        files_of(cloud.objects()).keys()
        == expected("spring", "OMOP/empty.csv", "1002/Images/scan.dcm", "1002/Waveforms/large.h5").keys()
    )


def test_a_read_that_breaks_off_goes_on_where_it_broke(site: Site, origin: Origin, wire: Wire, cloud: Cloud) -> None:
    site.run("journal", "update", "--version", "spring")
    wire.script(CutAnswer(5_000), method="GET", containing="large.h5")
    wire.script(CutAnswer(100_000), method="GET", containing="large.h5")
    site.run("file", "upload")
    assert files_of(cloud.objects()) == expected("spring", *SPRING)


def test_a_container_that_cannot_be_listed_is_no_empty_source(site: Site, origin: Origin) -> None:
    site.run("journal", "update", "--version", "spring")
    with origin.azurite.service() as service:
        service.delete_container(origin.name)
    ran = site.run("journal", "update", "--confirm-deletions", exit_code=23)
    assert "Traceback" not in ran.err
    assert ask(site.journal, "SELECT count(*) FROM file WHERE retired_by IS NULL") == [(len(SPRING),)]


_WATCHED = """
import os, runpy, sys
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_CREAT, 0o600)
def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        os.write(notes, os.fsencode(str(arguments[0])) + b"\\n")
sys.addaudithook(watch)
runpy.run_module("chorus_upload", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(  # on a disk it would be the central store's
    "cloud", ["container", pytest.param("google", marks=pytest.mark.thorough)], indirect=True
)
def test_nothing_is_put_on_a_disk_on_the_way(tmp_path: Path, site: Site, wire: Wire, cloud: Cloud) -> None:
    """Every file that the program opens to write, seen from within."""
    site.run("journal", "update", "--version", "spring")
    notes = tmp_path / "notes"
    watched = dataclasses.replace(
        site, program=(sys.executable, "-c", _WATCHED), environment={"NOTES": str(notes), "TMPDIR": str(tmp_path)}
    )
    watched.run("file", "upload")
    assert files_of(cloud.objects()) == expected("spring", *SPRING)
    # The journal and its companions, and what is left as proof: nothing of the files.
    written = {Path(line).name for line in notes.read_text().splitlines()}
    written = {name for name in written if not name.startswith("journal.db") and not name.isdigit()}
    assert written <= {"manifest.csv", "null"}
    # The empty file, and the large one after it was read; for another service nobody asks what could be copied.
    assert wire.count("HEAD") == (2 if isinstance(cloud, Bucket) else 4)


class TestWithinOneService:
    """What lies in the service to which it is to go is copied by that service: no byte of it comes by here."""

    @pytest.mark.parametrize("origin", ["own account", "another account"], indirect=True)
    @pytest.mark.parametrize("cloud", ["same service"], indirect=True)
    def test_it_is_copied_there(self, site: Site, origin: Origin, wire: Wire, cloud: Container) -> None:
        site.run("journal", "update", "--version", "spring")
        wire.requests.clear()
        finished = site.run("--json", "file", "upload").event("upload-finished")
        assert files_of(cloud.objects()) == expected("spring", *SPRING)
        # Small files are fetched and sent: that is quicker.
        ours = {each.target.partition("?")[0].rpartition("/")[2] for each in wire.requests if _is_file(each, origin)}
        assert ours == {"person.csv", "empty.csv", "scan%20%C3%A4%C3%B6.dcm"}
        assert finished["spared"] == 70_000 + 9_000_001
        assert finished["evidence"] == {"server": 3, "transit": 2}
        site.run("file", "verify", "--deep")

        # It is known as well as what came by here: nothing has changed, and then one file has.
        site.run("journal", "update", "--version", "summer")
        assert site.pending() == set()
        origin.put("1002/Images/scan.dcm", Bytes(70_000, edition=2))
        site.run("journal", "update", "--version", "autumn")
        site.run("file", "upload")
        assert files_of(cloud.objects())["autumn/1002/Images/scan.dcm"] == bytes_of(
            "1002/Images/scan.dcm", Bytes(70_000, edition=2)
        )

    @pytest.mark.parametrize("cloud", ["same service"], indirect=True)
    def test_what_cannot_be_proven_comes_by_here(
        self, site: Site, origin: Origin, wire: Wire, cloud: Container
    ) -> None:
        """One has no MD5."""
        origin.put("1002/Waveforms/large.h5", SPRING["1002/Waveforms/large.h5"], with_md5=False)
        site.run("journal", "update", "--version", "spring")
        wire.requests.clear()
        spared = site.run("--json", "file", "upload").event("upload-finished")["spared"]
        assert spared == SPRING["1002/Images/scan.dcm"].size
        assert files_of(cloud.objects()) == expected("spring", *SPRING)
        assert "large.h5" in {
            each.target.partition("?")[0].rpartition("/")[2] for each in wire.requests if _is_file(each, origin)
        }

    @pytest.mark.parametrize("cloud", ["same service"], indirect=True)
    def test_a_key_that_is_taken_is_left_alone(self, site: Site, origin: Origin, cloud: Container) -> None:
        cloud.put("data/spring/1002/Images/scan.dcm", b"other")
        cloud.put(
            "data/spring/1002/Waveforms/large.h5",
            bytes_of("1002/Waveforms/large.h5", SPRING["1002/Waveforms/large.h5"]),
        )
        site.run("journal", "update", "--version", "spring")
        ran = site.run("--json", "file", "upload", exit_code=3)
        (failed,) = ran.events("file-failed")
        assert (failed["kind"], failed["path"]) == ("key-taken", "1002/Images/scan.dcm")
        assert files_of(cloud.objects())["spring/1002/Images/scan.dcm"] == b"other"


def _is_file(request: Request, origin: Origin) -> bool:
    """Whether a file of the origin was fetched."""
    return request.method == "GET" and f"/{origin.name}/given" in request.target
