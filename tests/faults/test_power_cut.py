"""The power fails: nothing is there afterwards but what was asked to be kept, and still nothing is lost.

Here every so-manieth moment has its turn; with `CHORUS_EVERY_STEP=1` in the environment all of them. The machine, its
sources and the directory that stands for the cloud are all on the disk that loses its power.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clouds import CENTRAL, JOURNAL, ask, fetched
from tests.e2e.conftest import new_disk
from tests.e2e.mortal_program import Program
from tests.e2e.site import Site
from tests.e2e.two_versions import (
    BOTH_STORIES,
    SPRING,
    about_to_type,
    goes_on,
    require_same,
    restore,
    settled,
    state_of,
    typed,
)
from tests.faults.figures import THOROUGH, Figures
from tests.faults.power import Plug, is_recordable, record
from tests.randomness import SEED
from tests.trees import contents

EVERY = 1 if THOROUGH else 40


@pytest.fixture(autouse=True)
def strace() -> None:
    if not is_recordable():
        assert not THOROUGH, "this machine has no strace that works, or does not let us use it"
        pytest.skip("this machine has no strace that works, or does not let us use it")


def power_cuts(root: Path, command: str, *, home: Path, log: Path) -> Iterator[str]:
    """Let a command happen, then the power fail at every moment of it: each time `root` is what was left."""
    before = shutil.copytree(root, root.with_name("as-it-was"), symlinks=True)
    exit_code, calls = record(shlex.split(command), home=home, log=log)
    assert exit_code == 0, command
    after, number = shutil.copytree(root, root.with_name("as-it-became"), symlinks=True), 0
    restore(root, before)
    plug, seen = Plug(root), set[int]()
    for call in calls:
        if not plug.replay(call):
            continue
        number += 1
        if number % EVERY == SEED % EVERY:
            for names_are_kept in (False, True):
                looks = plug.looks(names_are_kept=names_are_kept)
                if looks in seen:
                    continue
                seen.add(looks)
                plug.write_down(root, names_are_kept=names_are_kept)
                kept = "names are kept" if names_are_kept else "only what was asked for is kept"
                yield f"{command}, call {number} ({call.name} {call.paths[-1].relative_to(root)}), {kept}"
    restore(root, after)
    shutil.rmtree(before)
    shutil.rmtree(after)


def require_delivered(site: Site) -> int:
    """All that a journal calls delivered is in the store; gives how much that is."""
    stored = site.cloud.objects()
    rows = ask(site.journal, _DELIVERED)
    if JOURNAL in stored:
        rows += ask(fetched(site.cloud, site.home.with_name("elsewhere")), _DELIVERED)
    for key, md5 in rows:
        body = stored.get(f"{CENTRAL}/{key}")
        assert body is not None, f"{key} is called delivered, and is not there"
        assert hashlib.md5(body, usedforsecurity=False).digest() == md5, (
            f"{key} is called delivered, and is another one"
        )
    return len(rows)


_DELIVERED = "SELECT key, md5 FROM delivery"


@pytest.mark.timeout(1_500)
@BOTH_STORIES
def test_a_power_cut_is_an_interruption(
    story: tuple[str, ...], program: Program, in_memory: Path, figures: Figures
) -> None:
    """What was called delivered is there, and the same command again leads to where it would have led."""
    root = in_memory / "site"
    site = about_to_type(story, root, new_disk(root / "cloud"), program)
    begun = shutil.copytree(root, in_memory / "begun")
    for command in story:
        typed(program, site, command)
    expected = state_of(site, evidence="readback")
    restore(root, begun)

    wrong = []
    for number, command in enumerate(story):
        for moment in power_cuts(root, command, home=site.home, log=in_memory / "log"):
            figures.count("power cuts")
            try:
                figures.count("deliveries held against the disk", require_delivered(site))
                goes_on(program, site, story[number:], giving_back=False)
                require_same(state_of(site, evidence="readback"), expected)
            except (AssertionError, sqlite3.DatabaseError) as error:
                wrong.append(f"{moment}: {str(error)[:600]}\n{''.join(traceback.format_tb(error.__traceback__)[-2:])}")
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


@pytest.mark.timeout(600)
def test_what_was_brought_back_does_not_pass_for_whole(program: Program, in_memory: Path, figures: Figures) -> None:
    """A download takes a file of the right size and time for the right one: so these must not outlive the content."""
    root = in_memory / "site"
    site = settled(root, new_disk(root / "cloud"), program)
    download = "file download --version spring --to ../target"
    wrong = []
    for moment in power_cuts(root, download, home=site.home, log=in_memory / "log"):
        figures.count("power cuts")
        try:
            typed(program, site, download)
            restored = contents(site.home.with_name("target"))
            assert restored.keys() == SPRING.keys()
            assert all((site.cloud.objects()[f"{CENTRAL}/spring/{path}"]) == body for path, body in restored.items())
        except AssertionError as error:
            wrong.append(f"{moment}: {str(error)[:600]}\n{''.join(traceback.format_tb(error.__traceback__)[-2:])}")
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)
