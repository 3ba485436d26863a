"""A data manager makes mistakes in `config.toml` and is told of all of them at once, with what was meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.errors import ConfigError
from tests.config.conftest import MINIMAL, Load


def _lines(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return error.value.message.splitlines()


def test_all_mistakes_are_named_at_once(load_text: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(
            """
            threads = 4
            [configuration]
            num_threads = 0
            page_size = true
            journaling_mode = "ful"
            num_treads = 8
            pattern = "OMOP/{filepath}"
            [jurnal]
            path = "x"
            [journal]
            path = "az://c/journal.db"
            azure_account_name = "acct"
            azure_sas_token = 5
            [central_path]
            azure_acount_name = "chorusmgh"
            path = "azz://c/data"
            auth = "login"
            [site_path.default]
            path = "/data"
            [site_path.Image]
            path = "/images"
            [site_path.Images.atuh]
            auth_mode = "login"
            """
        )
    assert _lines(raised) == [
        "config.toml: threads: unknown key; did you mean num_threads in [configuration]?",
        "config.toml: [configuration] num_threads: must be a whole number from 1 to 512, not 0",
        "config.toml: [configuration] page_size: must be a whole number from 1 to 1,000,000, not true",
        'config.toml: [configuration] journaling_mode: must be one of "full", "append", not "ful";'
        ' did you mean "full"?',
        "config.toml: [configuration] num_treads: unknown key; did you mean num_threads?",
        "config.toml: [configuration] pattern: unknown key here; it belongs in [site_path.<Modality>]",
        "config.toml: [jurnal]: unknown section; did you mean [journal]?",
        "config.toml: [journal] azure_sas_token: must be text in quotes",
        "config.toml: [central_path] azure_acount_name: unknown key; did you mean azure_account_name?",
        "config.toml: [central_path] auth: this is a section: write its keys below a line [central_path.auth]",
        "config.toml: [site_path.Images.atuh]: unknown section; did you mean [site_path.Images.auth]?",
        "config.toml: [site_path.Image]: Image is not one of the modalities of [configuration] supported_modalities;"
        " did you mean [site_path.Images]?",
        "config.toml: [central_path] path: azz:// is not a kind of place that is known; did you mean az://?",
    ]
    assert raised.value.exit_code == 2
    assert raised.value.hint is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[configuration]\ndeletion_limit = 20\n", "deletion_limit: must be a number from 0 to 1, not 20"),
        ("[configuration]\nnum_threads = [3]\n", "num_threads: must be a whole number from 1 to 512, not a list"),
        ("[configuration]\nnum_threads = {a = 3}\n", "must be a whole number from 1 to 512, not a section"),
        ("[configuration]\nnum_threads = 07:32:00\n", "must be a whole number from 1 to 512, not this"),
        (f"[configuration]\nupload_method = '{'S' * 40}'\n", '"azcli", "azcopy", not this text'),
        ("[configuration]\nsupported_modalities = 3\n", "supported_modalities: must be names with commas between"),
        ('[configuration]\nsupported_modalities = "OMOP,my images"\n', "'my images' cannot be a modality"),
        ('[configuration]\nsupported_modalities = "omop"\n', "omop must be written OMOP"),
        ('[configuration]\nupload_method = "azcpy"\n', 'did you mean "azcopy"?'),
        ('[site_path]\nOMOP = "/omop"\n', "[site_path] OMOP: unknown key"),
        ("[site_path.OMOP]\npattern = 'OMOP/{file}'\n", "{file} at character 6 is not a known field"),
        ("[site_path.OMOP]\nversioned = 'maybe'\n", 'versioned: must be true or false, not "maybe"'),
        ('[journal.local]\npath = "az://c/j.db"\n', "[journal.local] path: must be a file on this machine"),
        ('[journal.source]\npath = "/other/journal.db"\n', "contradicts"),
        ('[configuration]\nbandwith_limit = "2M"\n', "bandwith_limit: unknown key; did you mean bandwidth_limit?"),
        ('[configuration]\nca_bundel = "x"\n', "ca_bundel: unknown key; did you mean ca_bundle?"),
        ('[configuration]\nproxi = "x"\n', "proxi: unknown key; did you mean proxy?"),
        ('[configuration]\ntier = "Cool"\n', "tier: unknown key here; it belongs in [central_path]"),
        ('[journal.source]\noverwrite = "never"\n', "overwrite: unknown key here; it belongs in [central_path]"),
        ('[central_path.auth]\nendpoint_pi = "x"\n', "endpoint_pi: unknown key; did you mean endpoint_ip?"),
        (
            '[central_path.auth]\nendpoint_ip = "10.20.30"\n',
            'endpoint_ip: must be an IPv4 or IPv6 address, "10.20.30.40"',
        ),
        ('[central_path.auth]\nendpoint_ip = "blob.hospital.org"\n', 'not "blob.hospital.org"'),
        ("[central_path.auth]\nendpoint_ip = 10\n", "endpoint_ip: must be an IPv4 or IPv6 address"),
        ('[configuration]\nca_bundle = "missing.pem"\n', "ca_bundle: missing.pem does not exist, or cannot be read"),
        ('[configuration]\nca_bundle = "~nobody-here/x.pem"\n', "ca_bundle: ~nobody-here/x.pem does not exist"),
        ('[journal.source.auth]\nxyz = "1"\n', "xyz: unknown key; this section has auth_mode, azure_account_name"),
    ],
)
def test_one_mistake(load_text: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(text + MINIMAL)
    assert len(_lines(raised)) == 1
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('tier = "Frozen"', '[central_path] tier: must be one of "Hot", "Cool", "Cold", "Archive", not "Frozen"'),
        ('tier = "archiv"', 'not "archiv"; did you mean "Archive"?'),
        ("tier = 1", "[central_path] tier: must be one of"),
        ('overwrite = "always"', '[central_path] overwrite: must be one of "never", "replace", not "always"'),
        ('overwrite = "repace"', 'did you mean "replace"?'),
    ],
)
def test_one_mistake_about_central_storage(load_text: Load, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(MINIMAL.replace("[central_path]", f"[central_path]\n{key}"))
    assert len(_lines(raised)) == 1
    assert said in raised.value.message


@pytest.mark.parametrize(
    "proxy",
    [
        "SECRET@proxy.hospital.org:3128",
        "ftp://me:SECRET@proxy.hospital.org",
        "socks5://me:SECRET@proxy.hospital.org:1080",
        "http://me:SECRET@:3128",
        "http://me:SEC#RET@proxy.hospital.org:3128",
        "http://me:SECRET@proxy.hospital.org:port",
        "http://me:SECRET@proxy.hospital.org:0",
        "http://me:SECRET@proxy.hospital.org/path",
        "http://me:SECRET@[proxy",
    ],
)
def test_what_is_no_proxy_is_not_shown(load_text: Load, proxy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(f'[configuration]\nproxy = "{proxy}"\n{MINIMAL}')
    assert _lines(raised) == [
        'config.toml: [configuration] proxy: must be an address, "http://proxy.hospital.org:3128" (or https://,'
        ' socks5h://), or "off"'
    ]
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ('path = "/journal/journal.db"', '[journal.source] path: is missing; it is, for example, "az://'),
        ('path = "/central"', '[central_path] path: is missing; it is, for example, "az://'),
        ('path = "/data"', "[site_path.OMOP] path: is missing, and there is no [site_path.default] path"),
    ],
)
def test_a_path_that_is_missing_or_empty(load_text: Load, without: str, said: str) -> None:
    for text in (MINIMAL.replace(without, ""), MINIMAL.replace(without, 'path = " "')):
        with pytest.raises(ConfigError) as raised:
            load_text(text)
        assert said in raised.value.message


def test_a_modality_without_a_path(load_text: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(MINIMAL.replace("[site_path.default]", "[site_path.Images]"))
    assert [line.split(":")[1] for line in _lines(raised)] == [" [site_path.OMOP] path", " [site_path.Waveforms] path"]


def test_full_and_append_at_once(load_text: Load) -> None:
    with pytest.raises(
        ConfigError, match=r"\[journal\] journaling_mode: contradicts \[configuration\] journaling_mode"
    ):
        load_text(
            '[configuration]\njournaling_mode = "full"\n'
            + MINIMAL.replace('journaling_mode = "full"', 'journaling_mode = "append"')
        )


@pytest.mark.parametrize("path", ["az://container", "az://container/", "/"])
def test_a_cloud_journal_that_is_not_a_file(load_text: Load, path: str) -> None:
    account = '[journal.source.auth]\nazure_account_name = "acct"\n'
    with pytest.raises(ConfigError, match="must name the journal file"):
        load_text(account + MINIMAL.replace('"/journal/journal.db"', f'"{path}"'))


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="there is no such configuration file") as raised:
        load(None, environ={})
    assert "`chorus-upload config template config.toml` writes one" in str(raised.value.hint)
    assert "-c" in str(raised.value.hint)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, environ={})


def test_a_file_that_is_not_toml(load_text: Load) -> None:
    with pytest.raises(ConfigError, match="line 3, column") as raised:
        load_text("[journal]\npath = 'x'\nlocal_path = journal.db\n")
    assert raised.value.message.startswith("config.toml: this is not TOML")


def test_a_windows_path_in_double_quotes(load_text: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text('[site_path.default]\npath = "C:\\data"\n')
    assert "single quotes" in str(raised.value.hint)
    with pytest.raises(ConfigError) as raised:
        load_text('[site_path.default]\npath = "C:\\Users\\me"\n')
    assert "single quotes" in str(raised.value.hint)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes('[journal]\npath = "/Jürgen"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load(file, environ={})


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_a_file_with_secrets_that_others_can_read(load_text: Load, tmp_path: Path) -> None:
    secret = '[journal.source.auth]\nazure_sas_token = "sig=SECRET"\n'
    load_text(secret + MINIMAL)
    file = tmp_path / "config.toml"
    file.chmod(0o640)
    assert "chmod 600 'config.toml'" in load(None, environ={}).warnings[-1]
    assert load_text(MINIMAL).warnings == ()
    file.chmod(0o644)
    assert load(None, environ={}).warnings == ()
    load_text('[configuration]\nproxy = "http://proxy.hospital.org:3128"\n' + MINIMAL)
    file.chmod(0o644)
    assert load(None, environ={}).warnings == ()
    load_text('[configuration]\nproxy = "http://me:SECRET@proxy.hospital.org:3128"\n' + MINIMAL)
    file.chmod(0o644)
    assert "chmod 600" in load(None, environ={}).warnings[0]
    load_text(MINIMAL.replace("/central", "https://a.blob.core.windows.net/c?sv=1&sig=SECRET"))
    file.chmod(0o644)
    assert any("chmod" in warning for warning in load(None, environ={}).warnings)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/data/a\\u0000b", "holds a NUL character"),
        ("/" + "n" * 300, "has a name of more than the 255 bytes"),
        ("/d" * 2_500, "is longer than the 4,095 bytes"),
        ("https://user:se/cret@host/data", "is not an address"),
        ("https://[::1/data", "is not an address"),
    ],
)
def test_a_path_that_cannot_be(load_text: Load, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(MINIMAL.replace("/data", path))
    assert f"[site_path.default] path: {said}" in raised.value.message
    assert "cret" not in raised.value.message


def test_the_home_of_somebody_who_is_not_known(load_text: Load) -> None:
    """It is not found, as any other directory that is not there."""
    settings = load_text(MINIMAL.replace("/data", "~nobody-here/data"))
    assert not settings.sites["Images"].location.local_path.exists()
