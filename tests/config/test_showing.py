"""`config show` and `config check`: what the file comes to, and what is wrong with it, without a network."""

from __future__ import annotations

import json
import os
import shutil
import sys
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
import pytest

from chorus_upload.config.showing import Finding, Level, check, masked
from chorus_upload.errors import ConfigError
from chorus_upload.operations.checking import check_settings
from tests.config.conftest import MINIMAL, Load

SIGNATURE = quote(b64encode(bytes(range(32))), safe="")
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


def _site(tmp_path: Path, *, central: str) -> str:
    for name in ("journal", "data", "central"):
        (tmp_path / name).mkdir(exist_ok=True)
    text = MINIMAL.replace('path = "/central"', central)
    return text.replace("/journal/", f"{tmp_path.as_posix()}/journal/").replace("/data", f"{tmp_path.as_posix()}/data")


def _of(findings: list[Finding], subject: str) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in findings if finding.subject == subject]


def test_masked_settings_and_where_they_come_from(load_text: Load) -> None:
    settings = load_text(
        """
        [configuration]
        num_threads = 4
        [journal]
        path = "/journal/journal.db"
        [central_path]
        path = "az://c/data"
        azure_account_name = "acct"
        azure_sas_token = "sig=SECRET"
        [site_path.default]
        path = "/data"
        """,
        {"CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN": "sig=SECRET2"},
    )
    shown: dict[str, Any] = masked(settings)
    assert shown["num_threads"] == 4
    assert shown["mode"] == "append"
    assert shown["central"]["location"]["auth"]["azure_sas_token"] == "***"
    assert shown["sites"]["OMOP"]["location"] == {"path": "/data", "auth": {}}
    origins = shown["origins"]
    assert origins["num_threads"] == "[configuration] num_threads"
    assert origins["sites.OMOP.location.path"] == "[site_path.default] path"
    assert (
        origins["central.location.auth.azure_sas_token"]
        == "environment variable CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN"
    )
    assert "page_size" not in origins


