"""A cloud that does not let us in, that is not there, or that somebody else is working on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.clouds import LOCK, Container, Disk, ask, files_of, sent
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.emulators import MARK
from tests.trees import Bytes, build
from tests.wire import Answer, Delay, Wire

TREE = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1005)}


def _expired(container: Container) -> str:
    return container.azurite.sas(container.name, valid_for=timedelta(hours=-1))


def _forged(container: Container) -> str:
    good = container.token
    return good.replace("sig=", "sig=AAAA")


def _read_only(container: Container) -> str:
    return container.azurite.sas(container.name, permissions="rl")


@pytest.mark.parametrize(
    ("token_of", "exit_code", "said"),
    [
        (_expired, 22, ("expired on", "Ask whoever gave it out for a new SAS token")),
        (_forged, 21, ("403", "hint:")),
        (_read_only, 21, ("does not permit to write", "hint:")),
    ],
    ids=["expired", "forged", "read-only"],
)
def test_credentials_of_the_central_store_that_are_not_good(
    token_of: Callable[[Container], str], exit_code: int, said: tuple[str, ...], tmp_path: Path, container: Container
) -> None:
    """The upload ends at once and says why. The journal, which is elsewhere, is given back all the same."""
    cloud = dataclasses.replace(container, central_token=token_of(container))
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    site.run("journal", "update", "--version", "spring")

    upload = site.run("file", "upload", exit_code=exit_code)

    assert not [words for words in said if words not in upload.err], upload.err
    assert "sig=" not in upload.err
    assert LOCK not in container.objects()
    assert files_of(container.objects()) == {}


def test_credentials_of_the_journal_that_have_expired(tmp_path: Path, container: Container) -> None:
    cloud = dataclasses.replace(container, journal_token=_expired(container))
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)

    update = site.run("journal", "update", exit_code=22)

    assert "hint:" in update.err
    assert not site.journal.exists()
    assert container.objects() == {}


def test_permission_that_is_lost_while_files_are_sent(tmp_path: Path, container: Container, wire: Wire) -> None:
    """All that follows is refused: the run ends. What arrived before is recorded and never sent again."""
    tree = {f"{patient}/Images/scan.dcm": Bytes(patient) for patient in range(1001, 1031)}
    cloud = dataclasses.replace(container, port=wire.port)
    # One after the other: so it is known what was taken before.
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, threads=1)
    site.run("journal", "update", "--version", "spring")
    denied = Answer(403, (MARK, ("x-ms-error-code", "AuthorizationPermissionMismatch")))
    wire.script(Delay(0), method="PUT", containing="/Images/", times=3)
    wire.script(denied, method="PUT", containing="/Images/", times=2 * len(tree))

    upload = site.run("--json", "file", "upload", exit_code=21)

    wire.forget()
    arrived = set(files_of(container.objects()))
    assert len(arrived) == 3
    assert {each["key"] for each in upload.events("file-delivered")} == arrived
    assert site.pending() == {path for path in tree if f"spring/{path}" not in arrived}
    assert LOCK not in container.objects()

    wire.requests.clear()
    site.run("file", "upload")
    assert set(files_of(container.objects())) == {f"spring/{path}" for path in tree}
    assert not arrived & sent(wire, container.name).keys()


def test_permission_that_is_lost_for_one_file(tmp_path: Path, container: Container, wire: Wire) -> None:
    """It is an outcome of that file. What arrived stays; the smallest of it shows that one may still write."""
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    site.run("journal", "update", "--version", "spring")
    denied = Answer(403, (MARK, ("x-ms-error-code", "AuthorizationPermissionMismatch")))
    wire.script(denied, method="PUT", containing="1003/Images")

    upload = site.run("--json", "file", "upload", exit_code=3)

    arrived = {f"spring/{path}" for path in TREE if not path.startswith("1003/")}
    assert set(files_of(container.objects())) == arrived
    assert {each["key"] for each in upload.events("file-delivered")} == arrived
    assert upload.event("file-failed")["kind"] == "denied"
    assert site.pending() == {"1003/Images/scan.dcm"}
    assert LOCK not in container.objects()

    times = sent(wire, container.name)
    assert sorted(times[key] for key in arrived) == [1] * (len(arrived) - 1) + [2]
    wire.requests.clear()
    site.run("file", "upload")
    assert set(files_of(container.objects())) == {f"spring/{path}" for path in TREE}
    assert not arrived & sent(wire, container.name).keys()


def test_a_container_that_is_not_there(tmp_path: Path, container: Container) -> None:
    nowhere = Container(container.azurite, "missing", container.azurite.sas("missing"))
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), nowhere)

    update = site.run("journal", "update", exit_code=23)

    assert "Is the container spelled right?" in update.err
    assert not site.journal.exists()


@pytest.fixture
def two_managers(tmp_path: Path, disk: Disk) -> tuple[Site, Site]:
    """Two machines with one source, one central store and one journal."""
    source = build(tmp_path / "source", TREE)
    return settle(tmp_path / "ours", source, disk), settle(tmp_path / "theirs", source, disk)


def test_a_second_manager_is_told_who_has_the_journal(two_managers: tuple[Site, Site]) -> None:
    ours, theirs = two_managers
    ours.run("journal", "update", "--version", "spring")
    ours.run("journal", "checkout")

    refused = theirs.run("journal", "update", exit_code=10)

    ((host, user),) = ask(ours.journal, "SELECT host, user FROM version")
    assert f"{user} on {host} holds it since" in refused.err
    assert "hint: " in refused.err
    assert not theirs.journal.exists()
    theirs.run("file", "upload", exit_code=10)
    # Looking needs no lock.
    assert theirs.pending() == set(TREE)
    assert len(theirs.run("file", "upload", "--dry-run").lines) >= len(TREE)

    ours.run("file", "upload")
    ours.run("journal", "checkin")
    assert theirs.pending() == set()
    theirs.run("journal", "update")


def test_a_lock_that_was_broken_keeps_the_work_of_both(two_managers: tuple[Site, Site]) -> None:
    """Somebody unlocks by force while we still work: our check-in is refused, and both journals are there."""
    ours, theirs = two_managers
    ours.run("journal", "update", "--version", "spring")
    ours.run("journal", "checkout")
    ours.run("file", "upload", "--max-num-files", "1")

    theirs.run("journal", "unlock", "--yes")
    theirs.run("journal", "update", "--version", "summer")
    refused = ours.run("journal", "checkin", exit_code=12)

    assert "hint:" in refused.err
    assert ask(ours.journal, "SELECT count(*) FROM delivery") == [(1,)]
    assert theirs.pending() == set(TREE)
    # What had arrived by the other's hand is recognised, and not sent again.
    upload = theirs.run("--json", "file", "upload").event("upload-finished")
    assert (upload["already_there"]["files"], upload["delivered"]["files"]) == (1, len(TREE) - 1)
