"""A site keeps its `config.toml`, of whatever year, and the program does the same with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_upload.config.settings import NO_PROXY, AuthMode, Overwrite, Settings, UploadMethod
from chorus_upload.model import FingerprintTime, JournalingMode
from tests.config.conftest import MINIMAL, Load

OF_2024 = """
[configuration]
upload_method = "azcli"
journaling_mode = "append"
supported_modalities = "OMOP,Images,Waveforms"
page_size = 500
num_threads = 8

[journal]
path = "az://chorus-mgh/journal/journal.db"
local_path = "site.db"
upload_method = "builtin"
azure_account_name = "chorusmgh"
azure_sas_token = "sv=1&sr=c&sig=JOURNALSECRET"

[central_path]
path = "az://chorus-mgh/data"
azure_container = "chorus-mgh"
azure_account_name = "chorusmgh"
azure_sas_token = "sv=1&sr=c&sig=CENTRALSECRET"

[site_path.default]
path = "/data/chorus"

[site_path.Images]
path = "s3://imaging/chorus"
aws_access_key_id = "AKIA"
aws_secret_access_key = "AWSSECRET"
"""

OF_2025 = (
    OF_2024
    + """
pattern = "Person{patient_id:w}/Images/{filepath}"

[site_path.OMOP]
pattern = "{version:w}/{patient_id:w}/OMOP_tables/{filepath}"
versioned = true
omop_per_patient = true
"""
)

OF_2026 = """
[configuration]
supported_modalities = ["OMOP", "Images", "Waveforms"]
page_size = 500
num_threads = 8

[journal]
journaling_mode = "append"

[journal.local]
path = "site.db"

[journal.source]
path = "az://chorus-mgh/journal/journal.db"
upload_method = "builtin"

[journal.source.auth]
auth_mode = "sas"
azure_account_name = "chorusmgh"
azure_sas_token = "?sv=1&sr=c&sig=JOURNALSECRET"

[central_path]
path = "az://chorus-mgh/data/"
azure_container = "chorus-mgh"
patient_first = true
upload_method = "azcli"

[central_path.auth]
auth_mode = "sas_token"
azure_account_url = "https://chorusmgh.blob.core.windows.net/"
azure_sas_token = "sv=1&sr=c&sig=CENTRALSECRET"

[site_path.default]
path = "/data/chorus"

[site_path.Images]
path = "s3://imaging/chorus"
pattern = "Person{patient_id:w}/Images/{filepath}"

[site_path.Images.auth]
aws_access_key_id = "AKIA"
aws_secret_access_key = "AWSSECRET"

