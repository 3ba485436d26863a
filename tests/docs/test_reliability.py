"""docs/reliability.md names every attack, and has figures of each."""

from __future__ import annotations

import re

from tests.docs.markdown import ROOT, read, section
from tests.faults.figures import from_table

DOCUMENT = read("docs/reliability.md")
FAULTS = ROOT / "tests" / "faults"
# What is no attack: it tests the report.
ATTACKS = {path.name for path in FAULTS.glob("test_*.py")} - {"test_figures.py"}


def test_every_attack_is_on_a_promise() -> None:
    named = {
        name for _, attacks in section(DOCUMENT, "The promises").rows() for name in re.findall(r"`(\S+\.py)`", attacks)
    }

    assert named == ATTACKS


def test_every_attack_has_figures_and_all_figures_are_of_attacks() -> None:
    attacked = set(from_table(section(DOCUMENT, "Figures").text))
    tests = {
        f"tests/faults/{name}::{test}"
        for name in ATTACKS
        for test in re.findall(r"^def (test_\w+)", (FAULTS / name).read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert attacked <= tests
    assert {test.removeprefix("tests/faults/").partition("::")[0] for test in attacked} == ATTACKS
