from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, AuthMode, Location, SiteSettings
from chorus_upload.errors import ConfigError, CredentialsExpired
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source, open_store
from tests.emulators import Azurite
from tests.gs import Service
from tests.s3 import SeaweedFS


def auths(azurite: Azurite, container: str) -> list[Auth]:
    url = azurite.account_url
    return [
        Auth(mode=AuthMode.SAS_TOKEN, azure_account_url=url, azure_sas_token=SecretStr(azurite.sas(container))),
        Auth(azure_account_url=url + "/", azure_sas_token=SecretStr("?" + azurite.sas(container))),
        Auth(mode=AuthMode.ACCOUNT_KEY, azure_account_url=url, azure_account_key=SecretStr(azurite.key)),
        Auth(azure_account_name=azurite.account, azure_account_url=url, azure_account_key=SecretStr(azurite.key)),
        Auth(mode=AuthMode.CONNECTION_STRING, azure_connection_string=SecretStr(azurite.connection_string)),
        Auth(azure_connection_string=SecretStr(azurite.connection_string)),
    ]


@pytest.mark.parametrize("which", range(6))
def test_azure_with_every_credential(azurite: Azurite, azure_container: str, which: int) -> None:
    auth = auths(azurite, azure_container)[which]
    location = Location(path=f"az://{azure_container}/some/prefix", auth=auth)
    with open_store(location, Network(patience=0)) as store:
        store.put("a", b"1", size=1)
        assert [each.key for each in store.scan()] == ["a"]
        assert store.url == f"{azurite.account_url}/{azure_container}/some/prefix"


def test_the_token_knows_when_it_expired(azurite: Azurite, azure_container: str) -> None:
    token = azurite.sas(azure_container, valid_for=timedelta(minutes=-5))
    auth = Auth(azure_account_url=azurite.account_url, azure_sas_token=SecretStr(token))
    location = Location(path=f"az://{azure_container}", auth=auth)
    with open_store(location, Network()) as store, pytest.raises(CredentialsExpired):
        store.stat("a")


def test_an_account_has_a_usual_address() -> None:
    auth = Auth(azure_account_name="hospital", azure_sas_token=SecretStr("sv=1&sig=x"))
    with open_store(Location(path="az://data/v1", auth=auth), Network()) as store:
        assert store.url == "https://hospital.blob.core.windows.net/data/v1"


def test_a_login() -> None:
    auth = Auth(mode=AuthMode.LOGIN, azure_account_name="hospital")
    open_store(Location(path="az://data", auth=auth), Network()).close()


