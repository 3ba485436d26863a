"""Commands that are killed without a warning, at a moment when there is much to lose."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest

from tests.e2e.clouds import (
    JOURNAL,
    LOCK,
    Container,
    Disk,
    ask,
    fetched,
    files_of,
    manifest_for,
    manifest_of,
    sent,
    tables_of,
)
from tests.e2e.conftest import settle
from tests.e2e.site import Site, wait_until
from tests.trees import Bytes, build, bytes_of, contents
from tests.wire import Delay, DropAnswer, Wire

MANY = {f"{patient}/Images/{number:03}.dcm": Bytes(30) for patient in range(1001, 1006) for number in range(80)}
SCANS = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1013)}


def test_an_update_goes_on_where_it_was_killed(tmp_path: Path, disk: Disk) -> None:
    site = settle(tmp_path / "home", build(tmp_path / "source", MANY), disk, threads=1)
    notes = tmp_path / "notes"

    with site.on_slow_share(0.006, notes=notes).running("journal", "update", "--version", "spring"):
        wait_until(lambda: ask(site.journal, "SELECT count(*) FROM file") > [(0,)])
    ((recorded,),) = ask(site.journal, "SELECT count(*) FROM file")
    assert 0 < recorded < len(MANY)
    assert disk.objects().keys() == {LOCK}
    notes.unlink()

    update = site.on_slow_share(0, notes=notes).run("--json", "journal", "update").event("update-finished")

    assert (update["version"], update["resumed"]) == ("spring", True)
    read = [path for path in notes.read_text().splitlines() if path in MANY]
    assert len(read) == len(MANY) - recorded
    assert update["modalities"]["Images"]["unchanged"]["files"] == recorded
    assert ask(site.journal, "SELECT label, completed_us IS NOT NULL FROM version") == [("spring", 1)]
    assert site.pending() == set(MANY)
    assert disk.objects().keys() == {JOURNAL}


def cut_off(site: Site, wire: Wire, container: Container) -> set[str]:
    """Upload, and kill that when some files are recorded and others are on their way; gives the recorded keys."""
    wire.script(Delay(0.4), method="PUT", containing="/Images/", times=len(SCANS))
    with site.running("file", "upload"):
        wait_until(lambda: ask(site.journal, "SELECT count(*) FROM delivery") > [(0,)])
    recorded = {row[0] for row in ask(site.journal, "SELECT key FROM delivery")}
    assert recorded < {f"spring/{path}" for path in SCANS}
    assert LOCK in container.objects()
    return recorded


@pytest.fixture
def cut(tmp_path: Path, container: Container, wire: Wire) -> tuple[Site, set[str]]:
    """A site whose upload was killed, and the keys that it had recorded by then."""
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", SCANS), cloud, threads=2)
    site.run("journal", "update", "--version", "spring")
    return site, cut_off(site, wire, container)


def require_all(container: Container) -> None:
    """Every scan has arrived, the manifests say so, and the journal is unlocked."""
    objects = container.objects()
    files = files_of(objects)
    assert files == {f"spring/{path}": bytes_of(path, body) for path, body in SCANS.items()}
    # What arrived without an answer was read back, the rest was proven by the service.
    told = {key: (size, md5) for key, (size, md5, _) in manifest_of(objects, "spring").items()}
    assert told == {key: (size, md5) for key, (size, md5, _) in manifest_for(files, "spring", evidence="").items()}
    assert LOCK not in objects


def test_an_upload_that_was_killed_is_repeated(cut: tuple[Site, set[str]], container: Container, wire: Wire) -> None:
    site, recorded = cut

    upload = site.run("--json", "file", "upload").event("upload-finished")

    assert upload["delivered"]["files"] + upload["already_there"]["files"] == len(SCANS) - len(recorded)
    require_all(container)
    times = sent(wire, container.name)
    assert {key: times[key] for key in recorded} == dict.fromkeys(recorded, 1)


def test_the_journal_of_a_killed_upload_is_given_back_first(
    cut: tuple[Site, set[str]], tmp_path: Path, container: Container, wire: Wire
) -> None:
    """From another directory, by the name of the local journal; then another machine goes on."""
    site, recorded = cut
    other = settle(tmp_path / "other", site.source, dataclasses.replace(container, port=wire.port))
    refused = other.run("file", "upload", exit_code=10)
    assert "journal unlock" in refused.err

    other.run("journal", "checkin", "--local-journal", str(site.journal))
    assert LOCK not in container.objects()
    other.run("file", "upload")

    require_all(container)
    times = sent(wire, container.name)
    assert {key: times[key] for key in recorded} == dict.fromkeys(recorded, 1)
    # The first machine goes on with what the other has done, not with its own copy.
    site.run("journal", "update", "--version", "summer")
    assert ask(site.journal, "SELECT count(*) FROM delivery") == [(len(SCANS),)]


@pytest.mark.thorough
def test_an_upload_that_the_user_interrupts_gives_the_journal_back(
    tmp_path: Path, container: Container, wire: Wire
) -> None:
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", SCANS), cloud, threads=2)
    site.run("journal", "update", "--version", "spring")
    wire.script(Delay(0.4), method="PUT", containing="/Images/", times=len(SCANS))

    with site.running("file", "upload") as upload:
        wait_until(lambda: sent(wire, container.name))
        upload.send_signal(signal.SIGINT)
        assert upload.wait(30) == 130

    arrived, recorded = files_of(container.objects()), {each["key"] for each in site.uploaded().values()}
    assert LOCK not in container.objects()
    assert recorded <= arrived.keys()
    assert len(arrived) < len(SCANS)
    # It was waited for what was on its way, so that it counts.
    assert recorded == arrived.keys()
    site.run("file", "upload")
    require_all(container)
    assert sent(wire, container.name) == dict.fromkeys(files_of(container.objects()), 1)


def test_an_interruption_does_not_wait_for_the_rest_of_a_large_file(
    tmp_path: Path, container: Container, wire: Wire
) -> None:
    """A file can take hours, and who types Ctrl-C wants to go home. Tomorrow it goes on."""
    cloud = dataclasses.replace(container, port=wire.port)
    blocks = 4
    source = build(tmp_path / "source", {"1001/Images/large.dcm": Bytes(blocks << 23)})
    # One block at a time: with four all of them may be on their way.
    site = settle(tmp_path / "home", source, cloud, threads=1)
    site.run("journal", "update", "--version", "spring")
    wire.script(Delay(0.3), method="PUT", containing="large.dcm?comp=block&")

    with site.running("file", "upload") as upload:
        wait_until(lambda: wire.count("PUT", "large.dcm?comp=block&"))
        upload.send_signal(signal.SIGINT)
        assert upload.wait(30) == 130

    assert wire.count("PUT", "large.dcm?comp=block&") < blocks
    assert container.objects().keys() == {JOURNAL}

    site.run("file", "upload")
    objects = container.objects()
    assert files_of(objects) == {f"spring/{path}": body for path, body in contents(site.source).items()}
    assert manifest_of(objects, "spring") == manifest_for(files_of(objects), "spring", evidence="transit")


def test_an_amended_version_replaces_what_a_killed_upload_left(
    cut: tuple[Site, set[str]], container: Container
) -> None:
    """Files that had arrived without being recorded were corrected: the same names in the same version again."""
    site, recorded = cut
    unrecorded = files_of(container.objects()).keys() - recorded
    assert unrecorded
    corrected = {key.removeprefix("spring/"): Bytes(900, edition=2) for key in unrecorded}
    build(site.source, corrected)

    site.run("journal", "update", "--amend")
    site.run("file", "upload")

    files = files_of(container.objects())
    assert files == {f"spring/{path}": bytes_of(path, body) for path, body in (SCANS | corrected).items()}


def test_a_journal_that_was_given_back_without_an_answer(tmp_path: Path, container: Container, wire: Wire) -> None:
    """The cloud has it, and the command could not know. The next one goes on all the same."""
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", SCANS), cloud, patience=0)
    wire.script(DropAnswer(), method="PUT", containing=f"{JOURNAL}?")
    site.run("journal", "update", "--version", "spring", exit_code=26)
    assert container.objects().keys() == {JOURNAL, LOCK}

    site.run("file", "upload")

    require_all(container)
    assert tables_of(site.journal) == tables_of(fetched(container, tmp_path))
