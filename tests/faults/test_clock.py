"""Clocks that are wrong, that were set, and that jump while a command runs; and files with any time whatever."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chorus_upload.errors import JournalLocked
from tests.e2e.clouds import LOCK, Disk, ask, files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.mortal_program import KILLED, Condition, Ended, Program
from tests.e2e.site import Site
from tests.faults.figures import THOROUGH, Figures
from tests.trees import Bytes, build, contents

HOUR, YEAR = 3_600.0, 365 * 86_400.0
JUMPS = {"an hour back": -HOUR, "an hour on": HOUR, "two years back": -2 * YEAR, "seventy years on": 70 * YEAR}
SOME = [pytest.param(name, marks=[] if name == "two years back" else pytest.mark.thorough, id=name) for name in JUMPS]


def clock(ahead: float, *, jump: float = 0.0, after: int = 1_000_000) -> Condition:
    return Condition("tests.faults.conditions:clock", {"ahead": ahead, "jump": jump, "after": after})


def run(
    program: Program, site: Site, *arguments: str, ahead: float = 0.0, at: Condition | None = None, code: int = 0
) -> Ended:
    ended = program.run(*arguments, home=site.home, under=(at or clock(ahead),))
    assert ended.exit_code == code, ended
    assert "unexpected" not in ended.err
    return ended


@pytest.fixture
def site(in_memory: Path) -> Site:
    return settle(in_memory / "home", in_memory / "source", new_disk(in_memory / "cloud"), threads=1)


def backups(site: Site) -> list[bytes]:
    """The backups of the journal, by their contents."""
    assert isinstance(site.cloud, Disk)
    return [body for key, body in contents(site.cloud.root).items() if key.endswith(".backup")]


@pytest.mark.parametrize("jump", SOME)
def test_the_clock_was_wrong_between_two_commands(jump: str, program: Program, site: Site, figures: Figures) -> None:
    """Versions keep their order, each can be brought back, and the newest journal is among the backups."""
    trees = []
    for number, ahead in enumerate((0.0, JUMPS[jump], 0.0, JUMPS[jump], 0.0)):
        build(site.source, {"1001/Images/scan.dcm": Bytes(100, edition=number), f"OMOP/{number}.csv": str(number)})
        if number == 3:
            (site.source / "OMOP/0.csv").unlink()
        run(program, site, "journal", "update", "--confirm-deletions", ahead=ahead)
        run(program, site, "file", "upload", ahead=ahead)
        assert site.cloud.objects()["journal/journal.db"] in backups(site)
        assert len(backups(site)) <= 3
        trees.append(contents(site.source))
        figures.count("clocks set")
    versions = [label for (label,) in ask(site.journal, "SELECT label FROM version ORDER BY id")]
    assert len(set(versions)) == len(trees)
    for label, tree in zip(versions, trees, strict=True):
        target = site.home / f"at-{label}"
        run(program, site, "file", "download", "--version", label, "--to", str(target), ahead=JUMPS[jump])
        assert contents(target) == tree, label
    run(program, site, "file", "verify", "--deep", ahead=JUMPS[jump])
    listed = json.loads(run(program, site, "--json", "journal", "list", ahead=0.0).out.splitlines()[-1])
    assert listed
    # `--amend` adds to what was recorded last, whatever its clock said.
    build(site.source, {"OMOP/late.csv": "late"})
    run(program, site, "journal", "update", "--amend")
    (added_to,) = ask(
        site.journal, "SELECT v.label FROM file f JOIN version v ON v.id = f.introduced_by WHERE f.name = 'late.csv'"
    )[0]
    assert added_to == versions[-1]


@pytest.mark.parametrize("jump", SOME)
def test_the_clock_jumps_during_a_command(jump: str, program: Program, site: Site, figures: Figures) -> None:
    for number, after in enumerate((1, 3, 6, 10, 20) if THOROUGH else (2, 6)):
        build(site.source, {"1001/Images/scan.dcm": Bytes(100, edition=number), f"OMOP/{number}.csv": str(number)})
        jumping = clock(0.0, jump=JUMPS[jump], after=after)
        run(program, site, "journal", "update", at=jumping)
        run(program, site, "file", "upload", at=jumping)
        assert LOCK not in site.cloud.objects()
        figures.count("jumps of a clock", 2)
    run(program, site, "journal", "update")
    run(program, site, "file", "upload")
    run(program, site, "file", "verify", "--deep")
    run(program, site, "journal", "check")
    newest = {key.partition("/")[2]: body for key, body in sorted(files_of(site.cloud.objects()).items())}
    assert newest.keys() == contents(site.source).keys()
    target = site.home / "back"
    run(program, site, "file", "download", "--to", str(target))
    assert contents(target) == contents(site.source)


def test_a_lock_outlives_every_clock(program: Program, site: Site, figures: Figures) -> None:
    """Nobody gets a journal because of what a clock says."""
    build(site.source, {"OMOP/person.csv": "1"})
    run(program, site, "journal", "update")
    run(program, site, "journal", "checkout")
    other = settle(site.home.with_name("other"), site.source, site.cloud)
    for ahead in JUMPS.values():
        refused = run(program, other, "journal", "update", ahead=ahead, code=JournalLocked.exit_code)
        assert "holds it" in refused.err
        figures.count("attempts by wrong clocks")
    run(program, site, "journal", "checkin", ahead=-5 * HOUR)
    run(program, other, "file", "upload")


def test_a_fresh_lock_of_a_slow_clock_is_not_stale(program: Program, azure_site: Site, figures: Figures) -> None:
    """Its holder says that it was renewed five hours ago; the service knows that this was just now."""
    site = azure_site
    build(site.source, {"OMOP/person.csv": "1"})
    step = 0
    while LOCK not in site.cloud.objects():
        step += 4
        killed = program.run("journal", "update", home=site.home, die_before=step, under=(clock(-5 * HOUR),))
        assert killed.exit_code == KILLED
    other = settle(site.home.with_name("other"), site.source, site.cloud)

    refused = run(program, other, "journal", "update", code=JournalLocked.exit_code)

    assert "holds it since" in refused.err
    assert "stale" not in refused.err
    assert "stale" in run(program, other, "journal", "update", ahead=2 * HOUR, code=JournalLocked.exit_code).err
    figures.count("locks of a slow clock")
    run(program, site, "journal", "update")
    run(program, other, "file", "upload")


TIMES = {
    "1970": 0,
    "before 1970": -1,
    "of 1901": -2_177_452_800 * 10**9,
    "with nanoseconds": 1_700_000_000_123_456_789,
    "of the future": 4_000_000_000 * 10**9 + 1,
    "of 2500": 16_725_225_600 * 10**9,
    "of 12000": 316_516_204_800 * 10**9,
}


def test_files_of_any_time(program: Program, site: Site, figures: Figures) -> None:
    build(site.source, {f"OMOP/{name}.csv": name for name in TIMES})
    for name, moment in TIMES.items():
        try:
            os.utime(site.source / f"OMOP/{name}.csv", ns=(0, moment))
        except OverflowError:
            # Nor can Python bring it about; `touch` can.
            os.system(f"touch -d @{moment // 10**9} '{site.source}/OMOP/{name}.csv'")  # noqa: S605
        figures.count("times of files")
    run(program, site, "journal", "update")
    run(program, site, "file", "upload")
    for command in (("file", "list", "--uploaded"), ("file", "verify", "--deep"), ("journal", "check")):
        run(program, site, *command)
        run(program, site, "--json", *command)
    again = run(program, site, "--json", "journal", "update")
    (told,) = [json.loads(line) for line in again.out.splitlines() if '"update-finished"' in line]
    assert told["modalities"]["OMOP"]["unchanged"]["files"] == len(TIMES)
    assert told["pending"]["files"] == 0

    target = site.home / "back"
    run(program, site, "file", "download", "--to", str(target))

    assert contents(target) == contents(site.source)
    for name in TIMES:
        brought, there = ((root / f"OMOP/{name}.csv").stat().st_mtime_ns // 1000 for root in (target, site.source))
        assert brought == there, name
