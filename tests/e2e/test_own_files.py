"""What is the program's own or holds credentials may lie anywhere, in a source too: it is never sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.clouds import Disk, files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.trees import Link, build, contents

DATA = {"OMOP/person.csv": "1", "OMOP/journal.db.csv": "2", "OMOP/deep/config.toml": "3"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Somebody works in the directory of the data: the configuration, the journals and the store are all in there."""
    data = build(tmp_path / "data", DATA)
    site = settle(
        data / "OMOP",
        data,
        new_disk(data / "OMOP" / "cloud"),
        more='[site_path.OMOP]\npattern = "OMOP/{filepath}"\n[site_path.Images]\npath = "gs://elsewhere/images"\n'
        f'[site_path.Images.auth]\ngoogle_token_file = "{data}/OMOP/token.txt"\n',
    )
    build(data / "OMOP", {"token.txt": "ya29.secret", "a-link.txt": Link("token.txt"), "journal.db.sessions": "https"})
    return site


def stored(site: Site) -> set[str]:
    return {key.partition("/")[2] for key in files_of(site.cloud.objects())}


def test_an_update_leaves_them_out_and_says_so(site: Site) -> None:
    ran = site.run("--json", "journal", "update", "--version", "spring", "--modalities", "OMOP")

    told = {problem["path"] for event in ran.events("problem-found") for problem in [event["problem"]]}
    names = {"config.toml", "token.txt", "a-link.txt", "journal.db", "cloud/journal/journal.db", "cloud/data"}
    assert told == {f"OMOP/{name}" for name in names}
    site.run("file", "upload", "--modalities", "OMOP")
    assert stored(site) == set(DATA)


def test_what_was_recorded_before_is_not_sent_either(site: Site) -> None:
    """The file became one that holds credentials after it was recorded."""
    (site.source / "OMOP" / "key.json").write_text("{}")
    site.run("journal", "update", "--version", "spring", "--modalities", "OMOP")
    (site.source / "OMOP" / "key.json").write_text(json.dumps({"type": "service_account"}))
    site.configure(site.config.read_text().replace("token.txt", "key.json"))
    ran = site.run("file", "upload", "--modalities", "OMOP", exit_code=3)

    assert "OMOP/key.json" in ran.out + ran.err
    assert stored(site) == set(DATA)
    site.run("journal", "update", "--version", "summer", "--modalities", "OMOP", "--confirm-deletions")
    assert "OMOP/key.json" not in site.pending()


def test_remote_upload_leaves_them_out_of_directories(tmp_path: Path, site: Site) -> None:
    for named in ("OMOP/config.toml", "OMOP/token.txt", "OMOP/a-link.txt", "OMOP/journal.db.sessions"):
        ran = site.run("remote", "upload", str(site.source / named), exit_code=2)
        assert "it is not sent" in ran.err
    (tmp_path / "elsewhere").mkdir()
    os.link(site.home / "token.txt", site.home / "hard-link.txt")
    ran = site.run("remote", "upload", "-r", str(site.source / "OMOP"), "--to", "copy", exit_code=3)

    assert "left out: token.txt (own-file)" in ran.err
    assert isinstance(site.cloud, Disk)
    sent = {key.removeprefix("copy/OMOP/") for key in contents(site.cloud.root / "data") if key.startswith("copy/")}
    assert sent == {path.removeprefix("OMOP/") for path in DATA}
    assert b"ya29.secret" not in b"".join(contents(site.cloud.root).values())


def test_a_source_that_is_the_central_store_is_refused(tmp_path: Path) -> None:
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", disk.root / "data", disk)
    ran = site.run("journal", "update", exit_code=2)

    assert "is the central store" in ran.err
