"""A file of a source may hold what lets anybody into the store: it is never sent, whatever its spelling."""

from __future__ import annotations

import json
import shutil
import textwrap
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from chorus_upload.config.own_secrets import SecretSearch
from tests.archives import members_of, tar
from tests.e2e.clouds import files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.trees import Bytes, Content, build

SIGNATURE = "kT3+/uQ9zX" * 4 + "="
TOKEN = f"sv=2024-11-04&se=2027-01-31T00%3A00%3A00Z&sp=racwdl&sig={quote(SIGNATURE, safe='')}"
KEY = "9f/Qw+" * 14 + "=="
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=chorus;AccountKey={KEY};EndpointSuffix=core.windows.net"

SPELLINGS = {
    "as it is": SIGNATURE,
    "in its token": TOKEN,
    "escaped": quote(SIGNATURE, safe=""),
    "escaped in small letters": quote(SIGNATURE, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "escaped twice": quote(quote(SIGNATURE, safe=""), safe=""),
    "in JSON": json.dumps({"sig": SIGNATURE}).replace("/", "\\/").replace("+", "\\u002b"),
    "in a shell": SIGNATURE.replace("+", "\\+").replace("=", "\\="),
    "in a page": SIGNATURE.replace("+", "&#43;"),
    "in a batch file": TOKEN.replace("%", "%%").replace("&", "^&"),
    "for another address in a batch file": quote(SIGNATURE, safe="").replace("%", "%%25"),
    "without padding": SIGNATURE.rstrip("="),
    "in an address": SIGNATURE.replace("+", "-").replace("/", "_"),
    "in lines": "\\\n  ".join(textwrap.wrap(SIGNATURE, 15)),
    **{f"in base64 after {before}": b64encode(f"{before}:{TOKEN}".encode()).decode() for before in ("", "a", "an")},
    "in the lines of base64": "\n".join(textwrap.wrap(b64encode(f"token: {SIGNATURE}\n".encode()).decode(), 30)),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_spelling_of_a_secret_is_found(text: str, encoding: str, figures: Figures) -> None:
    search = SecretSearch([TOKEN, CONNECTION])

    assert search(f"before {text} after".encode(encoding))
    for near in (text[: len(text) // 2], text.swapcase(), "sv=2024-11-04&se=2027-01-31T00%3A00%3A00Z&sp=racwdl&sig="):
        assert not search(f"before {near} after".encode(encoding))
    figures.count("spellings of a secret")


@pytest.mark.parametrize("text", [CONNECTION, KEY, quote(KEY), f'key = "{KEY}"'])
def test_the_key_in_a_connection_string(text: str, figures: Figures) -> None:
    assert SecretSearch([CONNECTION])(text.encode())
    assert not SecretSearch([CONNECTION.replace("9f", "9e")])(text.encode())
    figures.count("spellings of a secret")


def test_what_is_short_may_be_a_word_of_the_data() -> None:
    assert not SecretSearch(["x" * 19])(b"x" * 19)
    assert SecretSearch(["x" * 20])(b"x" * 20)


SECRETS: dict[str, Content] = {
    "OMOP/config.toml.bak": "the configuration",
    "OMOP/notes.txt": f"curl 'https://chorus.blob.core.windows.net/data?{TOKEN}'",
    "OMOP/deep/settings.json": json.dumps({"password": SIGNATURE}).replace("/", "\\/"),
}
DATA: dict[str, Content] = {
    "OMOP/person.csv": "person_id\n1\n",
    "OMOP/large.txt": f"{TOKEN}{' ' * (1 << 20)}",
    "OMOP/b.dat": Bytes(50_000),
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose source holds secrets; another source has a token, though its files are not asked for."""
    more = (
        '[site_path.OMOP]\npattern = "OMOP/{filepath}"\n[site_path.Images]\npath = "az://elsewhere/images"\n'
        f'[site_path.Images.auth]\nazure_account_name = "chorus"\nazure_sas_token = "{TOKEN}"\n'
    )
    site = settle(
        tmp_path / "home", build(tmp_path / "source", SECRETS | DATA), new_disk(tmp_path / "cloud"), more=more
    )
    shutil.copy(site.config, site.source / "OMOP/config.toml.bak")
    return site


def _stored(site: Site) -> set[str]:
    return {key.partition("/")[2] for key in files_of(site.cloud.objects())}


def test_an_update_does_not_record_them(site: Site, figures: Figures) -> None:
    update = site.run("--json", "journal", "update", "--modalities", "OMOP", exit_code=3)

    told = {each["problem"]["path"]: each["problem"]["kind"] for each in update.events("problem-found")}
    assert told == dict.fromkeys(SECRETS, "holds-secret")
    assert SIGNATURE[:10] not in update.out + update.err
    assert site.pending() == set(DATA)
    site.run("file", "upload", "--modalities", "OMOP")
    assert _stored(site) == set(DATA)
    figures.count("files with a secret kept back", len(SECRETS))


def test_an_upload_does_not_send_them(site: Site, figures: Figures) -> None:
    """They were recorded without being read, or before they were secret."""
    site.configure(site.config.read_text().replace("[configuration]", '[configuration]\nfingerprint = "on-upload"'))
    shutil.copy(site.config, site.source / "OMOP/config.toml.bak")
    site.run("journal", "update", "--modalities", "OMOP")

    upload = site.run("--json", "file", "upload", "--modalities", "OMOP", exit_code=3)

    failed = {each["path"]: each["kind"] for each in upload.events("file-failed")}
    assert failed == dict.fromkeys(SECRETS, "holds-secret")
    assert _stored(site) == set(DATA)
    figures.count("files with a secret kept back", len(SECRETS))


def test_remote_upload_does_not_send_them(site: Site, figures: Figures) -> None:
    sent = site.run("remote", "upload", "-r", str(site.source / "OMOP"), "copy/", exit_code=3)

    for path in SECRETS:
        assert f"holds-secret: {path.removeprefix('OMOP/')}" in sent.err
    assert SIGNATURE[:10] not in sent.out + sent.err
    stored = {key.removeprefix("data/copy/") for key in site.cloud.objects() if "copy/" in key}
    assert stored == set(DATA)
    figures.count("files with a secret kept back", len(SECRETS))


def test_a_script_does_not_send_them(tmp_path: Path, site: Site, figures: Figures) -> None:
    """Those for az are written for what lies in Azure only; nothing is sent here."""
    text = site.config.read_text().replace(f'path = "{tmp_path}/cloud/data"', 'path = "az://chorus/data"')
    text = text.replace("[configuration]", '[configuration]\nfingerprint = "on-upload"')
    site.configure(f'{text}[central_path.auth]\nazure_account_name = "chorus"\nazure_sas_token = "{TOKEN}"\n')
    shutil.copy(site.config, site.source / "OMOP/config.toml.bak")
    site.run("journal", "update", "--modalities", "OMOP")
    script = tmp_path / "upload.sh"

    written = site.run(
        "file", "list", "--modalities", "OMOP", "--output-type", "azcli", "--output-file", str(script), exit_code=3
    )

    for path in SECRETS:
        assert f"holds-secret: {path}" in written.err
        assert path not in script.read_text()
    assert "OMOP/person.csv" in script.read_text()
    figures.count("files with a secret kept back", len(SECRETS))


def test_a_member_of_an_archive_is_not_sent(tmp_path: Path, figures: Figures) -> None:
    archive = tmp_path / "set.tar"
    archive.write_bytes(tar(members_of({"OMOP/notes.txt": f"?{TOKEN}", "OMOP/person.csv": "1"})))
    more = (
        '[site_path.Images]\npath = "az://elsewhere/images"\n'
        f'[site_path.Images.auth]\nazure_account_name = "chorus"\nazure_sas_token = "{TOKEN}"\n'
    )
    site = settle(tmp_path / "home", Path(f"tar://::{archive}"), new_disk(tmp_path / "cloud"), more=more)
    site.configure(site.config.read_text().replace("tar:/::", "tar://::"))
    site.run("journal", "update", "--modalities", "OMOP")

    assert "holds-secret: OMOP/notes.txt" in site.run("file", "upload", "--modalities", "OMOP", exit_code=3).err
    assert _stored(site) == {"OMOP/person.csv"}
    figures.count("files with a secret kept back")


def test_what_lies_beside_the_configuration_with_its_name(tmp_path: Path, figures: Figures) -> None:
    """Somebody works in the directory of the data, and has kept former configurations, whose tokens may be good yet."""
    data = build(
        tmp_path / "data", {"OMOP/person.csv": "1", "OMOP/config.tomlx": "2", "OMOP/config.toml.template": "3"}
    )
    site = settle(data / "OMOP", data, new_disk(tmp_path / "cloud"))
    former = {f"OMOP/{name}" for name in ("config.toml.bak", "config.toml~", "config.toml-2024", ".config.toml.swp")}
    build(data, dict.fromkeys(former, "azure_sas_token = 'another'"))

    update = site.run("--json", "journal", "update", exit_code=3)

    told = {each["problem"]["path"] for each in update.events("problem-found")}
    assert former <= told
    site.run("file", "upload")
    assert _stored(site) == {"OMOP/person.csv", "OMOP/config.tomlx", "OMOP/config.toml.template"}
    refused = site.run("remote", "upload", str(data / "OMOP/config.toml~"), "copy/", exit_code=2)
    assert "it is not sent" in refused.err
    figures.count("files with a secret kept back", len(former))