[site_path.OMOP]
pattern = "{version:w}/{patient_id:w}/OMOP_tables/{filepath}"
versioned = true
omop_per_patient = true
"""


def _meaning(settings: Settings) -> Settings:
    # Both name the section that something stands in, and that is another one.
    return settings.model_copy(update={"origins": {}, "warnings": ()})


def test_a_file_of_2025_and_one_of_2026_mean_the_same(load_text: Load) -> None:
    assert _meaning(load_text(OF_2025)) == _meaning(load_text(OF_2026))


def test_a_file_of_2024_differs_only_in_what_it_cannot_say(load_text: Load) -> None:
    old, new = load_text(OF_2024), load_text(OF_2026)
    assert old.sites["Images"].pattern == "{patient_id:w}/Images/{filepath}"
    assert old.sites["OMOP"].pattern == "OMOP/{filepath}"
    without_patterns = {
        name: site.model_copy(
            update={
                "pattern": old.sites[name].pattern,
                "versioned": False,
                "omop_per_patient": False,
            }
        )
        for name, site in new.sites.items()
    }
    assert _meaning(old) == _meaning(new).model_copy(update={"sites": without_patterns})


@pytest.mark.parametrize("text", [OF_2024, OF_2025, OF_2026])
def test_what_every_generation_comes_to(load_text: Load, text: str) -> None:
    settings = load_text(text)
    assert settings.mode is JournalingMode.APPEND
    assert settings.upload_method is UploadMethod.AZCLI
    assert settings.modalities == ("OMOP", "Images", "Waveforms", "Metadata")
    assert (settings.page_size, settings.num_threads) == (500, 8)

    journal = settings.journal
    assert journal.local_path == Path("site.db")
    assert str(journal.cloud) == "az://chorus-mgh/journal/journal.db"
    assert str(journal.cloud_directory) == "az://chorus-mgh/journal"
    assert journal.cloud_name == "journal.db"
    assert journal.cloud_directory.auth == journal.cloud.auth
    assert journal.cloud.auth.azure_sas_token is not None
    assert journal.cloud.auth.azure_sas_token.get_secret_value() == "sv=1&sr=c&sig=JOURNALSECRET"

    central = settings.central.location
    assert (central.scheme, central.container, central.prefix) == ("az", "chorus-mgh", "data")
    assert central.auth.mode is AuthMode.SAS_TOKEN
    assert central.auth.azure_account_name == "chorusmgh"
    assert central.auth.azure_account_url == "https://chorusmgh.blob.core.windows.net"
    assert settings.central.patient_first

    assert settings.sites["Waveforms"].location.local_path == Path("/data/chorus")
    assert settings.sites["Images"].location.auth.mode is AuthMode.ACCESS_KEY
    assert [warning for warning in settings.warnings if "upload_method" not in warning] == []
    assert any("`file upload` sends the files itself" in warning for warning in settings.warnings)


def test_what_a_short_file_leaves_to_the_program(load_text: Load) -> None:
    settings = load_text(MINIMAL)
    assert settings.warnings == ()
    assert settings.upload_method is UploadMethod.BUILTIN
    assert settings.modalities == ("OMOP", "Images", "Waveforms", "Metadata")
    assert settings.journal.local_path == Path("journal.db")
    assert (settings.num_threads, settings.page_size) == (16, 1_000)
    assert settings.fingerprint is FingerprintTime.ON_UPDATE
    assert (settings.deletion_limit, settings.retry_seconds) == (0.2, 900.0)
    assert not settings.accept_size_evidence
    assert set(settings.sites) == set(settings.modalities)
    assert not settings.sites["Images"].follow_links


WITHOUT_MODE = MINIMAL.replace('journaling_mode = "full"\n', "")


def test_without_a_mode_nothing_counts_as_deleted_and_the_key_is_asked_for(load_text: Load) -> None:
    settings = load_text(WITHOUT_MODE)
    assert settings.mode is JournalingMode.APPEND
    (warning,) = settings.warnings
    for said in (
        '[journal] journaling_mode: is missing, and taken for "append"',
        "a file that is missing in the source stays in the journal",
        '"full" if the source always holds everything',
        "a missing file counts as deleted",
    ):
        assert said in warning
    for written, mode in (("append", JournalingMode.APPEND), ("full", JournalingMode.FULL)):
        settings = load_text(f'[configuration]\njournaling_mode = "{written}"\n{WITHOUT_MODE}')
        assert (settings.mode, settings.warnings) == (mode, ())


def test_the_keys_of_the_program_itself(load_text: Load) -> None:
    settings = load_text(
        """
        [configuration]
        fingerprint = "on-upload"
        deletion_limit = 0.5
        accept_size_evidence = true
        retry_seconds = 60
        follow_links = true
        [site_path.Images]
        follow_links = false
        [central_path]
        patient_first = false
        path = "/central"
        [journal]
        path = "/journal/journal.db"
        [site_path.default]
        path = "/data"
        """
    )
    assert settings.fingerprint is FingerprintTime.ON_UPLOAD
    assert (settings.deletion_limit, settings.retry_seconds) == (0.5, 60.0)
    assert settings.accept_size_evidence
    assert not settings.central.patient_first
    assert {name: site.follow_links for name, site in settings.sites.items()} == {
        "OMOP": True,
        "Images": False,
        "Waveforms": True,
        "Metadata": True,
    }


def test_the_way_to_the_services(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "ca.pem").touch()
    settings = load_text(
        """
        [configuration]
        ca_bundle = "~/ca.pem"
        proxy = " http://me:p%40ss@proxy.hospital.org:3128/ "
        """
        + MINIMAL
    )
    assert settings.ca_bundle == tmp_path / "ca.pem"
    assert settings.proxy is not None
    assert settings.proxy.get_secret_value() == "http://me:p%40ss@proxy.hospital.org:3128"
    assert load_text(MINIMAL).proxy is None
    assert load_text(MINIMAL).ca_bundle is None
    assert load_text('[configuration]\nca_bundle = ""\nproxy = ""\n' + MINIMAL).proxy is None


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://proxy.hospital.org", "https://proxy.hospital.org"),
        ("socks5h://10.1.1.1:1080", "socks5h://10.1.1.1:1080"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("off", NO_PROXY),
        ("Off", NO_PROXY),
    ],
)
def test_a_proxy_or_none_whatever_the_environment_says(load_text: Load, written: str, kept: str) -> None:
    proxy = load_text(f'[configuration]\nproxy = "{written}"\n{MINIMAL}').proxy
    assert proxy is not None
    assert proxy.get_secret_value() == kept


def test_how_central_storage_keeps_files(load_text: Load) -> None:
    central = load_text(MINIMAL).central
    assert (central.tier, central.overwrite) == (None, Overwrite.NEVER)
    in_azure = MINIMAL.replace('path = "/central"', 'path = "az://c/data"\nazure_account_name = "a"\n{}')
    for written, tier in (("Hot", "Hot"), ("cool", "Cool"), ("COLD", "Cold"), (" archive ", "Archive")):
        settings = load_text(in_azure.replace("{}", f'tier = "{written}"\noverwrite = "replace"'))
        assert (settings.central.tier, settings.central.overwrite) == (tier, Overwrite.REPLACE)
        assert settings.warnings == ()
    assert "tier: not used" in load_text(MINIMAL.replace("[central_path]", '[central_path]\ntier = "Hot"')).warnings[0]


def test_the_same_in_two_places_is_no_contradiction(load_text: Load) -> None:
    settings = load_text('[configuration]\njournaling_mode = "append"\n' + OF_2026.replace("[configuration]", "", 1))
    assert settings.mode is JournalingMode.APPEND


def test_files_saved_by_a_windows_editor(load_text: Load) -> None:
    text = MINIMAL.replace("/data", "D:/data").replace('"/central"', r"'\\server\central'").replace("\n", "\r\n")
    settings = load_text("\ufeff" + text)
    assert settings.sites["OMOP"].location.is_local
    assert str(settings.sites["OMOP"].location) == "D:/data"
    assert settings.central.location.is_local


def test_a_site_may_have_modalities_of_its_own(load_text: Load) -> None:
    settings = load_text(
        '[configuration]\nsupported_modalities = "OMOP, Notes,"\n[site_path.Notes]\npath = "/notes"\n' + MINIMAL
    )
    assert settings.modalities == ("OMOP", "Notes", "Metadata")
    assert settings.sites["Notes"].pattern == "{patient_id:w}/Notes/{filepath}"
    assert str(settings.sites["Notes"].location) == "/notes"


def test_a_site_without_a_path_for_metadata_keeps_working(load_text: Load) -> None:
    settings = load_text(
        '[configuration]\nsupported_modalities = "Images"\n'
        + MINIMAL.replace("[site_path.default]", "[site_path.Images]")
    )
    assert settings.modalities == ("Images",)
    # `journal update` says so where it matters.
    assert settings.warnings == ()


def test_a_section_left_from_the_template_is_only_mentioned(load_text: Load) -> None:
    settings = load_text(
        '[configuration]\nsupported_modalities = "OMOP"\n[site_path.Waveforms]\npath = "/w"\n' + MINIMAL
    )
    assert settings.modalities == ("OMOP", "Metadata")
    assert "[site_path.Waveforms]: nothing is sent from here" in settings.warnings[0]


@pytest.mark.parametrize(
    ("keys", "pattern", "versioned"),
    [
        ("", "OMOP/{filepath}", False),
        ("omop_per_patient = true", "{patient_id:w}/OMOP/{filepath}", False),
        ("versioned = true", "{version:w}/OMOP/{filepath}", True),
        ("pattern = '{version:w}/x/{filepath}'", "{version:w}/x/{filepath}", True),
    ],
)
def test_which_files_are_omop(load_text: Load, keys: str, pattern: str, versioned: bool) -> None:  # noqa: FBT001
    site = load_text(f"[site_path.OMOP]\n{keys}\n{MINIMAL}").sites["OMOP"]
    assert (site.pattern, site.versioned) == (pattern, versioned)


def test_versioned_without_a_version_in_the_pattern_is_mentioned(load_text: Load) -> None:
    settings = load_text(f"[site_path.OMOP]\nversioned = true\npattern = 'OMOP/{{filepath}}'\n{MINIMAL}")
    assert "no {version:w}" in settings.warnings[0]


def test_azcli_for_the_journal_is_mentioned(load_text: Load) -> None:
    settings = load_text(OF_2024.replace('upload_method = "builtin"', 'upload_method = "azcli"'))
    assert any("[journal] upload_method: without effect" in warning for warning in settings.warnings)
