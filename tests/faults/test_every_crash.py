"""The process is killed before its first step, after its first, after its second, …: every time all ends well.

Here every fifth step has its turn, which ones follows from `CHORUS_SEED`; with `CHORUS_EVERY_STEP=1` in the environment
all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from chorus_upload.config.settings import Location
from chorus_upload.errors import ChorusError
from tests.e2e.clouds import (
    JOURNAL,
    ask,
    files_of,
    manifest_for,
    manifest_of,
    others_of,
    tables_of,
    without_backups,
)
from tests.e2e.mortal import FaultyStore, Killed, Life, MortalJournal
from tests.e2e.mortal_program import steps_to_try
from tests.faults.figures import THOROUGH, Figures
from tests.faults.machine import Machine
from tests.randomness import SEED
from tests.trees import Bytes, build, contents, remove, rename

TREE = {f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1005)} | {"OMOP/person.csv": "1001\n"}


@dataclass(slots=True)
class MortalMachine(Machine):
    """It dies as a process does."""

    life: Life = field(default_factory=Life)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Whatever the program does in this block is a step of its life."""

        def open_store(location: Location, *_: object, **__: object) -> FaultyStore:
            return FaultyStore(location.local_path, self.life, [])

        MortalJournal.life = self.life
        with (
            patch("chorus_upload.operations.custody.open_store", open_store),
            patch("chorus_upload.operations.upload.open_store", open_store),
            patch("chorus_upload.operations.custody.Journal", MortalJournal),
            patch("chorus_upload.operations.handover.Journal", MortalJournal),
        ):
            try:
                yield
            except Killed:
                self.life.end()
                raise


def _first_update(machine: MortalMachine) -> None:
    machine.update("spring")


def _second_update(machine: MortalMachine) -> None:
    """Everything that can happen to a file has happened; this may be done twice."""
    build(machine.source, {"1001/Images/scan.dcm": Bytes(100, edition=2), "1005/Images/scan.dcm": Bytes(50)})
    if (machine.source / "1002").exists():
        rename(machine.source, "1002", "2002")
        remove(machine.source / "1003")
    machine.update("autumn")


_ENOUGH = 1_000_000
"""More steps than any command has."""
STORY = (_first_update, MortalMachine.upload, _second_update, MortalMachine.upload)


@pytest.mark.parametrize("number", range(len(STORY)), ids=["first update", "upload", "second update", "second upload"])
def test_a_crash_after_every_step(number: int, in_memory: Path, figures: Figures) -> None:
    """After each, the same command again leads to where it would have led without the crash."""
    machine, command = _settle(in_memory / "site"), STORY[number]
    for earlier in STORY[:number]:
        assert not _killed(earlier, machine)
    before = shutil.copytree(machine.root, in_memory / "before")
    machine.life.steps_left = _ENOUGH
    assert not _killed(command, machine)
    steps = _ENOUGH - machine.life.steps_left
    machine.life.end()
    expected = _state(machine)
    assert steps > 10

    wrong: dict[str, list[int]] = {}
    for step in steps_to_try(steps, every=1 if THOROUGH else 5, offset=SEED):
        shutil.rmtree(machine.root)
        shutil.copytree(before, machine.root)
        machine.life.steps_left = step - 1
        if not _killed(command, machine):
            # A few steps depend on the clock: this time it had fewer of them.
            assert step > 10
            break
        figures.count("crashes")
        try:
            assert not _killed(command, machine)
            assert _state(machine) == expected
        except (ChorusError, AssertionError) as error:
            machine.life.end()
            wrong.setdefault(f"{type(error).__name__}: {error}", []).append(step)
    assert wrong == {}


def _killed(command: Callable[[MortalMachine], object], machine: MortalMachine) -> bool:
    """Type a command; gives whether it was killed."""
    try:
        with machine.running():
            command(machine)
    except Killed:
        return True
    return False


def _state(machine: MortalMachine) -> object:
    """Where a command has led: what the cloud holds, and what the journal says of it."""
    objects = without_backups(contents(machine.cloud))
    assert tables_of(machine.local) == tables_of(machine.cloud / JOURNAL)
    for version in ("spring", "autumn"):
        assert manifest_of(objects, version) == manifest_for(files_of(objects), version, evidence="readback")
    return files_of(objects), others_of(objects), ask(machine.local, _FILES)


_FILES = """
    SELECT d.path, f.name, f.size, hex(f.fingerprint), hex(f.md5), f.change, i.label, r.label, f.retirement, v.key
    FROM file f JOIN directory d ON d.id = f.directory_id JOIN version i ON i.id = f.introduced_by
    LEFT JOIN version r ON r.id = f.retired_by LEFT JOIN delivery v ON v.file_id = f.id
    ORDER BY d.path, f.name, f.id
"""


def _settle(root: Path) -> MortalMachine:
    machine = MortalMachine(root)
    machine.set_up()
    build(machine.source, TREE)
    return machine
