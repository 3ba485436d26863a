"""A machine that gives less than one is used to: open files, threads, room, permissions, memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorus_upload.errors import AccessDenied, JournalError, OutOfResources, StorageError
from tests.e2e.clouds import LOCK, files_of
from tests.e2e.conftest import directory_in_memory, new_disk, settle
from tests.e2e.mortal_program import Condition, Ended, Program
from tests.e2e.site import Site
from tests.faults.figures import THOROUGH, Figures
from tests.trees import Bytes, build, contents

CONDITIONS = "tests.faults.conditions"
LIKE_ANYBODY = Condition("tests.faults.meddling:like_anybody")
TREE = {f"{1001 + number // 20}/Images/{number % 20}.dcm": Bytes(100) for number in range(100)} | {
    "1001/Images/large.dcm": Bytes(9 << 20),
    "OMOP/person.csv": Bytes(1_000),
}
FRESH, JOURNALED, SENT = range(3)
COMMANDS = {
    "journal update": FRESH,
    "file upload": JOURNALED,
    "file verify": SENT,
    "file list --uploaded": SENT,
    "journal list": SENT,
    "file download --to back": SENT,
    "journal checkout": SENT,
}


WRITING = ("journal update", "file upload")


def some(command: str) -> object:
    """Those that write are tried in the ordinary run, too."""
    return pytest.param(command, marks=[] if command in WRITING else pytest.mark.thorough)


@dataclass(frozen=True, slots=True)
class Stages:
    """One site as it was before its first update, after it, and after its upload."""

    site: Site
    program: Program

    @property
    def root(self) -> Path:
        return self.site.home.parent

    def keep(self, stage: int) -> None:
        shutil.copytree(self.root, self._copy(stage))

    def restore(self, stage: int) -> Site:
        shutil.rmtree(self.root)
        shutil.copytree(self._copy(stage), self.root)
        return self.site

    def run(self, command: str, *under: Condition, codes: Sequence[int] = (0,)) -> Ended:
        ended = self.program.run(*command.split(), home=self.site.home, under=under)
        told = f"{command}: {ended.exit_code}\n{ended.out}\n{ended.err}"
        assert ended.exit_code in codes, told
        assert "Traceback" not in told, told
        assert "unexpected" not in told, told
        assert "unreadable" not in told, told
        return ended

    def goes_on(self) -> None:
        """Without the limit the commands lead to where they would have led."""
        for command in ("journal update", "file upload"):
            self.run(command)
        tree = contents(self.site.source)
        delivered = files_of(self.site.cloud.objects())
        assert sorted(key.partition("/")[2] for key in delivered) == sorted(tree)
        assert set(delivered.values()) == set(tree.values())
        if LOCK in self.site.cloud.objects():
            self.run("journal checkin")

    def _copy(self, stage: int) -> Path:
        return self.root.with_name(f"stage-{stage}")


@pytest.fixture(scope="module")
def stages(program: Program) -> Iterator[Stages]:
    with directory_in_memory() as root:
        disk = new_disk(root / "site/cloud")
        stages = Stages(settle(root / "site/home", build(root / "site/source", TREE), disk, threads=8), program)
        stages.keep(FRESH)
        stages.run("journal update")
        stages.keep(JOURNALED)
        stages.run("file upload")
        stages.keep(SENT)
        yield stages


@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [some(command) for command in COMMANDS])
def test_no_open_files_are_left(command: str, stages: Stages, figures: Figures) -> None:
    """Either it works, or it says what is missing; no file is blamed for it, and none counts as gone."""
    said = set()
    for most in range(7, 20) if THOROUGH else (9,):
        stages.restore(COMMANDS[command])
        under = Condition(f"{CONDITIONS}:limit", {"what": "RLIMIT_NOFILE", "most": most})
        ended = stages.run(command, under, codes=(0, OutOfResources.exit_code, JournalError.exit_code))
        said.add(ended.exit_code)
        assert not ended.exit_code or "ulimit -n" in ended.err, ended.err
        stages.goes_on()
        figures.count("commands with few open files")
    if command in ("journal update", "file upload"):
        assert OutOfResources.exit_code in said


@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [some(command) for command in COMMANDS])
def test_no_threads_are_left(command: str, stages: Stages, figures: Figures) -> None:
    for number in range(8) if THOROUGH else (2,):
        stages.restore(COMMANDS[command])
        under = Condition(f"{CONDITIONS}:no_threads_after", {"number": number})
        ended = stages.run(command, under, codes=(0, OutOfResources.exit_code))
        assert not ended.exit_code or "ulimit -u" in ended.err, ended.err
        stages.goes_on()
        figures.count("commands with few threads")


@pytest.mark.timeout(900)
@pytest.mark.thorough
@pytest.mark.parametrize("command", COMMANDS)
def test_no_file_may_grow(command: str, stages: Stages, figures: Figures) -> None:
    """As on a disk with a quota for each file (`ulimit -f`)."""
    codes = (0, 1, 3, JournalError.exit_code, StorageError.exit_code)
    for most in (5_000, 20_000, 60_000, 100_000, 200_000, 1_000_000):
        stages.restore(COMMANDS[command])
        stages.run(command, Condition(f"{CONDITIONS}:limit", {"what": "RLIMIT_FSIZE", "most": most}), codes=codes)
        stages.goes_on()
        figures.count("commands with small files")


def test_there_is_no_place_for_temporary_files(stages: Stages, figures: Figures) -> None:
    """What only reads says so, and what works on the local journal needs none."""
    stages.restore(SENT)
    nowhere = Condition(f"{CONDITIONS}:nothing_temporary")
    for command in ("journal list", "file list"):
        ended = stages.run(command, nowhere, codes=(JournalError.exit_code,))
        assert "Set TMPDIR" in ended.err
        figures.count("commands without temporary files")
    stages.run("journal update", nowhere)
    stages.goes_on()


READ_ONLY: dict[str, tuple[str, dict[str, int]]] = {
    "source": ("source", {}),
    "configuration": ("home/config.toml", {}),
    "journal": (
        "home",
        dict.fromkeys(("journal update", "file upload", "journal checkout"), JournalError.exit_code)
        | {"file download --to back": AccessDenied.exit_code},
    ),
    "cloud journal": (
        "cloud/journal",
        dict.fromkeys(("journal update", "file upload", "journal checkout"), AccessDenied.exit_code),
    ),
    "central store": ("cloud/data", {"file upload": AccessDenied.exit_code}),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if what == "journal" else pytest.mark.thorough) for what in READ_ONLY]
)
def test_what_can_only_be_read(what: str, stages: Stages, figures: Figures) -> None:
    """Whoever only reads does not mind; who has to write is told where it is not permitted, and loses nothing."""
    place, refused = READ_ONLY[what]
    for command, stage in COMMANDS.items():
        if command not in (*WRITING, "journal list") and not THOROUGH:
            continue
        site = stages.restore(stage)
        below = [site.home.parent / place, *(site.home.parent / place).rglob("*")]
        modes = {path: path.stat().st_mode for path in below}
        before = contents(site.home.parent / place)
        for path in below:
            path.chmod(modes[path] & ~0o222)
        ended = stages.run(command, LIKE_ANYBODY, codes=(refused.get(command, 0),))
        for path, mode in modes.items():
            path.chmod(mode)
        assert not ended.exit_code or "ermission denied" in ended.err, ended.err
        assert before.items() <= contents(site.home.parent / place).items()
        stages.goes_on()
        figures.count("commands where nothing can be written")
