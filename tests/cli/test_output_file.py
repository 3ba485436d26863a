"""`--output-file` and `--report` replace what this program wrote, and nothing else."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from tests.cli.conftest import Prepared
from tests.cli.test_commands import Site, configured, site, typed_at, unheard, with_files

__all__ = ["site"]

OUTPUTS = {
    "file list --output-file": "list.txt",
    "file list --json --output-file": "list.jsonl",
    "file list --null --output-file": "list.bin",
    "file verify --report": "report.csv",
    "file verify --deep --report": "report.jsonl",
    "journal diff v1 v2 --output-file": "diff.csv",
    "journal diff v2 v1 --output-file": "diff.json",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A site with a delivered version, and one that is still to be sent."""
    root = with_files(configured(tmp_path_factory.mktemp("prepared") / "it"))
    made = unheard(root)
    with chdir(root):
        assert made.type("journal", "update", "--version", "v1").code == 0
        assert made.type("file", "upload").code == 0
        made.write("OMOP/note.csv", "note_id\n")
        assert made.type("journal", "update", "--version", "v2").code == 0
    return Prepared.from_now_on(root)


@pytest.fixture
def delivered(prepared: Prepared, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(prepared.restore())
    return typed_at(prepared.root, capfd)


@pytest.mark.parametrize("command", OUTPUTS)
def test_what_the_program_wrote_is_written_again(delivered: Site, command: str) -> None:
    target = delivered.root / OUTPUTS[command]
    assert delivered.type(*command.split(), str(target)).code == 0
    first = target.read_bytes()
    assert first

    assert delivered.type(*command.split(), str(target)).code == 0
    # What several threads read comes in any order.
    assert sorted(target.read_bytes().splitlines()) == sorted(first.splitlines())


@pytest.mark.parametrize("command", OUTPUTS)
def test_what_somebody_else_wrote_is_kept_unless_that_is_wanted(delivered: Site, command: str) -> None:
    target = delivered.root / OUTPUTS[command]
    target.write_text("My notes on the study\n", encoding="utf-8")

    refused = delivered.type(*command.split(), str(target))
    said = refused.out + refused.err
    assert (refused.code, "exists, and is nothing that this program wrote" in said) == (2, True)
    assert "--force" in said
    assert target.read_text(encoding="utf-8") == "My notes on the study\n"

    assert delivered.type(*command.split(), str(target), "--force").code == 0
    assert "My notes" not in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "config.toml",
        "journal.db",
        "cloud/journal.db",
        "site/OMOP/person.csv",
        "site/OMOP/../OMOP/person.csv",
        "central/v1/OMOP/person.csv",
        "central/v1/new.csv",
        "link.csv",
        "site/OMOP/new.csv",
        "/dev/null",
    ],
)
def test_what_is_ours_a_sources_or_a_stores_is_never_replaced(delivered: Site, path: str) -> None:
    (delivered.root / "link.csv").symlink_to(delivered.root / "site/OMOP/person.csv")
    target = delivered.root / path
    before = target.read_bytes() if target.is_file() else None

    for command in ("file list --force --output-file", "config template"):
        refused = delivered.type(*command.split(), str(target))
        assert refused.code == 2, refused.err
    assert (target.read_bytes() if target.is_file() else None) == before
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("text", ["My notes on the study\n", "OMOP/notes.txt\n", b"\xff\xfe\n", '{"event": "mine"}\n'])
def test_any_text_fits_some_patterns_and_is_no_list(delivered: Site, text: str | bytes) -> None:
    with (delivered.root / "config.toml").open("a", encoding="utf-8") as configuration:
        configuration.write('[site_path.OMOP]\npattern = "{filepath}"\n')
    target = delivered.root / "list.txt"
    before = text.encode() if isinstance(text, str) else text
    target.write_bytes(before)

    assert delivered.type("file", "list", "--output-file", str(target)).code == 2

    assert target.read_bytes() == before


def test_a_list_of_the_older_tool_is_replaced(delivered: Site) -> None:
    target = delivered.root / "list.txt"
    target.write_text(f"{delivered.root.as_posix()}/site/OMOP/person.csv\n", encoding="utf-8")

    assert delivered.type("file", "list", "--output-file", str(target)).code == 0

    assert target.read_text(encoding="utf-8") == "OMOP/note.csv\n"


OLDER_SCRIPTS = {
    "upload.sh": "#!/bin/bash\n# script to upload files to azure for upload date 20250312101500\n\n# set environment\n",
    "upload.bat": "@echo off\nsetlocal\n@REM script to upload files to azure for upload date 20250312101500\n\n",
}


@pytest.mark.parametrize("name", OLDER_SCRIPTS)
@pytest.mark.parametrize("is_theirs", [True, False])
def test_a_script_of_the_older_tool_is_replaced_and_no_other(site: Site, name: str, is_theirs: bool) -> None:  # noqa: FBT001
    """A nightly job would run the old one."""
    configuration = site.root / "config.toml"
    central = 'path = "az://site-a"\nazure_account_name = "central"\nazure_sas_token = "sv=1&sp=racwdl&sig=S"'
    configuration.write_text(
        configuration.read_text(encoding="utf-8").replace(f'path = "{site.root.as_posix()}/central"', central),
        encoding="utf-8",
    )
    assert site.type("journal", "update").code == 0
    target = site.root / name
    older = OLDER_SCRIPTS[name] if is_theirs else OLDER_SCRIPTS[name].replace("for upload date", "of mine,")
    target.write_text(older, encoding="utf-8", newline="\r\n" if name.endswith(".bat") else "\n")

    written = site.type("file", "list", "--output-type", "azcli", "--output-file", str(target))

    assert written.code == (0 if is_theirs else 2), written.err
    assert ("script to upload files to azure" in target.read_text(encoding="utf-8")) is not is_theirs
