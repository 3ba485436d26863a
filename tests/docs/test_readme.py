"""The first thing that a newcomer reads is short, and true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from tests.docs import shell, sites
from tests.docs.markdown import ROOT, Block, read, section, sections
from tests.docs.shell import Step
from tests.emulators import Azurite

README = read("README.md")
QUESTIONS = [
    "What it is, and for whom",
    "Why trust it",
    "Try it",
    "Install",
    "Configure",
    "Every day",
    "What it does not do",
    "How it compares",
    "Read on",
    "Contributing",
    "Licence",
]


def blocks_of(*titles: str) -> list[Block]:
    return [block for title in titles for block in section(README, title).blocks]


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200


def test_it_answers_questions_in_the_order_in_which_they_come_up() -> None:
    assert [each.title for each in sections(README)][1:] == QUESTIONS


def build_site(home: Path) -> None:
    program = str(ROOT / "scripts" / "demo_site.py")
    subprocess.run([sys.executable, program, home / "hospital", "--patients", "2"], check=True, capture_output=True)
    (home / "config.toml.template").write_text(read("config.toml.template"), encoding="utf-8")


@pytest.fixture(params=["directory", pytest.param("azure", marks=pytest.mark.thorough)])
def fill_in(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], None]:
    """What somebody does between the template and the first command."""
    if request.param == "directory":
        return lambda: sites.local_site(tmp_path)
    azurite: Azurite = request.getfixturevalue("azurite")
    container: str = request.getfixturevalue("azure_container")
    return lambda: sites.azurite_site(tmp_path, azurite, container)


def test_every_command_does_what_is_said_of_it(fill_in: Callable[[], None], tmp_path: Path) -> None:
    build_site(tmp_path)
    blocks = blocks_of("Install", "Configure", "Every day")
    programs = [block for block in blocks if block.language == "bash" and not block.marker]
    installed, template, check, *daily = programs
    (shown,) = (block for block in blocks if block.language == "text")

    said = shell.run([shell.step_of(block) for block in (installed, template)], cwd=tmp_path)
    assert said[0].startswith("chorus-upload ")
    fill_in()
    assert (tmp_path / "config.toml").stat().st_mode & 0o777 == 0o600
    said = shell.run([shell.step_of(block) for block in (check, *daily)], cwd=tmp_path)

    assert "error" not in said[0]
    assert shell.missing_lines(shown.text, said[1]) == []
    assert "0 files, 0 B to upload" in said[2]
    assert "Every file of it is there" in said[2]


def test_every_block_is_run_or_says_why_not() -> None:
    for each in sections(README):
        for block in each.blocks:
            run_above = each.title in ("Install", "Configure", "Every day")
            assert block.language in ("bash", "text", "toml")
            assert block.language != "bash" or run_above or block.marker.startswith("not run, it ")


def test_the_blocks_that_install_name_what_is_there() -> None:
    (try_it,) = blocks_of("Try it")
    install = blocks_of("Install")[0]
    for block in (try_it, install):
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)

    lines = [shlex.split(line, comments=True) for line in try_it.text.splitlines()]
    assert lines[0] == ["git", "clone", "$REPOSITORY", "chorus-upload", "&&", "cd", "chorus-upload"]
    for program in (words[0] for words in lines[1:]):
        assert os.access(ROOT / program, os.X_OK), program
    for option in re.findall(r"#.*(--\w+)", try_it.text):
        assert f"{option})" in read("scripts/demo")

    # The environment that is made is the one that is used, and what is installed is this checkout.
    made = {word for word in shlex.split(install.text) if ".chorus-upload" in word}
    assert {word.partition(".chorus-upload")[2] for word in made} == {"", "/bin/pip", "/bin:$PATH"}
    assert "/bin/pip install .\n" in install.text
    assert (ROOT / "pyproject.toml").exists()


def test_the_other_ways_to_start_are_the_same_program(tmp_path: Path) -> None:
    ways = re.findall(r"`python ([^`]*)`", section(README, "Install").text)

    assert len(ways) == 2
    said = shell.run(
        [Step(f"cd {shlex.quote(str(ROOT))}"), *(Step(f"python {way} --version") for way in ways)], cwd=tmp_path
    )
    assert said[1] == said[2] != ""


def test_the_configuration_loads(tmp_path: Path) -> None:
    (example,) = (block for block in blocks_of("Configure") if block.language == "toml")
    sites.configure(tmp_path, example.text)

    named = dict.fromkeys(re.findall(r"`(CHORUS_UPLOAD_\w+)`", README), "sv=2024-11-04&sp=racwdl&sig=abcd")
    assert len(named) == 2
    assert load(tmp_path / "config.toml", environ={}).warnings == ()
    settings = load(tmp_path / "config.toml", environ=named)

    assert settings.warnings == ()
    for location in (settings.journal.cloud, settings.central.location):
        assert location.auth.azure_sas_token is not None
