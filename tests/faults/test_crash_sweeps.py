"""SIGKILL before every step of the other commands that change something; `test_sigkill.py` has update and upload.

Here some of the commands and every so-manieth step have their turn, which ones follows from `CHORUS_SEED`; with
`CHORUS_EVERY_STEP=1` in the environment all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import new_disk
from tests.e2e.mortal_program import Program
from tests.faults.figures import THOROUGH, Figures
from tests.faults.stories import STORIES
from tests.faults.sweeping import Story, sweep
from tests.randomness import SEED


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("story", STORIES if THOROUGH else STORIES[SEED % 3 :: 3])
def test_a_kill_before_every_step(story: Story, program: Program, in_memory: Path, figures: Figures) -> None:
    root = in_memory / "site"
    every = 1 if THOROUGH else 40
    sweep(story, root, new_disk(root / "cloud"), program, every=every, offset=SEED, figures=figures)
