"""Every form of `config.toml` that the older tool ever published loads, and comes to what that tool made of it.

The files in `tests/data/configurations` are named after their time. They are ours: their keys are those of the
published ones, their values are not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.settings import AuthMode, Location, Settings, UploadMethod
from chorus_upload.errors import ConfigError
from chorus_upload.layout import STANDARD_MODALITIES
from chorus_upload.model import JournalingMode

FILES = Path(__file__).parents[1] / "data" / "configurations"
NAMES = sorted(path.stem for path in FILES.glob("*.toml"))

Published = Callable[[str], Settings]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Load one of the files, from a directory with nothing else in it."""
    monkeypatch.chdir(tmp_path)

    def load_it(name: str) -> Settings:
        file = Path("config.toml")
        file.write_text((FILES / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
        file.chmod(0o600)
        return load(None, environ={})

    return load_it


def place(location: Location) -> tuple[str, AuthMode | None]:
    """Where a place is, and how it is entered."""
    return str(location), location.auth.mode


def signature(location: Location) -> str:
    """The end of the SAS token of a place."""
    assert location.auth.azure_sas_token is not None
    return location.auth.azure_sas_token.get_secret_value().rpartition("sig=")[2]


def test_none_is_forgotten() -> None:
    assert len(NAMES) == 9


@pytest.mark.parametrize("name", NAMES)
def test_each_loads_with_the_usual_modalities_and_with_its_central_place(published: Published, name: str) -> None:
    settings = published(name)
    assert set(STANDARD_MODALITIES) <= set(settings.modalities)
    assert settings.central.location.scheme == "az"
    assert settings.central.location.container
    assert settings.central.location.auth.azure_account_name


def test_2024(published: Published) -> None:
    settings = published("2024")
    assert settings.warnings == ()
    assert (settings.mode, settings.upload_method) == (JournalingMode.FULL, UploadMethod.BUILTIN)
    assert settings.modalities == ("OMOP", "Images", "Waveforms", "Notes", "Scans", "Metadata")
    assert (settings.page_size, settings.num_threads) == (250, 6)
    assert settings.central.patient_first
    assert settings.journal.local_path == Path("north.db")
    assert place(settings.journal.cloud) == ("az://north/state/journal.db", AuthMode.SAS_TOKEN)
    assert signature(settings.journal.cloud) == "NORTHJOURNAL"
    assert place(settings.central.location) == ("az://north", AuthMode.CONNECTION_STRING)
    assert settings.central.location.auth.azure_account_name == "northsite"
    assert {name: place(site.location) for name, site in settings.sites.items()} == {
        "OMOP": ("az://tables/north", AuthMode.ACCOUNT_KEY),
        "Images": ("s3://pictures", AuthMode.ACCESS_KEY),
        "Waveforms": ("s3://curves/north", AuthMode.PROFILE),
        "Notes": ("gs://notes/north", AuthMode.APPLICATION_CREDENTIALS),
        "Scans": ("D:\\scans", None),
        "Metadata": ("/srv/north", None),
    }
    assert settings.sites["Images"].location.auth.aws_session_token is not None
    assert settings.sites["Notes"].pattern == "{patient_id:w}/Notes/{filepath}"


@pytest.mark.parametrize("name", ["2024-local-journal", "2024-journal-alone"])
def test_a_journal_that_is_on_one_machine_only(published: Published, name: str) -> None:
    """The file of the configuration stays the one that holds everything; commands work on a copy beside it."""
    settings = published(name)
    assert settings.journal.cloud.local_path == Path("journal.db")
    assert settings.journal.local_path == Path("journal.db.local")
    (warning,) = (each for each in settings.warnings if "[journal] path" in each)
    assert "the journal is on this machine only. Commands work on journal.db.local." in warning


def test_a_mode_is_asked_for_where_there_is_none(published: Published) -> None:
    assert published("2024-local-journal").mode is JournalingMode.FULL
    assert published("2024-journal-alone").mode is JournalingMode.APPEND


def test_snapshot_means_full(published: Published) -> None:
    settings = published("2024-snapshot")
    assert settings.warnings == ()
    assert settings.mode is JournalingMode.FULL
    assert settings.journal.local_path == Path("journal.db")
    assert signature(settings.journal.cloud) == signature(settings.central.location) == "LAKE"


def test_january_of_2025(published: Published) -> None:
    settings = published("2025-january")
    assert (settings.mode, settings.upload_method) == (JournalingMode.APPEND, UploadMethod.AZCLI)
    assert settings.modalities == STANDARD_MODALITIES
    assert (settings.page_size, settings.num_threads) == (2_000, 3)
    assert place(settings.central.location) == ("az://valley", AuthMode.SAS_TOKEN)
    omop, images, waveforms = (settings.sites[name] for name in ("OMOP", "Images", "Waveforms"))
    assert (omop.pattern, omop.versioned) == ("{version:w}/{patient_id:w}/OMOP_tables/{filepath}", True)
    assert omop.omop_per_patient
    assert str(omop.location) == "/srv/valley/tables"
    assert (images.pattern, images.versioned) == ("Person{patient_id:d}/Images/{filepath}", False)
    assert (waveforms.pattern, waveforms.versioned) == ("{version:w}/{patient_id:w}/Waveforms/{filepath}", True)
    assert str(waveforms.location) == "/srv/valley"
    script, journal, profile = settings.warnings
    assert '[configuration] upload_method: "azcli" is not followed: `file upload` sends the files itself.' in script
    assert "chorus-upload file list --output-type azcli --output-file upload.sh" in script
    assert "[journal] upload_method: without effect" in journal
    assert "[configuration] profile: without effect" in profile


def test_what_never_did_anything_is_named_with_what_does(published: Published) -> None:
    settings = published("2025-readme")
    assert settings.central.patient_first
    order, profile = settings.warnings
    assert "[configuration] patient_first: without effect" in order
    assert "`patient_first` in `[central_path]`, which is true when it is left out" in order
    assert "[configuration] profile: without effect" in profile
    assert str(settings.sites["Metadata"].location) == "/srv/hill-metadata"


def test_december_of_2025(published: Published) -> None:
    settings = published("2025-december")
    for location in (settings.journal.cloud, settings.central.location):
        assert location.auth.mode is AuthMode.LOGIN
        assert location.auth.azure_account_name == "coastsite"
        assert location.auth.azure_account_url == "https://front.example.org"
    mode, *proxies = settings.warnings
    assert "[configuration] auth_mode: without effect: write it into the `.auth` section of each path" in mode
    assert [each.partition(": ")[2].partition(":")[0] for each in proxies] == [
        "[configuration] azure_storage_proxy_url",
        "[journal] azure_storage_proxy_url",
        "[central_path] azure_storage_proxy_url",
    ]
    assert all("write it as `azure_account_url`, beside `azure_account_name`" in each for each in proxies)


def test_2026_with_tokens(published: Published) -> None:
    settings = published("2026")
    assert (settings.mode, settings.upload_method) == (JournalingMode.FULL, UploadMethod.AZCLI)
    assert (settings.page_size, settings.num_threads) == (750, 12)
    assert not settings.central.patient_first
    assert settings.journal.local_path == Path("island.db")
    assert place(settings.journal.cloud) == ("az://island/journal.db", AuthMode.SAS_TOKEN)
    assert place(settings.central.location) == ("az://island", AuthMode.SAS_TOKEN)
    assert signature(settings.journal.cloud) == "ISLANDJOURNAL"
    assert signature(settings.central.location) == "ISLAND"
    assert settings.central.location.auth.azure_account_url == "https://islandsite.blob.core.windows.net"
    assert {name: (site.pattern, place(site.location)) for name, site in settings.sites.items()} == {
        "OMOP": ("OMOP/{filepath}", ("/srv/island", None)),
        "Images": ("Person{patient_id:w}/Images/{filepath}", ("s3://island-images/out", AuthMode.ACCESS_KEY)),
        "Waveforms": (
            "{version:w}/{patient_id:w}/Waveforms/{filepath}",
            ("az://waves/out", AuthMode.CONNECTION_STRING),
        ),
        "Metadata": ("Metadata/{filepath}", ("/srv/island", None)),
    }
    assert [each.partition(": ")[2].partition(":")[0] for each in settings.warnings] == [
        "[central_path] upload_method",
        "[configuration] profile",
    ]


def test_2026_with_log_ins_at_a_host_of_the_central_site(published: Published) -> None:
    settings = published("2026-login")
    assert settings.warnings == ()
    assert settings.mode is JournalingMode.APPEND
    assert settings.journal.local_path == Path("journal.db")
    for location in (settings.journal.cloud, settings.central.location):
        assert location.auth.mode is AuthMode.LOGIN
        assert location.auth.azure_account_name == "meadowsite"
        assert location.auth.azure_account_url == "https://front.example.org"


def test_a_key_without_effect_still_has_to_make_sense(published: Published, tmp_path: Path) -> None:
    text = (FILES / "2026.toml").read_text(encoding="utf-8").replace("profile = false", 'profile = "hospital"')
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[configuration\] profile: must be true or false"):
        load(None, environ={})
