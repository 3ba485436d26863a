"""Kills a command before each of its steps, goes on as the documents say, and compares where that leads."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from chorus_upload.storage.guard import GUARD_NAME
from tests.e2e.clouds import JOURNAL, LOCK, Cloud, Disk, ask, files_of, others_of, tables_of
from tests.e2e.mortal_program import KILLED, Ended, Program, steps_to_try
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.trees import build, contents

OK = (0,)


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line, and how it may end."""

    line: str
    codes: Sequence[int] = OK


Way = tuple[Typed, ...]
"""What one types after the kill. `{aside}` stands for each journal that was moved aside by then."""


@dataclass(frozen=True, slots=True)
class Story:
    """A command that is killed.

    `prepare` makes the site and all that went before, in a directory of its own. `ways` are the documented ways on,
    the first of which is also what happens to the site that nobody disturbs. `more` says what else is to be the same
    in the end: what commands have made outside of the cloud and the journal.
    """

    prepare: Callable[[Path, Cloud, Program], Site]
    command: str
    ways: tuple[Way, ...]
    codes: Sequence[int] = OK
    more: Callable[[Site], object] = lambda _: None
    may_differ: frozenset[str] = frozenset()
    """What may be another after one of the ways on, for a reason that is said where the story is."""


def on_a_disk(story: Story, root: Path, cloud: Cloud, program: Program) -> Site:
    """The prepared site, with a directory for temporary files of its own."""
    (root / "tmp").mkdir(parents=True, exist_ok=True)
    return story.prepare(root, cloud, program)


def run(program: Program, site: Site, line: str, *, die_before: int | None = None) -> Ended:
    """Type a line at a site; its temporary files are beside its home."""
    tmp = {"TMPDIR": str(site.home.with_name("tmp"))}
    return program.run(*shlex.split(line), home=site.home, die_before=die_before, environment=tmp)


def must(program: Program, site: Site, line: str, *, codes: Sequence[int] = OK) -> Ended:
    """Type a line that has to end as it should."""
    ended = run(program, site, line)
    assert ended.exit_code in codes, f"{line}: {ended.exit_code}\n{ended.out}\n{ended.err}"
    assert "Traceback" not in ended.err, ended.err
    assert "unexpected" not in ended.err, ended.err
    return ended


def go(program: Program, site: Site, way: Way) -> None:
    for typed in way:
        asides = [path.name for path in asides_of(site)] if "{aside}" in typed.line else [""]
        for aside in asides:
            must(program, site, typed.line.format(aside=aside), codes=typed.codes)


def asides_of(site: Site) -> list[Path]:
    """The journals that were kept beside the local one, the oldest first."""
    return sorted(path for path in site.home.iterdir() if re.fullmatch(r"journal\.db\.\d{14}(-\d+)?", path.name))


_ROWS = {
    "files": """
        SELECT d.path, f.name, m.name, f.patient, f.size, hex(f.fingerprint), hex(f.md5), f.change, i.label, r.label,
            f.retirement, v.key, hex(v.md5)
        FROM file f JOIN directory d ON d.id = f.directory_id JOIN modality m ON m.id = f.modality_id
        JOIN version i ON i.id = f.introduced_by LEFT JOIN version r ON r.id = f.retired_by
        LEFT JOIN delivery v ON v.file_id = f.id ORDER BY d.path, f.name, f.id
    """,
    "versions": "SELECT label, mode, completed_us IS NOT NULL, pruned_us IS NOT NULL FROM version ORDER BY label",
    "open submissions": "SELECT count(*) FROM submission WHERE completed_us IS NULL",
    "custody": "SELECT state FROM custody",
}

_EVIDENCE = "SELECT DISTINCT evidence FROM delivery"
"""At a service, what arrived without being recorded is read back, and the rest is not."""


def end_of(site: Site, *, more: object) -> dict[str, object]:
    """All that a command can have changed, but for times, and for etags, which are made of times.

    Everything on the machine and in the cloud is looked at, so what is left there for good shows as a difference.
    """
    objects = site.cloud.objects()
    journal = build(site.home.with_name("elsewhere"), {"fetched.db": objects[JOURNAL]}) / "fetched.db"
    assert LOCK not in objects, "the journal is still locked"
    assert tables_of(site.journal) == tables_of(journal), "the local journal is not the cloud's"
    state: dict[str, object] = {f"{name} in the journal": ask(site.journal, text) for name, text in _ROWS.items()}
    if isinstance(site.cloud, Disk):
        state["evidence"] = ask(journal, _EVIDENCE)
        state["backups"] = 1 <= len(site.cloud.backups()) <= 3
    for table in ("alembic_version", "modality", "destination", "directory"):
        state[f"{table} in the journal"] = len(ask(journal, f"SELECT * FROM {table}"))  # noqa: S608 - of these names
    return {
        **state,
        "sound": ask(journal, "PRAGMA integrity_check"),
        # A guard is an empty file, which the next command removes that works in its directory.
        "stored": {key: body for key, body in files_of(objects).items() if not key.endswith(GUARD_NAME)},
        "beside": sorted(name for name in _without_times(others_of(objects)) if not name.endswith(GUARD_NAME)),
        "sources": contents(site.source),
        # Whoever looks into a journal leaves these two, with nothing in them.
        "at home": {name for name in _without_times(_files_at(site.home)) if not name.endswith(("-wal", "-shm"))},
        "temporary files": _files_at(site.home.with_name("tmp")),
        "more": more,
    }


