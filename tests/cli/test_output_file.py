"""`--output-file` and `--report` replace what this program wrote, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_commands import Site, site

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


@pytest.fixture
def delivered(site: Site) -> Site:
    """A site with a delivered version, and one that is still to be sent."""
    site.type("journal", "update", "--version", "v1")
    assert site.type("file", "upload").code == 0
    site.write("OMOP/note.csv", "note_id\n")
    site.type("journal", "update", "--version", "v2")
    return site


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
        "/dev/null",
    ],
)
def test_what_is_ours_a_sources_or_a_stores_is_never_replaced(delivered: Site, path: str) -> None:
    (delivered.root / "link.csv").symlink_to(delivered.root / "site/OMOP/person.csv")
    target = delivered.root / path
    before = target.read_bytes() if target.is_file() else None

    refused = delivered.type("file", "list", "--output-file", str(target), "--force")

    assert refused.code == 2, refused.err
    assert (target.read_bytes() if target.is_file() else None) == before
    assert Path("/dev/null").is_char_device()
