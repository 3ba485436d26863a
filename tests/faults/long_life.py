"""The long life of a site whose files change all the time, and whose commands are killed at any moment.

`Life` does what people do, at random. It remembers what must be true at every moment, and what the end must be.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from chorus_upload.errors import ConfigError
from tests.e2e.clouds import CENTRAL, JOURNAL, LOCK, Cloud, Disk, files_of
from tests.e2e.mortal_program import KILLED, Ended, Program
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.trees import Bytes, build, bytes_of, contents, remove, rename, touch

LARGE = (8 << 20) + 300_000
"""More than goes in one request, and than a download begins anew."""

INTERRUPTED, SOME_FAILED, NOT_CHECKED_OUT = 130, 3, 11

_PLACES = ("Images", "Waveforms")
_MOST_FILES = 40
_MOST_LARGE = 2


@dataclass(slots=True)
class Tree:
    """What is in the source, and what happens to it."""

    root: Path
    chance: random.Random
    edition: int = 0

    def live(self) -> None:
        """A few things happen."""
        for _ in range(self.chance.randint(1, 4)):
            files = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
            what = self.chance.choice(self._possible(files))
            what(files)

    def _possible(self, files: Sequence[str]) -> list[Callable[[Sequence[str]], None]]:
        if len(files) < 4:
            return [self._add]
        if len(files) > _MOST_FILES:
            return [self._remove]
        return [self._add, self._add, self._add, self._modify, self._modify, self._rename, self._remove, self._touch]

    def _add(self, files: Sequence[str]) -> None:
        del files
        name = f"{self.chance.randint(1001, 1006)}/{self.chance.choice(_PLACES)}/{self.chance.randrange(10**6)}.dat"
        self._write(self.chance.choice([name, name, name, f"OMOP/{self.chance.choice('abcdef')}.csv"]))

    def _modify(self, files: Sequence[str]) -> None:
        self._write(self.chance.choice(files))

    def _rename(self, files: Sequence[str]) -> None:
        old = self.chance.choice(files)
        rename(self.root, old, f"{old.rpartition('/')[0]}/{self.chance.randrange(10**6)}{Path(old).suffix}")

    def _remove(self, files: Sequence[str]) -> None:
        remove(self.root / self.chance.choice(files))

    def _touch(self, files: Sequence[str]) -> None:
        touch(self.root / self.chance.choice(files))

    def _write(self, path: str) -> None:
        self.edition += 1
        large = sum(each.stat().st_size > LARGE - 1 for each in self.root.rglob("*") if each.is_file())
        is_large = large < _MOST_LARGE and self.chance.random() < 0.06
        size = LARGE if is_large else self.chance.choice([0, 1, self.chance.randint(2, 5_000)])
        content = bytes_of(path, Bytes(size, edition=self.edition))
        # Now and then the content of another file once more.
        if self.chance.random() < 0.1 and (others := [each for each in self.root.rglob("*") if each.is_file()]):
            content = self.chance.choice(sorted(others)).read_bytes()
        build(self.root, {path: content})


@dataclass(slots=True)
class Life:
    """`is_full`: what is missing in the source is gone. Each failure of `check` names the seed, and what was typed."""

    site: Site
    program: Program
    seed: int
    is_full: bool
    figures: Figures
    chance: random.Random = field(init=False)
    tree: Tree = field(init=False)
    kills: int = 0
    typed: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """What the journal says a version held, by its label, when it was completed: path to MD5."""
    delivered: dict[str, bytes] = field(default_factory=dict)
    """Key to MD5, of all that a journal ever called delivered; of a key that was replaced, the later one."""
    _held: dict[str, bytes] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _known: dict[str, tuple[object, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - it has to be repeatable
        self.tree = Tree(self.site.source, self.chance)

    # --- what happens ---------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Something happens to the files, or somebody types a command that may not come to its end."""
        if self.chance.random() < 0.45:
            self.tree.live()
        line, codes = self._line()
        self._type(line, codes=codes, signals=self._signals(line))

    def _line(self) -> tuple[str, Sequence[int]]:
        """A command, and how it may end when nothing disturbs it."""
        target = self.site.home.with_name("restored")
        # There may be nothing to send yet; an update that was killed may have begun a version all the same.
        nothing_yet = () if self.versions else (ConfigError.exit_code,)
        lines: list[tuple[int, str, Sequence[int]]] = [
            # One that was interrupted goes on under the same label by itself.
            (9, "journal update --confirm-deletions", (0,)),
            (9, "file upload", (0, SOME_FAILED, *nothing_yet)),
            (2, f"file upload --max-num-files {self.chance.randint(1, 5)}", (0, SOME_FAILED, *nothing_yet)),
            (3, "journal checkout", (0,)),
            (4, "journal checkin", (0, NOT_CHECKED_OUT)),
            (1, "journal list", (0, NOT_CHECKED_OUT)),
            (1, "journal check", (0, NOT_CHECKED_OUT)),
            (1, "journal merge", (0, NOT_CHECKED_OUT)),
            (1, "file list --output-file list.txt", (0, NOT_CHECKED_OUT, *nothing_yet)),
        ]
        if self.delivered:
            lines += [
                (2, "file verify", (0, SOME_FAILED)),
                (1, "file verify --deep", (0, SOME_FAILED)),
                (3, f"file download --to {target} --overwrite", (0, SOME_FAILED)),
            ]
        weights = [weight for weight, *_ in lines]
        _, line, codes = self.chance.choices(lines, weights)[0]
        if "download" in line and self.chance.random() < 0.4:
            shutil.rmtree(target, ignore_errors=True)
        return line, codes

    def _signals(self, line: str) -> list[tuple[float, int]]:
        """When the command is killed, or interrupted; mostly while it still runs."""
        usual = self._seconds.get(line.partition(" --")[0], 0.3)
        moment = self.chance.uniform(0, usual * 1.05)
        match self.chance.choices(["kill", "interrupt", "twice", "nothing"], [72, 8, 5, 15])[0]:
            case "kill":
                return [(moment, signal.SIGKILL)]
            case "interrupt":
                return [(moment, self.chance.choice([signal.SIGINT, signal.SIGTERM]))]
            case "twice":
                return [(moment, signal.SIGTERM), (self.chance.uniform(0, 0.1), signal.SIGINT)]
        return []

    def _type(self, line: str, *, codes: Sequence[int], signals: Sequence[tuple[float, int]] = ()) -> Ended:
        self.typed.append(f"{line} {[(round(seconds, 3), number) for seconds, number in signals] or ''}")
        environment = {"TMPDIR": str(self.site.home.with_name("tmp"))}
        ended = self.program.run(*shlex.split(line), home=self.site.home, signals=signals, environment=environment)
        if ended.exit_code == KILLED:
            self.kills += 1
            self.figures.count("kills")
        elif ended.exit_code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM) and signals:
            self.figures.count("interruptions")
        else:
            self._require(ended.exit_code in codes, f"{line} ended with {ended.exit_code}: {ended.out}\n{ended.err}")
            name = line.partition(" --")[0]
            self._seconds[name] = 0.7 * self._seconds.get(name, ended.seconds) + 0.3 * ended.seconds
            self.figures.count("commands that ended")
        said = _UNCLOSED.sub("", ended.err) if ended.exit_code == INTERRUPTED else ended.err
        self._require("Traceback" not in said and "unexpected" not in said, ended.err)
        self.check()
        return ended

    # --- what holds at all times ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing that a journal calls delivered is missing, another one, or forgotten."""
        rows: dict[str, tuple[int, bytes]] = {}
        objects = {} if isinstance(self.site.cloud, Disk) else self.site.cloud.objects()
        journals = self._journals(objects)
        for journal in journals:
            for key, number, md5 in _ask(journal, _DELIVERED):
                if key not in rows or rows[key][0] < number:
                    rows[key] = (number, md5)
        found = {key: md5 for key, (_, md5) in rows.items()}
        for key, md5 in self.delivered.items():
            self._require(key in found, f"the delivery of {key} is forgotten")
            if found[key] != md5:
                self.figures.count("keys replaced by their own file")
        self.delivered = found
        stored = self._stored(objects)
        for key, md5 in found.items():
            self._require(key in stored, f"{key} is called delivered, and is not there")
            if stored[key] != md5:
                is_successor = self._is_successor(key, objects, journals)
                self._require(is_successor, f"{key} is called delivered, and is another one")
                self.figures.count("killed between a replacement and its record")
        self.figures.count("deliveries held against the store", len(found))
        self._learn_versions(journals)

    def _is_successor(self, key: str, objects: dict[str, bytes], journals: Sequence[Path]) -> bool:
        """Whether an object is a later file of its path and version, which has replaced it and is not recorded yet."""
        body = self._object(f"{CENTRAL}/{key}", objects) or b""
        path = key.partition("/")[2]
        successors = [row for journal in journals for row in _ask(journal, _UNDELIVERED)]
        return (path, xxhash.xxh3_128_digest(body)) in successors

    def _journals(self, objects: dict[str, bytes]) -> list[Path]:
        """Every journal that somebody could go on with, as files that may be looked at."""
        looked_at = self.site.home.with_name("looked-at")
        shutil.rmtree(looked_at, ignore_errors=True)
        looked_at.mkdir()
        for path in self.site.home.glob("journal.db*"):
            # With what SQLite has beside it: it is opened there, and nobody here notices.
            if not path.name.endswith((".writer", ".claim", "-shm")):
                shutil.copy2(path, looked_at)
        cloud = self._object(JOURNAL, objects)
        if cloud is not None:
            (looked_at / "cloud.db").write_bytes(cloud)
        return [path for path in looked_at.iterdir() if path.name in ("journal.db", "cloud.db")]

    def _object(self, key: str, objects: dict[str, bytes]) -> bytes | None:
        if isinstance(self.site.cloud, Disk):
            path = self.site.cloud.root / key
            return path.read_bytes() if path.exists() else None
        return objects.get(key)

    def _stored(self, objects: dict[str, bytes]) -> dict[str, bytes]:
        """The MD5 of every object in the central store; on a disk of only those that were written since."""
        if not isinstance(self.site.cloud, Disk):
            return {key: _md5(body) for key, body in files_of(objects).items()}
        root, known = self.site.cloud.root / CENTRAL, self._known
        found = {}
        for path in root.rglob("*"):
            if path.is_file():
                key, status = path.relative_to(root).as_posix(), path.stat()
                identity = (status.st_ino, status.st_mtime_ns, status.st_size)
                if key not in known or known[key][0] != identity:
                    known[key] = identity, _md5(path.read_bytes())
                found[key] = known[key][1]
        return found

    def _learn_versions(self, journals: Sequence[Path]) -> None:
        """A version that is complete by now, and was not before, has what the source holds now."""
        tree = {path: _md5(body) for path, body in contents(self.site.source).items()}
        for journal in journals:
            for (label,) in _ask(journal, "SELECT label FROM version WHERE completed_us IS NOT NULL ORDER BY id"):
                if label not in self.versions:
                    self._held = tree if self.is_full else self._held | tree
                    self.versions[label] = self._held
                    self.figures.count("versions")

    # --- and in the end -------------------------------------------------------------------------------------------

    def end_well(self) -> None:
        """Nothing disturbs what follows any more: all is delivered, clean and sound, and each version comes back."""
        self._type("journal update --confirm-deletions", codes=(0,))
        # What is not sent before it is gone stays in the journal when nothing is ever retired there.
        self._type("file upload", codes=(0,) if self.is_full else (0, SOME_FAILED))
        self._type("journal checkin", codes=(0, NOT_CHECKED_OUT))
        objects = self.site.cloud.objects()
        self._require(LOCK not in objects, "the journal is locked")
        self._type("journal check", codes=(0,))
        self._type("file list --output-file list.txt", codes=(0,))
        pending = set((self.site.home / "list.txt").read_text().splitlines())
        self._require(not self.is_full or not pending, "something is still to upload")
        self._require(not pending & set(contents(self.site.source)), "something that is there is still to upload")
        stored = self._stored(objects)
        wanted = {md5 for path, md5 in self.versions[list(self.versions)[-1]].items() if path not in pending}
        self._require(wanted <= set(stored.values()), "something of the last version was never stored")
        for label in self.versions:
            self._verify(label)
            self._bring_back(label)
        self._leaves_nothing()

    def _verify(self, label: str) -> None:
        """All that was delivered is there. Beside it may be what was sent, not recorded, and changed since then."""
        line = f"--json file verify --deep --version {label}"
        for each in self._events(line, "file-verified", codes=(0, SOME_FAILED, 2)):
            self._require(each["result"] in ("matched", "not-in-journal"), f"{label}: {each}")

    def _bring_back(self, label: str) -> None:
        target = self.site.home.with_name("restored") / label
        line = f"--json file download --version {label} --to {target}"
        refused = self._events(line, "file-not-downloaded", codes=(0, SOME_FAILED))
        delivered = set(self.delivered.values())
        never = {path for path, md5 in self.versions[label].items() if md5 not in delivered}
        self._require({each["kind"] for each in refused} <= {"not-delivered"}, f"{label}: {refused}")
        missing = {each["path"] for each in refused}
        self._require(never <= missing, f"{label}: {never - missing} was never delivered, and is there")
        found = {path: _md5(body) for path, body in contents(target).items()}
        wanted = {path: md5 for path, md5 in self.versions[label].items() if path not in missing}
        self._require(found == wanted, f"{label} did not come back as it was: {sorted(found.items() ^ wanted.items())}")
        self.figures.count("files brought back", len(found))
        shutil.rmtree(target)

    def _events(self, line: str, kind: str, *, codes: Sequence[int]) -> list[dict[str, str]]:
        out = self._type(line, codes=codes).out
        return [event for event in map(json.loads, out.splitlines()) if event["event"] == kind]

    def _leaves_nothing(self) -> None:
        """No temporary file stays behind."""
        usual = {"config.toml", "journal.db", "journal.db-wal", "journal.db-shm", "journal.db.writer", "list.txt"}
        at_home = {path.name for path in self.site.home.iterdir()} - usual
        self._require(not at_home, f"left at home: {at_home}")
        tmp = [path for path in self.site.home.with_name("tmp").rglob("*") if path.is_file()]
        self._require(not tmp, f"temporary files: {tmp}")

    def _require(self, condition: object, what: str) -> None:
        assert condition, f"seed {self.seed}, after {self.kills} kills: {what}\n" + "\n".join(self.typed[-25:])


