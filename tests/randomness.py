"""The seed of all that tests draw: fixed, so that each run of them is the same one.

`CHORUS_SEED` names another. `scripts/test --thorough` and `--faults` draw one and print it; where a test fails, that
number in the environment repeats what it drew.
"""

from __future__ import annotations

import os

from hypothesis import settings

_GIVEN = os.environ.get("CHORUS_SEED")

SEED = int(_GIVEN or 0)

# Without a deadline for each example: on a loaded machine any of them may take long.
settings.register_profile("fixed", derandomize=True, deadline=None)
# The seed itself comes by pytest's option `--hypothesis-seed`, which scripts/test sets to CHORUS_SEED.
settings.register_profile("drawn", print_blob=True, deadline=None)


def load_profile() -> None:
    """Set up Hypothesis; to be called before modules with properties are imported, whose settings build on it."""
    settings.load_profile("drawn" if _GIVEN else "fixed")


def examples(number: int) -> int:
    """So many examples of a property in a thorough run, a third of them in an ordinary one."""
    return number if os.environ.get("CHORUS_EVERY_STEP") else -(-number // 3)