@pytest.mark.parametrize(
    ("path", "auth", "message"),
    [
        ("az://data", Auth(), "account is missing"),
        ("az://", Auth(azure_account_name="a"), "no container"),
        ("az://data", Auth(azure_account_name="a", mode=AuthMode.SAS_TOKEN), "auth_mode is sas_token"),
        ("az://data", Auth(azure_account_name="a", mode=AuthMode.PROFILE), "auth_mode is profile"),
        ("az://data", Auth(azure_account_name="a", azure_account_key=SecretStr("k"), mode=AuthMode.SAS), "auth_mode"),
        ("gs://", Auth(mode=AuthMode.ANONYMOUS), "no bucket"),
        ("gs://bucket", Auth(mode=AuthMode.SAS_TOKEN), "auth_mode is sas_token"),
        ("gs://bucket", Auth(mode=AuthMode.ANONYMOUS, google_endpoint_url="http://gs.hospital.org"), "not encrypted"),
        ("gs://bucket", Auth(mode=AuthMode.ANONYMOUS, google_endpoint_url="ftp://gs.org"), "no address"),
        ("s3://", Auth(), "no bucket"),
        ("s3://bucket", Auth(mode=AuthMode.SAS_TOKEN), "auth_mode is sas_token"),
        ("s3://bucket", Auth(aws_endpoint_url="http://s3.hospital.org"), "not encrypted"),
        ("sftp://host/x", Auth(), "sftp://"),
    ],
)
def test_what_cannot_be_opened(path: str, auth: Auth, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(Location(path=path, auth=auth), Network())


def test_s3(seaweedfs: SeaweedFS, s3_bucket: str) -> None:
    auth = Auth(
        mode=AuthMode.ACCESS_KEY,
        aws_access_key_id=seaweedfs.key_id,
        aws_secret_access_key=SecretStr(seaweedfs.secret),
        aws_endpoint_url=seaweedfs.url,
    )
    with open_store(Location(path=f"s3://{s3_bucket}/some/prefix", auth=auth), Network(patience=0)) as store:
        store.put("a", b"1", size=1)
        assert [each.key for each in store.scan()] == ["a"]
        assert store.url == f"{seaweedfs.url}/{s3_bucket}/some/prefix"
        assert seaweedfs.objects(s3_bucket) == {"some/prefix/a": b"1"}


@pytest.mark.parametrize("mode", [None, AuthMode.LOGIN, AuthMode.PROFILE, AuthMode.ANONYMOUS])
def test_s3_without_a_key(mode: AuthMode | None) -> None:
    with open_store(Location(path="s3://bucket/v1", auth=Auth(mode=mode, aws_profile="hospital")), Network()) as store:
        assert store.url == "s3://bucket/v1"


def test_s3_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chorus_upload.storage.s3", "chorus_upload.storage.s3_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        open_store(Location(path="s3://bucket"), Network())
    assert "chorus-upload[s3]" in (caught.value.hint or "")


def test_google(gcs: Service, gs_bucket: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of-the-tests\n")
    # As STORAGE_EMULATOR_HOST has it, without a scheme.
    auth = Auth(
        mode=AuthMode.TOKEN_FILE, google_token_file=str(token), google_endpoint_url=gcs.url.removeprefix("http://")
    )
    location = Location(path=f"gs://{gs_bucket}/some/prefix", auth=auth)
    with open_store(location, Network(patience=0), sessions=tmp_path / "sessions") as store:
        store.put("a", b"1", size=1)
        assert store.url == f"{gcs.url}/{gs_bucket}/some/prefix"
    assert gcs.objects(gs_bucket) == {"some/prefix/a": b"1"}
    with open_source(SiteSettings(modality="Images", location=location, pattern="{filepath}"), Network()) as source:
        assert [each.name for directory in source.walk() for each in directory.entries] == ["a"]


def test_google_without_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    auth = Auth(mode=AuthMode.APPLICATION_CREDENTIALS, google_application_credentials=str(tmp_path / "key.json"))
    with pytest.raises(ConfigError, match="not installed") as caught:
        open_store(Location(path="gs://bucket", auth=auth), Network())
    assert "chorus-upload[gcs]" in (caught.value.hint or "")
    # A token needs no library.
    open_store(Location(path="gs://bucket", auth=Auth(mode=AuthMode.ANONYMOUS)), Network()).close()


def test_says_what_is_supported(tmp_path: Path) -> None:
    location = Location(path="ftp://host/x")
    for act in (
        lambda: open_store(location, Network()),
        lambda: open_source(SiteSettings(modality="Images", location=location, pattern="x"), Network()),
    ):
        with pytest.raises(ConfigError, match="ftp://") as caught:
            act()
        assert "a local directory" in (caught.value.hint or "")


def test_local_places(tmp_path: Path) -> None:
    location = Location(path=str(tmp_path))
    with open_store(location, Network()) as store:
        assert isinstance(store, LocalStore)
        assert store.url == str(tmp_path)
    site = SiteSettings(modality="Images", location=location, pattern="{patient_id:w}/Images/{filepath}")
    with open_source(site, Network()) as source:
        assert isinstance(source, LocalSource)
        assert source.url == str(tmp_path)


def test_local_work_does_not_import_an_sdk() -> None:
    program = (
        "import sys, chorus_upload.storage.open; "
        "print([name for name in ('azure', 'requests', 'fsspec') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