# An interruption can come between a file and the block that closes it. Nobody but a test is warned of that.
_UNCLOSED = re.compile(r"^Exception ignored in: <_io\..*\n(?:(?:Traceback| ).*\n)*ResourceWarning: .*\n", re.MULTILINE)

_DELIVERED = "SELECT key, d.file_id, d.md5 FROM delivery d ORDER BY d.file_id"

_UNDELIVERED = """
    SELECT ltrim(d.path || '/' || f.name, '/'), f.fingerprint FROM file f JOIN directory d ON d.id = f.directory_id
    WHERE f.id NOT IN (SELECT file_id FROM delivery)
"""


def _ask(journal: Path, question: str) -> list[tuple]:  # type: ignore[type-arg]
    with closing(sqlite3.connect(journal)) as database:
        try:
            return database.execute(question).fetchall()
        except sqlite3.OperationalError:
            # It is made just now.
            return []


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def new_life(root: Path, cloud: Cloud, program: Program, *, seed: int, is_full: bool, figures: Figures) -> Life:
    """A site at the beginning of its life."""
    from tests.e2e.conftest import settle

    (root / "tmp").mkdir(parents=True)
    (root / "source").mkdir()
    site = settle(root / "home", root / "source", cloud, mode="full" if is_full else "append")
    life = Life(site, program, seed, is_full, figures)
    life.tree.live()
    return life
