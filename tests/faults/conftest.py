"""What all attacks share: how thorough they are today, and the figures they leave.

`scripts/test --faults` runs all of them thoroughly and ends with their figures; an ordinary run of the tests takes a
small sample. `docs/reliability.md` says what is promised, and which attack is on which promise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.e2e.conftest import azure_site, container, disk, end, in_memory, site, wire
from tests.e2e.mortal_program import Program, running_program
from tests.e2e.site import quick_program
from tests.faults.figures import Figures, as_table
from tests.faults.services import Services

__all__ = ["azure_site", "container", "disk", "end", "figures", "in_memory", "site", "wire"]

_PROPERTY = "figures"


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What a test counts here stands in the report; a test that counted nothing has attacked nothing, and fails."""
    figures = Figures()
    request.node.user_properties.append((_PROPERTY, figures.counted))
    yield figures
    assert figures.counted, "no figure was counted"


@pytest.fixture(scope="session")
def program() -> Program:
    """The program, as often as one likes."""
    return quick_program()


@pytest.fixture(scope="session")
def hasty_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program in a hurry."""
    with pytest.MonkeyPatch.context() as environment:
        # What it keeps for the length of a command, apart from that of whoever else works on this machine.
        environment.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        with running_program(module="tests.faults.hasty_program") as program:
            yield program


@pytest.fixture
def services(request: pytest.FixtureRequest, tmp_path: Path) -> Services:
    """Services to be attacked."""
    file = tmp_path / "token.txt"
    file.touch(mode=0o600)
    file.write_text("ya29.a-token-of-the-tests\n")
    return Services(request.getfixturevalue, file)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say the figures of all attacks that were held off, and keep them where `CHORUS_FAULT_FIGURES` says."""
    total: dict[str, Figures] = {}
    for report in terminalreporter.stats.get("passed", ()):
        for name, counted in report.user_properties:
            if name == _PROPERTY and report.when == "call":
                # The cases of one test are one attack.
                total.setdefault(report.nodeid.partition("[")[0], Figures()).add(counted)
    if total:
        terminalreporter.section("attacks held off")
        terminalreporter.write_line(as_table(total))
    if path := os.environ.get("CHORUS_FAULT_FIGURES"):
        Path(path).write_text(json.dumps({test: asdict(figures) for test, figures in total.items()}, indent=1))