def test_a_proxy_is_never_shown_and_a_timetable_as_it_was_written(load_text: Load) -> None:
    settings = load_text(
        """
        [configuration]
        proxy = "http://me:SECRET@proxy.hospital.org:3128"
        bandwidth_limit = "08:00,2M  18:00,off mon-fri"
        [journal]
        path = "/journal/journal.db"
        [central_path]
        path = "az://c/data"
        azure_account_name = "acct"
        tier = "cool"
        overwrite = "replace"
        endpoint_ip = "10.20.30.40"
        [site_path.default]
        path = "/data"
        """
    )
    shown: dict[str, Any] = masked(settings)
    assert shown["proxy"] == "***"
    assert shown["bandwidth_limit"] == "08:00,2M 18:00,off mon-fri"
    assert (shown["central"]["tier"], shown["central"]["overwrite"]) == ("Cool", "replace")
    assert shown["central"]["location"]["auth"]["endpoint_ip"] == "10.20.30.40"
    assert shown["origins"]["proxy"] == "[configuration] proxy"
    assert shown["origins"]["central.tier"] == "[central_path] tier"
    assert shown["origins"]["central.location.auth.endpoint_ip"] == "[central_path] endpoint_ip"
    for text in (json.dumps(shown), repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "SECRET" not in text
        assert "proxy.hospital.org" not in text


def test_what_is_not_there_is_not_shown(load_text: Load) -> None:
    shown: dict[str, Any] = masked(load_text(MINIMAL))
    assert {"proxy", "bandwidth_limit", "ca_bundle"} & shown.keys() == set()
    assert "tier" not in shown["central"]


def test_certificates_that_are_none(load_text: Load, tmp_path: Path) -> None:
    text = '[configuration]\nca_bundle = "hospital-ca.pem"\n' + _site(tmp_path, central='path = "central"')
    file = tmp_path / "hospital-ca.pem"
    file.write_bytes(b"\x30\x82\x03")
    assert _of(check(load_text(text), now=NOW), "[configuration]") == [
        (
            Level.ERROR,
            "hospital-ca.pem holds no certificates in PEM form: text that begins with -----BEGIN CERTIFICATE-----",
        )
    ]
    shutil.copy(certifi.where(), file)
    assert _of(check(load_text(text), now=NOW), "[configuration]")[0][0] is Level.OK
    file.unlink()
    file.mkdir()
    assert _of(check(load_text(text), now=NOW), "[configuration]")[0][0] is Level.OK


def test_everything_in_order(load_text: Load, tmp_path: Path) -> None:
    token = f"sv=1&st=2026-01-01&se=2026-12-31T00%3A00%3A00Z&sr=c&sp=racwdl&sig={SIGNATURE}"
    images = '[site_path.Images]\npath = "s3://imaging/x"\naws_profile = "imaging"\n'
    central = f'path = "https://acct.blob.core.windows.net/c/x?{token}"'
    settings = load_text(images + _site(tmp_path, central=central))
    findings = check(settings, now=NOW)
    assert {finding.level for finding in findings} == {Level.OK, Level.UNTRIED}
    assert _of(findings, "[site_path.Images]") == [(Level.UNTRIED, "s3://imaging/x, entered by profile")]
    assert _of(findings, "[central_path]") == [
        (Level.OK, "az://c/x: the SAS token is valid until 2026-12-31 00:00 UTC")
    ]


@pytest.mark.parametrize(
    ("token", "level", "said"),
    [
        (f"se=2026-06-15T11:59:00Z&sp=rwld&sr=c&sig={SIGNATURE}", Level.ERROR, "expired on 2026-06-15 11:59 UTC"),
        (f"se=2026-06-14&sp=rwld&sr=c&sig={SIGNATURE}", Level.ERROR, "expired on 2026-06-14 00:00 UTC"),
        (f"se=2026-06-20&sp=rwld&sr=c&sig={SIGNATURE}", Level.WARNING, "expires on 2026-06-20 00:00 UTC"),
        (
            f"se=2027-01-01&sp=rl&sr=c&sig={SIGNATURE}",
            Level.ERROR,
            "does not permit to write (w), delete (d); it has sp=rl",
        ),
        (f"se=2027-01-01&sp=c&sr=c&sig={SIGNATURE}", Level.ERROR, "read (r), write (w), list (l)"),
        (f"se=2027-01-01&sp=rwld&sr=b&sig={SIGNATURE}", Level.ERROR, "single blob"),
        (f"se=2027-01-01&st=2026-12-01&sp=rwld&sr=c&sig={SIGNATURE}", Level.ERROR, "not valid before 2026-12-01"),
        (f"se=2027-01-01&sp=rwld&ss=f&srt=co&sig={SIGNATURE}", Level.ERROR, "not for blobs"),
        (f"se=2027-01-01&sp=rwld&ss=b&srt=o&sig={SIGNATURE}", Level.ERROR, "srt=co"),
        (f"se=2027-01-01&sp=rwld&ss=b&srt=sco&sig={SIGNATURE}", Level.OK, "valid until"),
        (f"si=policy&sr=c&sig={SIGNATURE}", Level.WARNING, "policy"),
        ("se=2027-01-01&sp=rwld&sr=c&sig=SECRET", Level.ERROR, "damaged"),
        (f"se=2027-01-01&sp=rwld&sr=c&sig={SIGNATURE[:-5]}", Level.ERROR, "damaged"),
        ("se=2027-01-01&sp=rwld&sr=c", Level.ERROR, "no signature"),
        (f"sp=rwld&sr=c&sig={SIGNATURE}", Level.ERROR, "nothing of when it expires"),
        (f"se=someday&sp=rwld&sr=c&sig={SIGNATURE}", Level.ERROR, "nothing of when it expires"),
    ],
)
def test_what_a_sas_token_says_of_itself(load_text: Load, tmp_path: Path, token: str, level: Level, said: str) -> None:
    keys = f'path = "az://c/data"\nazure_account_name = "acct"\nazure_sas_token = "{token}"'
    ((found, text),) = _of(check(load_text(_site(tmp_path, central=keys)), now=NOW), "[central_path]")
    assert (found, said in text) == (level, True), text


def test_the_journal_needs_to_delete_its_lock_and_a_source_only_to_be_read(load_text: Load, tmp_path: Path) -> None:
    token = f"se=2027-01-01&sp=rl&sr=c&sig={SIGNATURE}"
    settings = load_text(
        f"""
[journal.source]
path = "https://acct.blob.core.windows.net/c/journal.db?{token.replace("rl", "rwl")}&sv=1"
[central_path]
path = "{tmp_path.as_posix()}"
[site_path.default]
path = "https://acct.blob.core.windows.net/source?{token}&sv=1"
"""
    )
    findings = check(settings, now=NOW)
    assert _of(findings, "[journal.source]") == [
        (Level.ERROR, "the SAS token does not permit to delete (d); it has sp=rwl")
    ]
    assert _of(findings, "[site_path.Images]")[0][0] is Level.OK


def test_directories_that_are_not_there(load_text: Load, tmp_path: Path) -> None:
    text = _site(tmp_path, central='path = "new"').replace("data", "nowhere")
    findings = check(load_text(text + '[journal.local]\npath = "missing/journal.db"'), now=NOW)
    assert _of(findings, "[journal.local]")[0] == (Level.ERROR, f"the directory {tmp_path / 'missing'} does not exist")
    assert _of(findings, "[central_path]") == [(Level.ERROR, "new does not exist; create it, or mount it")]
    assert _of(findings, "[site_path.OMOP]") == [(Level.ERROR, f"{tmp_path / 'nowhere'} does not exist")]
    (tmp_path / "nowhere").touch()
    assert "is not a directory" in _of(check(load_text(text), now=NOW), "[site_path.OMOP]")[0][1]


def test_directories_that_cannot_be_used(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_text(_site(tmp_path, central='path = "central"'))
    # As root everything is permitted, so the question itself is answered with no.
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    levels = {finding.subject: finding.level for finding in check(settings, now=NOW)}
    assert set(levels.values()) == {Level.ERROR}


def test_a_google_credentials_file_that_is_not_there(load_text: Load, tmp_path: Path) -> None:
    keys = 'path = "gs://b/x"\ngoogle_application_credentials = "key.json"'
    settings = load_text(_site(tmp_path, central=keys))
    assert _of(check(settings), "[central_path]")[0][0] is Level.ERROR
    (tmp_path / "key.json").touch()
    assert "is empty" in _of(check(settings), "[central_path]")[0][1]
    (tmp_path / "key.json").write_text("{}")
    assert _of(check(settings), "[central_path]")[0][0] is Level.UNTRIED


def test_a_google_token_file_that_is_not_there(load_text: Load, tmp_path: Path) -> None:
    settings = load_text(_site(tmp_path, central='path = "gs://b/x"\ngoogle_token_file = "token.txt"'))
    assert "cannot be read" in _of(check(settings), "[central_path]")[0][1]


def test_a_library_that_is_not_installed(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_text(_site(tmp_path, central='path = "s3://bucket/x"\naws_profile = "imaging"'))
    assert _of(check_settings(settings), "this version") == []
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert _of(check_settings(settings), "this version") == [
        (Level.ERROR, 's3:// places need s3fs: pip install "chorus-upload[s3]"')
    ]


def test_a_journal_that_is_a_directory(load_text: Load, tmp_path: Path) -> None:
    text = _site(tmp_path, central='path = "central"')
    with pytest.raises(ConfigError, match=r"is a directory; name the journal file in it: .*journal/journal.db"):
        load_text(text.replace("/journal/journal.db", "/journal"))
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(ConfigError, match=r"\[journal.local\] path: journal.db is a directory"):
        load_text(text)


def test_a_missing_section_has_its_present_name(load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"\[journal.source\] path: is missing"):
        load_text('[central_path]\npath = "/central"\n[site_path.default]\npath = "/data"\n')


def test_what_looks_odd(load_text: Load, tmp_path: Path) -> None:
    text = _site(tmp_path, central='path = "data/central"')
    settings = load_text(
        text
        + r"""
[site_path.Images]
pattern = 'OMOP/{filepath}'
[site_path.Waveforms]
pattern = '{patient_id:w}\W\{filepath}'
"""
    )
    findings = check(settings, now=NOW)
    assert (Level.WARNING, "has the same path and pattern as OMOP: every file is sent twice") in _of(
        findings, "[site_path.Images]"
    )
    assert any("backslash" in text for _, text in _of(findings, "[site_path.Waveforms]"))
    assert any("inside this source" in text for _, text in _of(findings, "[site_path.OMOP]"))


def test_a_source_that_is_the_central_store(tmp_path: Path, load_text: Load) -> None:
    """No update would begin; a central store inside a source is left out of it, and only worth a word."""
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    for path in ("/data", f"{tmp_path.as_posix()}/link"):
        settings = load_text(_site(tmp_path, central=f'path = "{path}"'))
        told = [(level, text) for level, text in _of(check(settings), "[site_path.OMOP]") if "central" in text]
        assert told == [
            (Level.ERROR, f"this source is the central store ({tmp_path / 'data'}): name two different directories")
        ]

    (tmp_path / "data" / "deep").mkdir()
    settings = load_text(_site(tmp_path, central='path = "/data/deep"'))
    told = [(level, text) for level, text in _of(check(settings), "[site_path.OMOP]") if "central" in text]
    assert told == [(Level.WARNING, f"the central path {tmp_path / 'data/deep'} is inside this source")]
