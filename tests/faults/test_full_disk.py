"""A disk that fills up while there is a journal on it: nothing is lost, and once there is room it goes on.

Here with a few amounts of room that is left; with `CHORUS_EVERY_STEP=1` in the environment with many.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chorus_upload.errors import JournalError, StorageError, StoreFull
from tests.e2e.clouds import Disk
from tests.e2e.conftest import new_disk
from tests.e2e.mortal_program import Program, running_program
from tests.e2e.site import Site
from tests.e2e.two_versions import (
    BOTH_STORIES,
    NOTHING_TO_GIVE_BACK,
    about_to_type,
    require_same,
    restore,
    state_of,
    typed,
)
from tests.faults.figures import THOROUGH, Figures

KIB = 1 << 10
STEP = 8 if THOROUGH else 192
ROOM = range(0, 400, STEP)
"""How much is left, in KiB."""
SAID = (JournalError.exit_code, StorageError.exit_code, StoreFull.exit_code)
MOUNT = 'mount -t tmpfs -o size=8m tmpfs "$1" && shift && exec "$@"'


@contextmanager
def on_a_small_disk(directory: Path) -> Iterator[Program]:
    """A program for which this directory is a disk of its own."""
    within = ("unshare", "--mount", "--map-root-user", "bash", "-c", MOUNT, "bash", str(directory))
    if subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make a small disk")
    with running_program(within=within) as program:
        program.run("--version", home=directory)
        yield program


def fill(disk: Path, *, leaving: int) -> Path:
    """Take all the room of a disk but so many bytes; gives the file that takes it."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - leaving))
    return filler


def end_of(root: Path, copy: Path) -> dict[str, object]:
    """Where the site has come to, seen in a copy: SQLite looks for a file where we do not see the small disk."""
    shutil.copytree(root, copy)
    try:
        return state_of(Site(copy / "home", copy / "source", Disk(copy / "cloud")), evidence="readback")
    finally:
        shutil.rmtree(copy)


@pytest.mark.timeout(1_200)
@BOTH_STORIES
def test_a_full_disk_is_an_interruption(story: tuple[str, ...], tmp_path: Path, figures: Figures) -> None:
    """The journal, the sources and the central store are all on that disk."""
    (tmp_path / "disk").mkdir()
    with on_a_small_disk(tmp_path / "disk") as program:
        disk = program.root / tmp_path.relative_to("/") / "disk"
        root = disk / "site"
        site = about_to_type(story, root, new_disk(root / "cloud"), program)
        begun = shutil.copytree(root, tmp_path / "begun")
        for command in story:
            typed(program, site, command)
        expected = end_of(root, tmp_path / "copy")

        wrong, failed = [], dict.fromkeys(story, 0)
        for number, command in enumerate(story):
            restore(root, begun)
            before = shutil.copytree(root, tmp_path / f"before-{number}")
            typed(program, site, command)
            begun = shutil.copytree(root, tmp_path / f"after-{number}")
            for room in ROOM:
                restore(root, before)
                filler = fill(disk, leaving=room * KIB)
                ended = program.run(*shlex.split(command), home=site.home)
                filler.unlink()
                failed[command] += ended.exit_code != 0
                figures.count("commands on a disk that filled up")
                try:
                    assert ended.exit_code in (0, *SAID), ended
                    assert "Traceback" not in ended.err
                    assert "unexpected" not in ended.err
                    for each in story[number:]:
                        typed(program, site, each, codes=(0, NOTHING_TO_GIVE_BACK) if "checkin" in each else (0,))
                    require_same(end_of(root, tmp_path / "copy"), expected)
                except AssertionError as error:
                    wrong.append(f"{command}, {room} KiB: {error}")
        assert wrong == []
        assert all(failed.values()), failed
