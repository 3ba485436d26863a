"""The process is killed before its first step, after its first, after its second, …: every time all ends well."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import ChorusError
from chorus_upload.events import Event
from chorus_upload.operations.custody import journal_session
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.transfer.pool import SerialPool
from tests.e2e.clouds import (
    CENTRAL,
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
from tests.faults.figures import Figures
from tests.trees import Bytes, Directory, build, contents, remove, rename

TREE = {f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1005)} | {"OMOP/person.csv": "1001\n"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A site whose program runs in this process, and dies as a process does."""

    root: Path
    life: Life

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def local(self) -> Path:
        return self.root / "journal.db"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def settings(self) -> Settings:
        return load(self.root / "config.toml", environ={})

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

    def update(self, version: str) -> None:
        request = UpdateRequest(version=version, confirm_deletions=True)
        with journal_session(self.settings, command="journal update", arguments={}, emit=_ignore) as session:
            update(session.journal, self.settings, request, emit=_ignore, pool=SerialPool())

    def upload(self) -> None:
        with journal_session(self.settings, command="file upload", arguments={}, emit=_ignore) as session:
            upload(session.journal, self.settings, UploadRequest(), emit=_ignore, pool=SerialPool())


def _first_update(machine: Machine) -> None:
    machine.update("spring")


def _second_update(machine: Machine) -> None:
    """Everything that can happen to a file has happened; this may be done twice."""
    build(machine.source, {"1001/Images/scan.dcm": Bytes(100, edition=2), "1005/Images/scan.dcm": Bytes(50)})
    if (machine.source / "1002").exists():
        rename(machine.source, "1002", "2002")
        remove(machine.source / "1003")
    machine.update("autumn")


STORY = (_first_update, Machine.upload, _second_update, Machine.upload)


@pytest.mark.parametrize("number", range(len(STORY)), ids=["first update", "upload", "second update", "second upload"])
def test_a_crash_after_every_step(number: int, in_memory: Path, figures: Figures) -> None:
    """After each, the same command again leads to where it would have led without the crash."""
    machine, command = _settle(in_memory / "site"), STORY[number]
    for earlier in STORY[:number]:
        assert not _killed(earlier, machine)
    before = shutil.copytree(machine.root, in_memory / "before")
    assert not _killed(command, machine)
    expected = _state(machine)

    wrong: dict[str, list[int]] = {}
    for steps in count():
        shutil.rmtree(machine.root)
        shutil.copytree(before, machine.root)
        machine.life.steps_left = steps
        if not _killed(command, machine):
            break
        figures.count("crashes")
        try:
            assert not _killed(command, machine)
            assert _state(machine) == expected
        except (ChorusError, AssertionError) as error:
            machine.life.end()
            wrong.setdefault(f"{type(error).__name__}: {error}", []).append(steps)
    assert steps > 10
    assert wrong == {}


def _killed(command: Callable[[Machine], None], machine: Machine) -> bool:
    """Type a command; gives whether it was killed."""
    try:
        with machine.running():
            command(machine)
    except Killed:
        return True
    return False


def _state(machine: Machine) -> object:
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


def _settle(root: Path) -> Machine:
    build(root, {"cloud/journal": Directory(), f"cloud/{CENTRAL}": Directory()})
    build(root / "source", TREE)
    (root / "config.toml").write_text(f"""
[journal.local]
path = "{root}/journal.db"
[journal.source]
path = "{root}/cloud/{JOURNAL}"
[central_path]
path = "{root}/cloud/{CENTRAL}"
[site_path.default]
path = "{root}/source"
""")
    return Machine(root, Life())


def _ignore(event: Event) -> None:
    del event
