"""Whoever types what docs/verify.md shows sees what it says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from chorus_upload.cli.render.reports import verdict
from chorus_upload.events import VerifyResult
from chorus_upload.operations.sampling import Sample
from tests.docs import shell
from tests.docs.markdown import read, section
from tests.docs.test_recovery import VERSION, uploaded_site

VERIFY = read("docs/verify.md")
LOST = f"rm central/data/{VERSION}/OMOP/person.csv"


@pytest.mark.parametrize(
    ("title", "before"),
    [("How deep", ""), ("The report", ""), ("Sending again", LOST), ("How the sample is chosen", "")],
)
def test_what_is_typed(title: str, before: str, tmp_path: Path) -> None:
    uploaded_site(tmp_path)
    blocks = section(VERIFY, title).blocks
    steps = [shell.step_of(block, before=before) for block in blocks if block.language == "bash"]

    said = iter(shell.run(steps, cwd=tmp_path))

    output = ""
    for block in blocks:
        output = next(said) if block.language == "bash" else output
        if block.language == "text":
            assert shell.missing_lines(block.text, output) == [], output


def test_every_result_is_explained() -> None:
    explained = {row[1].strip("`"): row[0] for row in section(VERIFY, "What it finds").rows()}

    assert explained == {result.value: verdict(result) for result in VerifyResult}


def test_the_draw_is_as_described() -> None:
    (block,) = section(VERIFY, "How the sample is chosen").blocks
    text = block.text.split("'")[1]
    seed, _, key = text.partition(" ")

    assert hashlib.sha256(text.encode()).hexdigest()[:16] == f"{Sample.parse('1%', seed=int(seed)).draw(key):016x}"
