"""Credentials that expire in the night: they are waited for, and a running command takes the new ones."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.renewal import Renewal
from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError, CredentialsExpired, StorageError
from chorus_upload.events import CredentialsAwaited, Event, PlaceResponds
from chorus_upload.operations.custody import journal_session
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.storage import liveness, renewal
from chorus_upload.storage.liveness import Liveness
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source, open_store
from chorus_upload.storage.renewal import TRY_SECONDS, CredentialWait
from chorus_upload.storage.retry import Retry
from tests.e2e.clouds import Container, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.emulators import Azurite
from tests.faults.figures import Figures
from tests.faults.services import SERVICES, Services
from tests.trees import Bytes, build
from tests.wire import Answer, Fault, Request, Wire

TREE = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1011)}
NAME = "CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "POLL_SECONDS", 0.02)


class Listener:
    """Does something when credentials are waited for."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.events: list[Event] = []
        self._act = act

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, CredentialsAwaited):
            self._act()


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Listener], None]:
    def to(listener: Listener) -> None:
        monkeypatch.setattr(liveness, "_listener", None)
        liveness.listen(listener.tell)

    return to


def _expired(container: Container) -> str:
    return container.azurite.sas(container.name, valid_for=timedelta(hours=-1))


def _site(root: Path, container: Container, *, configuration: str, central: str) -> Site:
    """A site whose central store is entered with the lines `central`."""
    site = settle(root / "home", build(root / "source", TREE), container, configuration=configuration)
    text = site.config.read_text(encoding="utf-8")
    head, _, tail = text.rpartition(f'azure_sas_token = "{container.token}"')
    site.configure(head + central + tail)
    return site


def _run(settings: Settings, listener: Listener) -> None:
    """Update and upload, as the command line does it."""
    for name in ("update", "upload"):
        with journal_session(settings, command=name, arguments={}, emit=listener.tell) as session:
            if name == "update":
                update(session.journal, settings, UpdateRequest(version="spring"), emit=listener.tell)
            else:
                upload(session.journal, settings, UploadRequest(), emit=listener.tell)


@pytest.mark.parametrize("kept_in", ["token file", "environment file", "configuration"])
def test_an_upload_waits_for_a_new_token_and_takes_it(
    kept_in: str, tmp_path: Path, container: Container, listen: Callable[[Listener], None], figures: Figures
) -> None:
    """Wherever the token is kept; and the other places, whose tokens are good, are left alone."""
    file = tmp_path / "renewed"
    file.touch(mode=0o600)
    old, new = _expired(container), container.token
    match kept_in:
        case "token file":
            file.write_text(f"{old}\n")
            site = _site(tmp_path, container, configuration="", central=f'azure_sas_token_file = "{file}"')
            renew = lambda: file.write_text(f"?{new}\n")  # noqa: E731
        case "environment file":
            file.write_text(f"# of the night\nexport {NAME}='{old}'\n")
            site = _site(tmp_path, container, configuration=f'environment_file = "{file}"', central="")
            renew = lambda: file.write_text(f'{NAME}="{new}"\n')  # noqa: E731
        case _:
            site = _site(tmp_path, container, configuration="", central=f'azure_sas_token = "{old}"')
            text = site.config.read_text(encoding="utf-8")
            renew = lambda: site.config.write_text(text.replace(old, new))  # noqa: E731
    listener = Listener(renew)
    listen(listener)

    _run(load(site.config, environ={}).model_copy(update={"credential_seconds": 3_600.0}), listener)

    figures.count("tokens that expired")
    assert set(files_of(container.objects())) == {f"spring/{path}" for path in TREE}
    (awaited,) = [event for event in listener.events if isinstance(event, CredentialsAwaited)]
    assert f"az://{container.name}/data" in awaited.place
    assert "the SAS token expired on" in awaited.reason
    assert str(site.config if kept_in == "configuration" else file) in awaited.look_at
    assert [event.place for event in listener.events if isinstance(event, PlaceResponds)] == [awaited.place]


