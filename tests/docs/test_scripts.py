"""Whoever types what docs/scripts.md shows sees what it says, with Microsoft's own az and azcopy."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs import shell, sites
from tests.docs.markdown import read, section
from tests.emulators import Azurite, real
from tests.trees import build

SCRIPTS = read("docs/scripts.md")
TREE = {
    "OMOP/person.csv": "person_id\n1\n",
    "OMOP/death.csv": "person_id\n",
    "1001/Images/scan.dcm": "DICM",
}
UPDATE = "chorus-upload journal update --version 20260301120000"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    build(tmp_path / "hospital", TREE)
    return tmp_path


def typed(title: str, home: Path, azurite: Azurite, *, before: str) -> None:
    """Type the blocks of a section, one after the other, at a site in Azure."""
    container = azurite.create_container()
    token = azurite.sas(container)
    sites.azure_site(home, url=azurite.account_url, container=container, sas=token)
    blocks = section(SCRIPTS, title).blocks
    steps = [shell.Step(before)]
    for block in blocks:
        if block.language == "bash":
            step = shell.step_of(block)
            steps.append(
                shell.Step(step.script.replace("/media/disk/hospital", str(home / "hospital")), step.exit_code)
            )
    path = os.pathsep.join(
        [str(home / ".programs"), str(real("az").parent), str(real("azcopy").parent), os.environ["PATH"]]
    )
    said = iter(shell.run(steps, cwd=home, environment={"PATH": path, "TOKEN": token, "HOME": str(home)})[1:])
    output = ""
    for block in blocks:
        output = next(said) if block.language == "bash" else output
        if block.language == "text":
            assert shell.missing_lines(block.text, output) == [], output
        assert token.partition("sig=")[2] not in output


def test_on_this_machine(home: Path, azurite: Azurite) -> None:
    typed("On this machine", home, azurite, before=UPDATE)


@pytest.mark.thorough
def test_on_another_machine(home: Path, azurite: Azurite) -> None:
    typed(
        "On a machine without chorus-upload",
        home,
        azurite,
        before=f'{UPDATE}; export AZURE_STORAGE_SAS_TOKEN="$TOKEN"',
    )


def test_large_numbers(home: Path, azurite: Azurite) -> None:
    typed("Large numbers", home, azurite, before=f"{UPDATE}; chorus-upload file upload")


def test_the_exit_codes_are_those_in_the_scripts() -> None:
    told = {row[0] for row in section(SCRIPTS, "What a script does").rows() if row[0][0].isdigit()}
    for name in ("upload.sh",):
        program = (Path(__file__).parents[2] / "chorus_upload" / "scripting" / "programs" / name).read_text()
        numbers = set(re.findall(r"\bfail (\d+)\b", program)) | {"3", "129", "130", "143"}
        assert numbers <= {number for each in told for number in each.split(", ")}
