"""Hundreds of kills at random moments of the long life of a site: inside transactions, requests, writes, anywhere.

The seed is said when something fails; CHORUS_SEED in the environment repeats the same life, as far as moments permit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clouds import Container
from tests.e2e.conftest import new_disk
from tests.e2e.mortal_program import Program
from tests.faults.figures import THOROUGH, Figures
from tests.faults.long_life import Life, new_life
from tests.randomness import SEED


def live(life: Life, *, kills: int) -> None:
    """Until so many commands were killed; then all has to end well."""
    while life.kills < kills:
        life.go_on()
    life.end_well()


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize(
    ("number", "is_full", "kills"),
    [
        pytest.param(0, True, 90 if THOROUGH else 5, id="full"),
        pytest.param(1, False, 90 if THOROUGH else 2, id="append"),
        *(pytest.param(2 + n, n % 4 != 0, 90, id=f"another-{n}", marks=pytest.mark.thorough) for n in range(8)),
    ],
)
def test_on_a_disk(number: int, is_full: bool, kills: int, program: Program, in_memory: Path, figures: Figures) -> None:  # noqa: FBT001
    cloud = new_disk(in_memory / "cloud")
    live(
        new_life(in_memory / "site", cloud, program, seed=SEED + number, is_full=is_full, figures=figures), kills=kills
    )


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("number", range(2 if THOROUGH else 1))
def test_at_a_service(number: int, program: Program, container: Container, in_memory: Path, figures: Figures) -> None:
    kills = 50 if THOROUGH else 2
    life = new_life(in_memory / "site", container, program, seed=SEED + 100 + number, is_full=True, figures=figures)
    live(life, kills=kills)
