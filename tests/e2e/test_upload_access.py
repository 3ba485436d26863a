"""An upload that the central store does not let in says so at once, and before anything has happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.clouds import CENTRAL, LOCK, Container, ask, files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.trees import Bytes, build
from tests.wire import Wire

TREE = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1005)}


def _expired(container: Container) -> str:
    return container.azurite.sas(container.name, valid_for=timedelta(hours=-1))


def _without(permission: str) -> Callable[[Container], str]:
    return lambda container: container.azurite.sas(container.name, permissions="racwdl".replace(permission, ""))


def _forged(container: Container) -> str:
    return container.token.replace("sig=", "sig=AAAA")


def _for_another(container: Container) -> str:
    return container.azurite.sas("another")


@pytest.mark.parametrize(
    ("token_of", "exit_code", "said"),
    [
        (_expired, 22, "the SAS token expired on"),
        (_without("w"), 21, "the SAS token does not permit to write (w); it has sp=racdl"),
        (_without("r"), 21, "the SAS token does not permit to read (r)"),
        (_without("d"), 21, "the SAS token does not permit to delete (d)"),
        (_without("l"), 21, "the SAS token does not permit to list (l)"),
        (_forged, 21, "403"),
        (_for_another, 21, "403"),
    ],
    ids=["expired", "no writing", "no reading", "no deleting", "no listing", "forged", "for another container"],
)
def test_a_token_that_is_no_good(
    token_of: Callable[[Container], str], exit_code: int, said: str, tmp_path: Path, container: Container, wire: Wire
) -> None:
    """No submission is begun, nothing is sent, and the journal is given back."""
    cloud = dataclasses.replace(container, port=wire.port, central_token=token_of(container))
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    site.run("journal", "update", "--version", "spring")

    upload = site.run("file", "upload", exit_code=exit_code)

    assert said in upload.err
    assert "hint: " in upload.err
    assert "Sending" not in upload.err
    assert ask(site.journal, "SELECT count(*) FROM submission") == [(0,)]
    assert wire.count("PUT", f"/{CENTRAL}/") == 0
    assert LOCK not in container.objects()
    assert site.pending() == set(TREE)


def enter_by(site: Site, auth: str, *, container: str) -> None:
    """Let the site reach its central store in another way, or another one."""
    head, section, _ = site.config.read_text(encoding="utf-8").partition("[central_path]\n")
    path = f'path = "az://{container}/{CENTRAL}"\n\n[central_path.auth]\n{auth}\n'
    site.configure(f'{head}{section}{path}\n[site_path.default]\npath = "{site.source}"\n')


def test_a_container_that_is_not_there(azure_site: Site, container: Container) -> None:
    """The journal is elsewhere, so that only the central store is wrong."""
    build(azure_site.source, TREE)
    key = f'azure_account_url = "{container.url}"\nazure_account_key = "{container.azurite.key}"'
    enter_by(azure_site, key, container="missing")
    azure_site.run("journal", "update", "--version", "spring")

    upload = azure_site.run("file", "upload", exit_code=23)

    assert "Is the container spelled right?" in upload.err
    assert ask(azure_site.journal, "SELECT count(*) FROM submission") == [(0,)]


def test_a_share_that_is_not_mounted(tmp_path: Path) -> None:
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), disk)
    site.run("journal", "update", "--version", "spring")
    (disk.root / CENTRAL).rmdir()

    upload = site.run("file", "upload", exit_code=23)

    assert "mount the share" in upload.err
    assert ask(site.journal, "SELECT count(*) FROM submission") == [(0,)]
    (disk.root / CENTRAL).mkdir()
    site.run("file", "upload")
    assert set(files_of(disk.objects())) == {f"spring/{path}" for path in TREE}


def test_a_token_in_a_connection_string(azure_site: Site, container: Container) -> None:
    build(azure_site.source, TREE)
    azure_site.run("journal", "update", "--version", "spring")

    def use(token: str) -> None:
        text = f"BlobEndpoint={container.url};SharedAccessSignature={token}"
        enter_by(azure_site, f'azure_connection_string = "{text}"', container=container.name)

    use(_expired(container))
    upload = azure_site.run("file", "upload", exit_code=22)
    assert "the SAS token expired on" in upload.err

    use(container.token)
    azure_site.run("file", "upload")
    assert set(files_of(container.objects())) == {f"spring/{path}" for path in TREE}


def test_a_token_that_ends_soon_is_good_enough(azure_site: Site, container: Container) -> None:
    build(azure_site.source, TREE)
    azure_site.run("journal", "update", "--version", "spring")

    upload = azure_site.run("file", "upload")

    assert "warning: az://" in upload.err
    assert "the SAS token expires on" in upload.err
    assert set(files_of(container.objects())) == {f"spring/{path}" for path in TREE}


def test_looking_at_what_would_be_sent_needs_no_token(tmp_path: Path, container: Container) -> None:
    cloud = dataclasses.replace(container, central_token=_expired(container))
    site = settle(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    site.run("journal", "update", "--version", "spring")

    assert len(site.run("--quiet", "file", "upload", "--dry-run").lines) == len(TREE)
