"""The source changes while it is scanned, read and sent: nothing wrong is delivered, and nothing is forgotten."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash

from chorus_upload.errors import EXIT_PARTIAL, DeletionRefused, OutOfResources
from tests.e2e.clouds import CENTRAL, ask
from tests.e2e.conftest import directory_in_memory, new_disk, settle
from tests.e2e.mortal_program import Condition, Ended, Program, running_program
from tests.e2e.site import Site
from tests.faults.figures import THOROUGH, Figures, possible
from tests.faults.meddling import CHANGES, OUTSIDE
from tests.randomness import SEED
from tests.trees import Bytes, Content, Directory, build, contents

EVERY = 7 if THOROUGH else 600
"""Of more than a thousand pairs of a moment and what happens then, every so-manieth; CHORUS_SEED picks others."""
MEDDLING = "tests.faults.meddling"

SPRING: dict[str, Content] = {
    "1001/Images/a.dcm": Bytes(100),
    "1001/Images/b.dcm": Bytes(100),
    "1002/Images/c.dcm": Bytes(100),
    "OMOP/person.csv": "person_id\n1\n",
}
AUTUMN: dict[str, Content] = {
    "1001/Images/a.dcm": Bytes(100, edition=2),
    "1001/Images/new.dcm": Bytes(3_000),
    "1003/Images/large.dcm": Bytes(9 << 20),
}


def reading(moments: list[str]) -> list[int]:
    """The numbers of the moments; not that of a look where links lead, which Python takes for nowhere if it fails."""
    return [number for number, each in enumerate(moments, 1) if each != "lstat "]


@pytest.fixture(scope="module")
def worlds(program: Program) -> Iterator[Worlds]:
    with directory_in_memory() as root:
        yield Worlds(root / "site", program)


@dataclass(frozen=True, slots=True)
class World:
    """A site in a directory that can be put back to where it was, and what its files have held so far."""

    site: Site
    program: Program
    held: dict[str, set[bytes]]

    @property
    def root(self) -> Path:
        return self.site.home.parent

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    def run(self, *arguments: str, under: tuple[Condition, ...] = (), codes: tuple[int, ...] = (0,)) -> Ended:
        """Type a command, which has to end with one of these codes and good manners."""
        ended = self.program.run(*arguments, home=self.site.home, under=under)
        told = f"{' '.join(arguments)}: {ended.exit_code}\n{ended.out}\n{ended.err}"
        assert ended.exit_code in codes, told
        assert "Traceback" not in told, told
        assert "unexpected" not in told, told
        return ended

    def look(self) -> None:
        """Remember what is in the files now."""
        for path, body in contents(self.site.source).items():
            self.held.setdefault(path, set()).add(body)

    def active(self) -> set[str]:
        """The files that the journal holds to be there."""
        return {path for (path,) in ask(self.site.journal, f"SELECT {_PATH} {_FILES} WHERE f.retired_by IS NULL")}

    def check_deliveries(self) -> int:
        """All that counts as delivered is there, as it once was in the source, and as the journal says; how many."""
        stored = contents(self.site.cloud.root / CENTRAL)  # type: ignore[attr-defined]
        delivered = ask(self.site.journal, f"SELECT {_PATH}, f.size, f.fingerprint, d.key, d.md5 {_FILES} {_DELIVERED}")
        for path, size, fingerprint, key, md5 in delivered:
            body = stored[key]
            assert body in self.held[path], f"{key} is nothing that {path} ever was"
            assert (len(body), xxhash.xxh3_128_digest(body)) == (size, fingerprint), f"{key} is not as the journal says"
            assert hashlib.md5(body).digest() == md5, key  # noqa: S324
        return len(delivered)

    def settle(self, *, thoroughly: bool = True) -> None:
        """Once the world holds still, an update and an upload lead to what is there."""
        for path in [self.site.source, *self.site.source.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
            else:
                # As long as it leads outside or nowhere, nobody can say whether what was in its place is still there.
                path.unlink()
        self.look()
        # What is no file, or a link to nothing, is told of until it is gone.
        self.run("journal", "update", "--confirm-deletions", "--version", "winter", codes=(0, 3))
        self.run("file", "upload")
        tree = {path: body for path, body in contents(self.site.source).items() if _BELONGS.match(path)}
        assert self.active() == tree.keys()
        assert self.check_deliveries()
        target = self.root / "brought back"
        self.run("file", "download", "--to", str(target))
        assert contents(target) == tree
        if thoroughly:
            self.run("file", "verify", "--deep")
            self.run("journal", "check")


_BELONGS = re.compile(r"OMOP/|[^/]+/Images/")
"""The patterns of the modalities."""
_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"
_FILES = "FROM file f JOIN directory k ON k.id = f.directory_id"
_DELIVERED = "JOIN delivery d ON d.file_id = f.id"


class Worlds:
    """The same world as often as one likes, before an update and before an upload.

    `moments` has what each of the two does to the source, in this order.
    """

    def __init__(self, root: Path, program: Program) -> None:
        build(root, {OUTSIDE: Directory()})
        site = settle(root / "home", build(root / "source", SPRING), new_disk(root / "cloud"), threads=1)
        self._world = World(site, program, {})
        self._world.look()
        self._world.run("journal", "update", "--version", "spring")
        self._world.run("file", "upload")
        build(site.source, AUTUMN)
        self._world.look()
        self._held = {path: set(bodies) for path, bodies in self._world.held.items()}
        self._copies = {"journal update": self._copy("update")}
        self._world.run("journal", "update", "--version", "autumn")
        self._copies["file upload"] = self._copy("upload")
        self.moments = {command: operations(self.before(command), command) for command in COMMANDS}

    def _copy(self, name: str) -> Path:
        root = self._world.root
        return shutil.copytree(root, root.with_name(f"{root.name}-before-{name}"), symlinks=True)

    def before(self, command: str) -> World:
        root = self._world.root
        shutil.rmtree(root)
        shutil.copytree(self._copies[command], root)
        self._world.held.clear()
        self._world.held.update({path: set(bodies) for path, bodies in self._held.items()})
        return self._world


UNSEEN = ("modified in secret",)
"""What shows neither in the size nor in the time of a file that was read before: no update can find that."""
COMMANDS = {"journal update": ("journal", "update", "--version", "winter"), "file upload": ("file", "upload")}


def operations(world: World, command: str) -> list[str]:
    """What a command does to the source."""
    never = Condition(f"{MEDDLING}:fail_from", {**_at(world, 0), "number": 0, "times": 0})
    world.run(*COMMANDS[command], under=(never,))
    return world.notes.read_text().splitlines()


def _at(world: World, number: int) -> dict[str, object]:
    return {"source": str(world.site.source), "notes": str(world.notes), "at": number}


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_change_at_every_moment(command: str, worlds: Worlds, figures: Figures) -> None:
    moments = worlds.moments[command]
    wrong = []
    cases = [(at, change) for at in range(1, len(moments) + 1) for change in CHANGES]
    for at, change in cases if THOROUGH else cases[SEED % 149 :: 1490]:
        world = worlds.before(command)
        before = world.active()
        changing = Condition(
            f"{MEDDLING}:change_at", {**_at(world, at), "change": change, "otherwise": "1001/Images/a.dcm"}
        )
        like_anybody = Condition(f"{MEDDLING}:like_anybody")
        try:
            world.run(*COMMANDS[command], under=(like_anybody, changing), codes=(0, 3, 5))
            world.look()
            assert "changed: " in world.notes.read_text()
            world.check_deliveries()
            # Nothing that is still there was forgotten because it could not be seen for a moment.
            lost = (before & contents(world.site.source).keys()) - world.active()
            assert not lost, f"forgotten: {lost}"
            if change in UNSEEN:
                (changed,) = re.findall(r"^changed: (.*)$", world.notes.read_text(), re.MULTILINE)
                Path(changed).touch()
            world.settle(thoroughly=at % 10 == 1)
        except AssertionError as error:
            wrong.append(f"{change} before {at} ({moments[at - 1]}): {error}"[:1500])
        figures.count("changes at a moment")
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n\n".join(wrong)


MACHINE = {name: getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOMEM")}
SOURCE = {name: getattr(errno, name) for name in ("EIO", "ESTALE", "EACCES", "ENOTCONN")}


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("command", COMMANDS)
def test_this_machine_has_no_more_to_give(command: str, worlds: Worlds, figures: Figures) -> None:
    """That is trouble with no file: the run ends, says which limit it was, and has recorded nothing wrong."""
    moments = worlds.moments[command]
    harmless = ("name", "readinto", "fstat")
    failing = [number for number in reading(moments) if not moments[number - 1].startswith(harmless)]
    cases = [(at, name) for at in failing for name in MACHINE]
    for at, name in cases[SEED % 4 :: 4 if THOROUGH else 60]:
        world = worlds.before(command)
        before = world.active()
        fail = Condition(f"{MEDDLING}:fail_from", {**_at(world, at), "number": MACHINE[name], "times": 1})
        ended = world.run(*COMMANDS[command], under=(fail,), codes=(OutOfResources.exit_code,))
        assert "limit of" in ended.err, ended.err
        world.check_deliveries()
        assert world.active() >= before
        world.settle()
        figures.count("resources missing at a moment")


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_source_that_fails(command: str, *, lasting: bool, worlds: Worlds, figures: Figures) -> None:
    """Of what could not be read nothing is recorded, and nothing is taken for deleted."""
    moments = worlds.moments[command]
    cases = [(at, name) for at in reading(moments) for name in SOURCE]
    for at, name in cases[SEED % 9 :: 9 if THOROUGH else 150]:
        world = worlds.before(command)
        before = world.active()
        times = 1_000_000 if lasting else 1
        fail = Condition(f"{MEDDLING}:fail_from", {**_at(world, at), "number": SOURCE[name], "times": times})
        world.run(*COMMANDS[command], under=(fail,), codes=(EXIT_PARTIAL, DeletionRefused.exit_code))
        world.check_deliveries()
        assert world.active() >= before, f"{name} before {at} ({moments[at - 1]})"
        world.settle()
        figures.count("errors of the source")


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("command", ["journal update", pytest.param("file upload", marks=pytest.mark.thorough)])
def test_the_source_is_unmounted_at_a_moment(command: str, in_memory: Path, figures: Figures) -> None:
    """Half-way through a command, and once more before the next: what was recorded stays as it was."""
    with running_program(within=("unshare", "--mount", "--map-root-user")) as program:
        possible(program.run("--version", home=in_memory).exit_code == 0, "unmount something")
        worlds = Worlds(in_memory / "site", program)
        for at in range(1, len(worlds.moments[command]) + 1, 3 if THOROUGH else 40):
            world = worlds.before(command)
            before = world.active()
            real = world.site.source.rename(world.root / "real")
            world.site.source.mkdir()
            mount = Condition(f"{MEDDLING}:mount", {"what": str(real), "where": str(world.site.source)})
            unmount = Condition(f"{MEDDLING}:unmount_at", _at(world, at))
            codes = (EXIT_PARTIAL, DeletionRefused.exit_code)
            world.run(*COMMANDS[command], under=(mount, unmount), codes=(0, *codes))
            world.check_deliveries()
            assert world.active() >= before
            # Nobody has noticed yet.
            world.run("journal", "update", codes=(DeletionRefused.exit_code,))
            world.run("file", "upload", codes=(0, EXIT_PARTIAL))
            assert world.active() >= before
            world.site.source.rmdir()
            real.rename(world.site.source)
            world.settle()
            figures.count("unmounted at a moment")


class Restless(threading.Thread):
    """Somebody who changes a tree all the time, as `seed` has it; notes down what each file has ever held."""

    def __init__(self, source: Path, held: dict[str, set[bytes]], seed: int) -> None:
        super().__init__()
        self._source = source
        self._held = held
        self._random = random.Random(seed)  # noqa: S311
        self.over = threading.Event()
        self.changes = 0

    def run(self) -> None:
        actions = (self._write, self._write, self._replace, self._append, self._truncate, self._remove, self._rename)
        while not self.over.wait(self._random.random() / 100):
            # Its own former changes may be in the way.
            with suppress(OSError):
                self._random.choice((*actions, self._hide, self._rename_directory))()
                self.changes += 1

    def _some(self) -> Path:
        patient, name = self._random.randint(1001, 1008), self._random.randint(1, 12)
        path = self._source / str(patient) / "Images" / f"{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _holds(self, path: Path, *bodies: bytes) -> None:
        self._held.setdefault(path.relative_to(self._source).as_posix(), set()).update(bodies)

    def _body(self) -> bytes:
        return self._random.randbytes(self._random.choice((1, 100, 5_000, 200_000)))

    def _write(self) -> None:
        path, body = self._some(), self._body()
        self._holds(path, b"", body)
        path.write_bytes(body)

    def _replace(self) -> None:
        path, body = self._some(), self._body()
        self._holds(path, body)
        aside = self._source.parent / "aside"
        aside.write_bytes(body)
        aside.replace(path)

    def _append(self) -> None:
        path = self._some()
        before = path.read_bytes()
        self._holds(path, before + b"more")
        with path.open("ab") as file:
            file.write(b"more")

    def _truncate(self) -> None:
        path = self._some()
        before = path.read_bytes()
        self._holds(path, before[: len(before) // 2])
        os.truncate(path, len(before) // 2)

    def _remove(self) -> None:
        self._some().unlink()

    def _rename(self) -> None:
        old, new = self._some(), self._some()
        self._holds(new, old.read_bytes())
        old.rename(new)

    def _hide(self) -> None:
        path = self._some()
        path.chmod(0)
        self.over.wait(0.05)
        path.chmod(0o644)

    def _rename_directory(self) -> None:
        old = self._some().parents[1]
        new = old.with_name(str(self._random.randint(1009, 1012)))
        for path in old.rglob("*.dcm"):
            self._holds(new / path.relative_to(old), path.read_bytes())
        old.rename(new)
        self.over.wait(0.05)
        new.rename(old)


@pytest.mark.timeout(600)
def test_a_source_that_never_rests(program: Program, in_memory: Path, figures: Figures) -> None:
    """Update and upload go on and on; when it rests at last, one more of each leads to what is there."""
    (in_memory / OUTSIDE).mkdir()
    site = settle(in_memory / "home", build(in_memory / "source", SPRING), new_disk(in_memory / "cloud"), threads=4)
    world = World(site, program, {})
    world.look()
    world.run("journal", "update", "--version", "spring")
    restless = Restless(site.source, world.held, SEED)
    like_anybody = Condition(f"{MEDDLING}:like_anybody")
    restless.start()
    try:
        for _ in range(25 if THOROUGH else 2):
            world.run("journal", "update", "--confirm-deletions", under=(like_anybody,), codes=(0, EXIT_PARTIAL))
            world.run("file", "upload", under=(like_anybody,), codes=(0, EXIT_PARTIAL))
            figures.count("rounds")
    finally:
        restless.over.set()
        restless.join()
    figures.count("changes meanwhile", restless.changes)
    try:
        world.check_deliveries()
        world.settle()
    except AssertionError as error:
        raise AssertionError(f"CHORUS_SEED={SEED}: {error}") from error
