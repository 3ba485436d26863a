"""SIGKILL at any step of any command that holds the journal: what follows leads to where it would have led without.

Here every so-manieth step has its turn, which ones follows from `CHORUS_SEED`; with `CHORUS_EVERY_STEP=1` in the
environment all of them.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import new_disk
from tests.e2e.mortal_program import KILLED, Program, steps_to_try
from tests.e2e.two_versions import (
    BOTH_STORIES,
    about_to_type,
    as_recorded,
    goes_on,
    require_same,
    restore,
    state_of,
    typed,
)
from tests.faults.figures import THOROUGH, Figures
from tests.randomness import SEED

EVERY = 1 if THOROUGH else 32


@pytest.mark.timeout(1_200)
@BOTH_STORIES
def test_a_kill_before_every_step(story: tuple[str, ...], program: Program, in_memory: Path, figures: Figures) -> None:
    root = in_memory / "site"
    site = about_to_type(story, root, new_disk(root / "cloud"), program)
    begun = shutil.copytree(root, in_memory / "begun")
    for command in story:
        typed(program, site, command)
    expected = state_of(site, evidence="readback")

    wrong, killed = [], 0
    for number, command in enumerate(story):
        restore(root, begun)
        before = shutil.copytree(root, in_memory / f"before-{number}")
        steps = program.run(*shlex.split(command), home=site.home).steps
        begun = shutil.copytree(root, in_memory / f"after-{number}")
        for step in steps_to_try(steps, every=EVERY, offset=SEED):
            for giving_back in {(step + SEED) % 2 == 0} if EVERY > 1 else (False, True):
                restore(root, before)
                ended = program.run(*shlex.split(command), home=site.home, die_before=step)
                if ended.exit_code == 0:
                    # A few steps depend on the clock: this time it had fewer of them.
                    assert ended.steps < step
                    continue
                assert ended.exit_code == KILLED
                killed += 1
                figures.count("kills")
                recorded = as_recorded(site)
                try:
                    goes_on(program, site, story[number:], giving_back=giving_back)
                    require_same(state_of(site, evidence="readback"), expected)
                    assert as_recorded(site).items() >= recorded.items()
                except AssertionError as error:
                    wrong.append(f"{command}, before step {step} of {steps}, {giving_back=}: {error}")
    assert wrong == []
    assert killed > 3
