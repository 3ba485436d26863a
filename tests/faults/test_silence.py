"""Nothing is waited for in silence: what does not respond, why, until when it is tried, and where to look."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, AuthMode, Location, SiteSettings
from chorus_upload.errors import HostUnknown, HostUnresolved, StorageError
from chorus_upload.events import Event, PlaceResponds, PlaceSilent
from chorus_upload.storage import liveness
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source, open_store
from chorus_upload.storage.s3_errors import translate
from tests.e2e.clouds import Container, Disk
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.trees import Bytes, build
from tests.wire import Answer, Fault, Request, Wire

# No name service has to be asked for that: a name has at most 253 characters.
NOWHERE = ".".join(["nowhere" * 8] * 5)


class Listener:
    """Somebody who wants to hear of every place; `heard` is set when there was something."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard = threading.Event()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.heard.set()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Hears of places after a fraction of a second."""
    monkeypatch.setattr(liveness, "TOLD_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(liveness, "_LOOK_SECONDS", 0.02)
    before = liveness._listener
    listener = Listener()
    liveness.listen(listener.tell)
    yield listener
    liveness._listener = before


def _location(services: Services, service: str, wire: Wire) -> Location:
    """An empty place at a service, reached over the wire."""
    cloud, _ = services.cloud(service)
    match service:
        case "azure":
            assert isinstance(cloud, Container)
            url = dataclasses.replace(cloud, port=wire.port).url
            auth = Auth(mode=AuthMode.SAS_TOKEN, azure_account_url=url, azure_sas_token=SecretStr(cloud.token))
            return Location(path=f"az://{cloud.name}/data", auth=auth)
        case "s3":
            auth = Auth(
                mode=AuthMode.ACCESS_KEY,
                aws_access_key_id="any",
                aws_secret_access_key=SecretStr("any"),
                aws_endpoint_url=f"http://127.0.0.1:{wire.port}",
            )
            return Location(path="s3://bucket/data", auth=auth)
    auth = Auth(mode=AuthMode.ANONYMOUS, google_endpoint_url=f"http://127.0.0.1:{wire.port}")
    return Location(path="gs://bucket/data", auth=auth)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_does_not_respond_is_told_of_and_so_is_its_return(
    service: str, services: Services, listener: Listener, figures: Figures
) -> None:
    _, port = services.cloud(service)
    with Wire(port) as wire:

        def hold(_: Request) -> Fault | None:
            # Until it was told of: that is what the test is about.
            assert listener.heard.wait(60)
            figures.count("responses held back")
            return None

        wire.chance = hold
        location = _location(services, service, wire)
        with open_store(location, Network(patience=60)) as store:
            # That they are refused is a response, too.
            try:
                store.probe()
            except StorageError as error:
                assert "gave up" not in error.message

    silent, *_, responds = listener.events
    assert isinstance(silent, PlaceSilent)
    assert silent.place == f"127.0.0.1 ({location})"
    assert "url" in silent.look_at
    assert isinstance(responds, PlaceResponds)
    assert responds.place == silent.place


@pytest.mark.parametrize(
    ("number", "kind"), [(socket.EAI_NONAME, HostUnknown), (socket.EAI_AGAIN, HostUnresolved)], ids=["none", "away"]
)
def test_a_name_that_the_library_of_s3_could_not_resolve(
    number: int, kind: type[HostUnresolved], figures: Figures
) -> None:
    figures.count("places that do not respond")
    error = EndpointConnectionError(endpoint_url="https://host", error=socket.gaierror(number, "no such name"))

    assert type(translate(error, doing="listing")) is kind


@pytest.mark.parametrize("service", ["azure", "google"])
def test_a_store_whose_name_does_not_resolve_is_told_of_at_once(
    service: str, listener: Listener, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "TOLD_AFTER_SECONDS", 3_600.0)
    url = f"https://{NOWHERE}"
    match service:
        case "azure":
            auth = Auth(mode=AuthMode.ANONYMOUS, azure_account_url=url)
        case _:
            auth = Auth(mode=AuthMode.ANONYMOUS, google_endpoint_url=url)
    scheme = {"azure": "az", "google": "gs"}[service]
    place = Location(path=f"{scheme}://place", auth=auth)
    with open_store(place, Network(patience=0.3)) as store, pytest.raises(HostUnknown, match="gave up"):
        store.probe()

    figures.count("places that do not respond")
    assert isinstance(listener.events[0], PlaceSilent)
    assert NOWHERE in listener.events[0].place


def _source(path: str) -> SiteSettings:
    auth = Auth(username="somebody", password=SecretStr("secret")) if path.startswith("smb") else Auth()
    return SiteSettings(modality="Images", location=Location(path=path, auth=auth), pattern="{filepath}")


@pytest.mark.parametrize("scheme", ["https", "sftp", "smb", "zip"])
def test_a_source_that_does_not_respond_is_told_of(
    scheme: str, listener: Listener, figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").touch()
    # A name that does not resolve is told at once.
    monkeypatch.setattr(liveness, "TOLD_AFTER_SECONDS", 3_600.0)
    path = f"zip://::https://{NOWHERE}/a.zip" if scheme == "zip" else f"{scheme}://{NOWHERE}/data"

    with closing(open_source(_source(path), Network(patience=0.5))) as source, pytest.raises(StorageError):
        list(source.walk())

    figures.count("places that do not respond")
    silent = listener.events[0]
    assert isinstance(silent, PlaceSilent)
    assert NOWHERE in silent.place
    assert "path" in silent.look_at


@pytest.mark.parametrize(
    "command",
    ["journal list", "journal update", "journal checkout", "remote list", "config check --online", "history"],
)
def test_a_mistyped_account_is_told_at_once_by_every_command(command: str, tmp_path: Path, figures: Figures) -> None:
    ran = _mistyped(tmp_path).run(*command.split(), exit_code=None)

    figures.count("places that do not respond")
    assert ran.exit_code in (2, 26)
    (said, *_) = [line for line in ran.err.splitlines() if "has not responded yet" in line]
    assert said.startswith(f"warning: {NOWHERE} (az://c")
    assert "Could not resolve host" in said
    assert "It is tried again until 20" in said
    assert "Is the address in the configuration right" in ran.out + ran.err
    assert "azure_account_name, azure_account_url" in said


def _mistyped(root: Path) -> Site:
    """A site whose storage account is in no name service."""
    site = settle(root / "home", build(root / "source", {"a.txt": Bytes(1)}), Disk(root), patience=1)
    place = f"""
auth_mode = "sas_token"
azure_account_url = "https://{NOWHERE}"
azure_sas_token = "se=2999-01-01&sp=racwdl&sr=c&sig=abc"
"""
    text = site.config.read_text(encoding="utf-8")
    text = text.replace(
        f'path = "{root}/journal/journal.db"', f'path = "az://c/journal.db"\n[journal.source.auth]{place}'
    )
    text = text.replace(f'path = "{root}/data"', f'path = "az://c/data"\n[central_path.auth]{place}')
    site.configure(text)
    return site


def test_a_program_reads_of_it_too(tmp_path: Path, figures: Figures) -> None:
    """One event for each place, and not one for each request."""
    site = _mistyped(tmp_path)

    ran = site.run("--json", "journal", "list", exit_code=26)

    figures.count("places that do not respond")
    assert len(ran.events("place-silent")) == 1
    assert ran.event("place-silent")["look_at"] == "azure_account_name, azure_account_url, endpoint_ip and proxy"
    assert ran.event("place-silent")["until"] is not None


@pytest.mark.thorough
def test_a_service_that_goes_away_in_the_middle_of_an_upload_is_told_of(
    tmp_path: Path, container: Container, wire: Wire, figures: Figures
) -> None:
    """A bar that stands still says nothing."""
    tree = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1021)}
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, patience=20)
    site.run("journal", "update", "--version", "spring")

    def go_away(request: Request) -> Fault | None:
        if wire.count("PUT", "scan.dcm") < 5:
            return None
        figures.count("requests in vain")
        return Answer(503)

    wire.chance = go_away
    ran = site.run("file", "upload", exit_code=26)

    place = f"warning: 127.0.0.1 (az://{container.name}/data): requests fail for "
    (said, *_) = [line for line in ran.err.splitlines() if line.startswith(place)]
    assert "503" in said