def _files_at(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def _without_times(names: Iterable[str]) -> set[str]:
    return {re.sub(r"\d{14}", "TIME", name) for name in names}


def sweep(
    story: Story, root: Path, cloud: Cloud, program: Program, *, every: int, offset: int, figures: Figures
) -> None:
    """Kill the command before every so-manieth step, on a disk, where all of it can be put back to how it was."""
    assert isinstance(cloud, Disk)
    site = on_a_disk(story, root, cloud, program)
    before = shutil.copytree(root, root.with_name("before"), symlinks=True)
    ended = must(program, site, story.command, codes=story.codes)
    go(program, site, story.ways[0])
    expected = end_of(site, more=story.more(site))

    wrong, turn = dict[str, list[int]](), count(offset)
    for step in steps_to_try(ended.steps, every=every, offset=offset):
        for way in story.ways if every == 1 else (story.ways[next(turn) % len(story.ways)],):
            shutil.rmtree(root)
            shutil.copytree(before, root, symlinks=True)
            killed = run(program, site, story.command, die_before=step)
            if killed.exit_code != KILLED:
                # A few steps depend on the clock: this time it had fewer of them.
                assert killed.exit_code in story.codes, killed
                continue
            figures.count("kills")
            try:
                go(program, site, way)
                trouble = differences(story, expected, end_of(site, more=story.more(site)))
            except AssertionError as error:
                trouble = str(error)[:700]
            if trouble:
                told = " / ".join(typed.line for typed in way)
                wrong.setdefault(f"then {told}: {trouble}", []).append(step)
    if wrong:
        told = "\n\n".join(f"before steps {steps}, {what}" for what, steps in wrong.items())
        pytest.fail(f"{story.command}, killed before one of its {ended.steps} steps:\n{told}", pytrace=False)


def sweep_at_service(
    story: Story, root: Path, new_cloud: Callable[[], Cloud], program: Program, *, groups: Kills, figures: Figures
) -> None:
    """The same at a service, which cannot be put back to how it was: each group of kills has a new site.

    Within a group each run goes on where the one before it was killed.
    """

    def settled(name: str) -> Site:
        return on_a_disk(story, root / name, new_cloud(), program)

    site = settled("undisturbed")
    steps = must(program, site, story.command, codes=story.codes).steps
    go(program, site, story.ways[0])
    expected = end_of(site, more=story.more(site))
    shutil.rmtree(root / "undisturbed")

    wrong = []
    for number, group in enumerate(groups(steps)):
        site = settled("disturbed")
        killed = [step for step in group if run(program, site, story.command, die_before=step).exit_code == KILLED]
        figures.count("kills", len(killed))
        try:
            go(program, site, story.ways[number % len(story.ways)])
            trouble = differences(story, expected, end_of(site, more=story.more(site)))
        except AssertionError as error:
            trouble = str(error)[:700]
        if trouble:
            wrong.append(f"before steps {killed}, then way {number % len(story.ways)}: {trouble}")
        shutil.rmtree(root / "disturbed")
    if wrong:
        pytest.fail(f"{story.command}, killed at one of its {steps} steps:\n" + "\n\n".join(wrong), pytrace=False)


Kills = Callable[[int], Sequence[Sequence[int]]]
"""Of so many steps, groups of those before which a process is killed."""


def differences(story: Story, expected: dict[str, object], found: dict[str, object]) -> str:
    """What is not as it should be, in words; "" when nothing is."""
    return "\n".join(
        f"{name}: {_shortened(found[name])} instead of {_shortened(expected[name])}"
        for name in expected
        if found[name] != expected[name] and name not in story.may_differ
    )


def _shortened(value: object) -> str:
    if isinstance(value, dict) and any(isinstance(body, bytes) and len(body) > 100 for body in value.values()):
        value = {key: hash(body) for key, body in value.items()}
    return repr(value)[:1_500]


def colleague(site: Site) -> Site:
    """Another machine, for the same journal and the same files."""
    home = site.home.with_name("colleague")
    other = dataclasses.replace(site, home=home)
    if not home.exists():
        text = site.config.read_text(encoding="utf-8").replace(str(site.journal), str(other.journal))
        other.configure(text)
    return other


__all__ = ["JOURNAL", "Story", "Typed", "Way", "asides_of", "colleague", "end_of", "go", "must", "run", "sweep"]
