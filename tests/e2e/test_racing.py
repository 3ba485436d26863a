"""Three machines want the journal at the same moment, again and again. `scripts/race` does it some hundred times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clouds import Cloud, Container
from tests.e2e.conftest import new_disk, settle
from tests.e2e.racing import race
from tests.e2e.site import Site
from tests.trees import build

ROUNDS = 3
RACERS = 3


def racers(root: Path, cloud: Cloud) -> list[Site]:
    source = build(root / "source", {"OMOP/person.csv": "person_id\n1\n"})
    return [settle(root / f"home-{number}", source, cloud) for number in range(RACERS)]


@pytest.mark.thorough
def test_three_processes_race_for_a_journal_on_a_disk(tmp_path: Path) -> None:
    rounds = race(racers(tmp_path, new_disk(tmp_path / "cloud")), rounds=ROUNDS)

    assert [each for each in rounds if not each.is_good] == []


@pytest.mark.timeout(240)
def test_three_processes_race_for_a_journal_in_azure(tmp_path: Path, container: Container) -> None:
    rounds = race(racers(tmp_path, container), rounds=ROUNDS)

    assert [each for each in rounds if not each.is_good] == []