def test_a_token_that_expires_in_the_middle_of_an_upload(
    tmp_path: Path, container: Container, listen: Callable[[Listener], None], figures: Figures
) -> None:
    """All threads wait, one line is said of it, and every file arrives."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(container.token)
    renewed = container.azurite.sas(container.name, valid_for=timedelta(hours=2))
    said = (
        b"<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signature not valid in the specified time"
    )
    said += b" frame: Start [] - Expiry [Thu, 01 Jan 2026 00:00:00 GMT] - Current [Fri, 02 Jan 2026 00:00:00 GMT]"
    said += b"</AuthenticationErrorDetail></Error>"
    mark = (("x-ms-request-id", "1"), ("x-ms-error-code", "AuthenticationFailed"))
    with Wire(container.azurite.port) as wire:

        def expire(request: Request) -> Fault | None:
            old = container.token.partition("sig=")[2].partition("&")[0]
            if "/data/" not in request.target or old not in request.target or wire.count("PUT", "scan.dcm") < 4:
                return None
            figures.count("requests with an expired token")
            return Answer(403, mark, said)

        wire.chance = expire
        cloud = dataclasses.replace(container, port=wire.port)
        journal = container.azurite.sas(container.name, valid_for=timedelta(hours=3))
        cloud = dataclasses.replace(cloud, journal_token=journal)
        site = _site(tmp_path, cloud, configuration="", central=f'azure_sas_token_file = "{file}"')
        listener = Listener(lambda: file.write_text(renewed))
        listen(listener)

        _run(load(site.config, environ={}).model_copy(update={"credential_seconds": 3_600.0}), listener)

    assert set(files_of(container.objects())) == {f"spring/{path}" for path in TREE}
    assert sum(isinstance(event, CredentialsAwaited) for event in listener.events) == 1


def test_without_the_option_nothing_is_waited_for(tmp_path: Path, container: Container, figures: Figures) -> None:
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(_expired(container))
    site = _site(tmp_path, container, configuration="", central=f'azure_sas_token_file = "{file}"')
    site.run("journal", "update", "--version", "spring")
    figures.count("tokens that expired", 2)

    assert "the SAS token expired on" in site.run("file", "upload", exit_code=22).err
    upload = site.run("file", "upload", "--wait-for-credentials", "1s", exit_code=22)

    assert "New credentials are waited for until 20" in upload.err
    assert str(file) in upload.err
    assert "is not a time" in site.run("file", "upload", "--wait-for-credentials", "soon", exit_code=2).err


@dataclasses.dataclass
class Night:
    """A clock that moves when somebody sleeps, and credentials that are renewed at a time."""

    seconds: float = 0.0
    renewed_at: float = float("inf")
    renewed: bool = False
    told: list[Event] = dataclasses.field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 1.0)

    def renew(self) -> bool:
        news = not self.renewed and self.seconds >= self.renewed_at
        self.renewed |= news
        return news

    def retry(self, patience: float) -> Retry:
        wait = CredentialWait(Liveness(tell=self.told.append), patience=patience, clock=lambda: self.seconds)
        wait.renew = self.renew
        return Retry(clock=lambda: self.seconds, sleep=self.sleep, credentials=wait)

    @property
    def times_told(self) -> int:
        return sum(isinstance(each, CredentialsAwaited) for each in self.told)

    def ask(self) -> str:
        if not self.renewed:
            raise CredentialsExpired("too late")
        return "done"


def test_it_is_waited_for_as_long_as_was_said(figures: Figures) -> None:
    figures.count("tokens that expired", 2)
    night = Night(renewed_at=40_000)
    assert night.retry(12 * 3_600).call(night.ask) == "done"
    assert 40_000 <= night.seconds < 40_010
    assert night.times_told == 1

    night = Night()
    with pytest.raises(CredentialsExpired):
        night.retry(12 * 3_600).call(night.ask)
    assert 12 * 3_600 <= night.seconds < 12 * 3_600 + TRY_SECONDS
    assert night.times_told == 1


def test_a_login_is_tried_now_and_then(figures: Figures) -> None:
    """That is renewed without any file here that would show it."""
    night, asked = Night(), 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        figures.count("requests with an expired token")
        if asked < 5:
            raise CredentialsExpired("log in again")
        return "done"

    assert night.retry(12 * 3_600).call(ask) == "done"
    assert night.seconds == pytest.approx(4 * TRY_SECONDS, abs=20)
    assert night.times_told == 1


def test_a_file_that_is_being_written_is_no_configuration_yet(tmp_path: Path, figures: Figures) -> None:
    site = settle(tmp_path / "home", build(tmp_path / "source", {}), Container(Azurite(1), "c", "se=2999&sig=x"))
    settings = load(site.config, environ={})
    renewed = Renewal(settings, environ={})
    assert renewed.has_changed()
    whole = site.config.read_text(encoding="utf-8")

    site.configure(whole[: len(whole) // 2] + "\n[")
    with pytest.raises(ConfigError):
        load(site.config, environ={})
    assert not renewed.has_changed()
    assert renewed.auth(settings.central.location.auth) == settings.central.location.auth
    figures.count("halves of a configuration")
    site.configure(whole.replace("sig=x", "sig=y"))
    assert renewed.has_changed()
    token = renewed.auth(settings.central.location.auth).azure_sas_token
    assert token is not None
    assert token.get_secret_value().endswith("sig=y")


def test_the_token_of_a_source_is_not_that_of_the_central_store(
    tmp_path: Path, container: Container, figures: Figures
) -> None:
    figures.count("tokens that expired")
    site = settle(tmp_path / "home", build(tmp_path / "source", {}), container)
    text = site.config.read_text(encoding="utf-8")
    source = f'path = "az://{container.name}/source"\n[site_path.default.auth]\nazure_account_url = "{container.url}"'
    source += f'\nazure_sas_token = "{_expired(container)}"\n'
    site.configure(text.replace(f'path = "{site.source}"', source))

    ran = site.run("journal", "update", exit_code=22)

    assert f"the source 127.0.0.1 (az://{container.name}/source): " in ran.err
    assert "the SAS token expired on" in ran.err
    assert "hint: Ask whoever gave it out for a new SAS token" in ran.err
    assert "The credentials of this source are those under its [site_path]" in ran.err
    assert "central store" not in ran.err


PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>"


@pytest.mark.parametrize("archive", ["zip", "tar"])
def test_a_page_in_the_place_of_an_archive_is_called_one(archive: str, tmp_path: Path, figures: Figures) -> None:
    figures.count("pages")
    site = settle(tmp_path / "home", build(tmp_path / "source", {}), Container(Azurite(1), "c", "se=2999&sig=x"))
    text = site.config.read_text(encoding="utf-8")
    with Wire(1, chance=lambda _: Answer(200, (("Content-Type", "text/html"),), PAGE)) as wire:
        address = f"{archive}://::http://127.0.0.1:{wire.port}/images.{archive}"
        site.configure(text.replace(f'path = "{site.source}"', f'path = "{address}"'))
        settings = load(site.config, environ={})
        with (
            open_source(settings.sites["Images"], Network(patience=5)) as source,
            pytest.raises(StorageError) as raised,
        ):
            list(source.walk())

    assert "this is a web page (text/html, begins with '<!DOCTYPE html>'), not an archive" in raised.value.message


@pytest.mark.parametrize("service", SERVICES)
def test_a_name_that_cannot_be_stored_is_said_to_be_the_services(
    service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    cloud, _ = services.cloud(service)
    site = settle(tmp_path / "home", build(tmp_path / "source", {}), cloud)
    settings = load(site.config, environ={})
    with open_store(settings.central.location, Network(patience=5)) as store:
        for key in ("a\x01b", "long" * 300):
            with pytest.raises(StorageError, match="cannot be stored in") as raised:
                store.put(key, b"", size=0)
            figures.count("names")
            named = {"azure": "Azure", "s3": "S3", "google": "Google Cloud Storage"}
            assert [name for name in named.values() if name in raised.value.message] == [named[service]]


def test_many_threads_tell_of_expired_credentials_once(figures: Figures) -> None:
    told: list[Event] = []
    night = Night(renewed_at=100)
    wait = CredentialWait(Liveness("place", tell=told.append), patience=3_600, clock=lambda: night.seconds)
    together = threading.Barrier(3)

    def sleep(_: float) -> None:
        together.wait(10)
        night.seconds = 200.0

    wait.renew = night.renew
    retry = Retry(sleep=sleep, credentials=wait, liveness=Liveness())
    threads = [threading.Thread(target=retry.call, args=(night.ask,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    figures.count("tokens that expired", 3)
    assert sum(isinstance(event, CredentialsAwaited) for event in told) == 1
