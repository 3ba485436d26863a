"""The process is killed after its first step, after its second, … after each: every time all ends well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest.mock import patch

from chorus_upload.config.loading import load
from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import ChorusError, JournalLocked
from chorus_upload.events import Event
from chorus_upload.operations.custody import journal_session, unlock
from chorus_upload.operations.update import UpdateRequest, update
from chorus_upload.operations.upload import UploadRequest, upload
from chorus_upload.transfer.pool import SerialPool
from tests.e2e.clouds import CENTRAL, JOURNAL, ask, files_of, manifest_for, manifest_of, others_of, tables_of
from tests.e2e.mortal import FaultyStore, Killed, Life, MortalJournal
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

        def open_store(location: Location, **_: object) -> FaultyStore:
            return FaultyStore(location.local_path, self.life, [])

        MortalJournal.life = self.life
        with (
            patch("chorus_upload.operations.custody.open_store", open_store),
            patch("chorus_upload.operations.upload.open_store", open_store),
            patch("chorus_upload.operations.custody.Journal", MortalJournal),
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


Step = Callable[[Machine], None]


def _change(machine: Machine) -> None:
    """What people do in between: may be done twice."""
    build(machine.source, {"1001/Images/scan.dcm": Bytes(100, edition=2), "1005/Images/scan.dcm": Bytes(50)})
    if (machine.source / "1002").exists():
        rename(machine.source, "1002", "2002")
        remove(machine.source / "1003")


STORY: tuple[Step, ...] = (
    lambda machine: machine.update("spring"),
    Machine.upload,
    _change,
    lambda machine: machine.update("autumn"),
    Machine.upload,
)


def test_a_crash_after_every_step(tmp_path: Path) -> None:
    undisturbed = _settle(tmp_path / "undisturbed")
    assert not _live(undisturbed)
    expected = files_of(contents(undisturbed.cloud))
    assert len(expected) == len(TREE) + 3
    _hold(undisturbed, expected)

    wrong: dict[int, str] = {}
    for steps in count():
        machine = _settle(tmp_path / str(steps))
        machine.life.steps_left = steps
        try:
            killed = _live(machine)
            _hold(machine, expected)
        except (ChorusError, AssertionError) as error:
            wrong[steps] = f"{type(error).__name__}: {error}"
            continue
        if not killed:
            break
    assert steps > 50
    assert wrong == {}


def _live(machine: Machine) -> bool:
    """Let the story happen. Whatever is killed is done again; gives whether anything was."""
    killed = False
    for step in STORY:
        killed |= _take(step, machine)
    return killed


def _take(step: Step, machine: Machine) -> bool:
    """Do one thing, and do it again when it was killed; gives whether it was."""
    try:
        with machine.running():
            step(machine)
    except Killed:
        try:
            with machine.running():
                step(machine)
        except JournalLocked:
            # Killed between taking the lock and knowing of it: there is no local journal that anything could be in.
            unlock(machine.settings, emit=_ignore)
            with machine.running():
                step(machine)
        return True
    return False


def _hold(machine: Machine, expected: dict[str, bytes]) -> None:
    objects = contents(machine.cloud)
    assert files_of(objects) == expected
    folders = [f"{CENTRAL}/{version}/{name}" for version in ("spring", "autumn") for name in ("journal.db", "manifest")]
    assert others_of(objects) == {JOURNAL, *folders}
    for version in ("spring", "autumn"):
        assert manifest_of(objects, version) == manifest_for(expected, version, evidence="readback")
    assert tables_of(machine.local) == tables_of(machine.cloud / JOURNAL)
    active = ask(
        machine.local,
        "SELECT d.path || '/' || name FROM file JOIN directory d ON d.id = directory_id"
        " WHERE retired_by IS NULL AND file.id IN (SELECT file_id FROM delivery)",
    )
    assert {path for (path,) in active} == contents(machine.source).keys()


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
