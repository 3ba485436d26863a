"""SIGKILL at any step of any command that holds the journal: what follows leads to where it would have led without.

Here every so-manieth step has its turn, other ones on other days; with `CHORUS_EVERY_STEP=1` in the environment all
of them.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.clouds import (
    CENTRAL,
    JOURNAL,
    LOCK,
    Cloud,
    Container,
    Disk,
    ask,
    fetched,
    files_of,
    manifest_for,
    manifest_of,
    others_of,
    tables_of,
)
from tests.e2e.conftest import new_disk, settle
from tests.e2e.mortal_program import KILLED, Program, running_program, steps_to_try
from tests.e2e.site import Site
from tests.trees import Bytes, Content, build

EVERY = 1 if os.environ.get("CHORUS_EVERY_STEP") else 20
TODAY = datetime.now(UTC).toordinal()

SPRING: dict[str, Content] = {
    **{f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1004)},
    "OMOP/person.csv": "person_id\n1\n",
}
AUTUMN: dict[str, Content] = {
    "1001/Images/scan.dcm": Bytes(100, edition=2),
    "1004/Images/scan.dcm": Bytes(50),
    "OMOP/death.csv": "person_id\n",
}

UPDATE = "journal update --version autumn"
IMPLICIT = (UPDATE, "file upload")
EXPLICIT = ("journal checkout", UPDATE, "file upload", "journal checkin")
NOTHING_TO_GIVE_BACK = 11


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running_program() as program:
        yield program


def settled(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded one version, and whose files have changed since then."""
    site = settle(root / "home", build(root / "source", SPRING), cloud, threads=1)
    (root / "elsewhere").mkdir()
    for command in ("journal update --version spring", "file upload"):
        typed(program, site, command)
    build(site.source, AUTUMN)
    return site


def typed(program: Program, site: Site, command: str, *, codes: Sequence[int] = (0,)) -> None:
    ended = program.run(*shlex.split(command), home=site.home)
    assert ended.exit_code in codes, f"{command}: {ended.exit_code}\n{ended.out}\n{ended.err}"


def goes_on(program: Program, site: Site, rest: Sequence[str], *, giving_back: bool) -> None:
    """What the documents say one does: type it again; or give the journal back first, from anywhere."""
    if giving_back:
        elsewhere = dataclasses.replace(site, home=site.home.with_name("elsewhere"))
        give_back = f"-c {site.config} journal checkin --local-journal {site.journal}"
        typed(program, elsewhere, give_back, codes=(0, NOTHING_TO_GIVE_BACK))
        assert LOCK not in site.cloud.objects()
        rest = IMPLICIT
    for command in rest:
        # The last step of a check-in that was killed may have been its last.
        typed(program, site, command, codes=(0, NOTHING_TO_GIVE_BACK) if command == "journal checkin" else (0,))


_STATE = {
    "files": """
        SELECT d.path, f.name, m.name, f.patient, f.size, hex(f.fingerprint), hex(f.md5), f.change, i.label, r.label,
            f.retirement, v.key, hex(v.md5), v.evidence, v.etag IS NOT NULL
        FROM file f JOIN directory d ON d.id = f.directory_id JOIN modality m ON m.id = f.modality_id
        JOIN version i ON i.id = f.introduced_by LEFT JOIN version r ON r.id = f.retired_by
        LEFT JOIN delivery v ON v.file_id = f.id ORDER BY d.path, f.name, f.id
    """,
    "versions": "SELECT label, mode, completed_us IS NOT NULL FROM version ORDER BY label",
    "submissions": "SELECT count(*), min(completed_us IS NOT NULL) FROM submission",
}


def everything_in(cloud: Cloud) -> dict[str, bytes]:
    """All but the hidden halves of files that a killed process leaves on a disk: no store lists them."""
    return {key: body for key, body in cloud.objects().items() if not key.rpartition("/")[2].startswith(".")}


def state_of(site: Site, *, evidence: str) -> dict[str, object]:
    """Where the commands have led: what the cloud holds, and what the journal says of it, but for times."""
    objects = everything_in(site.cloud)
    assert LOCK not in objects
    assert tables_of(site.journal) == tables_of(fetched(site.cloud, site.home.with_name("elsewhere")))
    assert ask(site.journal, "SELECT state FROM custody") == [("in",)]
    # Whoever looks into a journal leaves the last two.
    usual = {"journal.db", "journal.db.writer", "journal.db-wal", "journal.db-shm"}
    assert {path.name for path in site.home.glob("journal.db*")} <= usual
    assert 1 <= len(site.cloud.backups()) <= 3
    for version in ("spring", "autumn"):
        assert manifest_of(objects, version) == manifest_for(files_of(objects), version, evidence=evidence)
    state: dict[str, object] = {name: ask(site.journal, text) for name, text in _STATE.items()}
    return {"stored": files_of(objects), "beside": others_of(objects), **state}


def as_recorded(site: Site) -> dict[str, tuple[int, int]]:
    """Each object that the local journal calls delivered: a file that is put again is another file."""
    found = {}
    for (key,) in ask(site.journal, "SELECT key FROM delivery"):
        status = (site.cloud.root / CENTRAL / key).stat() if isinstance(site.cloud, Disk) else None
        found[key] = (status.st_ino, status.st_mtime_ns) if status else (0, 0)
    return found


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("story", [IMPLICIT, EXPLICIT], ids=["implicit", "explicit"])
def test_a_kill_before_every_step(story: tuple[str, ...], program: Program, in_memory: Path) -> None:
    root = in_memory / "site"
    site = settled(root, new_disk(root / "cloud"), program)
    if story is EXPLICIT:
        # As on another machine: the check-out has to fetch the journal.
        for path in site.home.glob("journal.db*"):
            path.unlink()
    begun = shutil.copytree(root, in_memory / "begun")
    for command in story:
        typed(program, site, command)
    expected = state_of(site, evidence="readback")

    wrong, killed = [], 0
    for number, command in enumerate(story):
        restore(root, begun)
        before = shutil.copytree(root, in_memory / f"before-{number}")
        steps = program.run(*shlex.split(command), home=site.home).steps
        begun = shutil.copytree(root, in_memory / f"after-{number}")
        for step in steps_to_try(steps, every=EVERY, offset=TODAY):
            for giving_back in {(step + TODAY) % 2 == 0} if EVERY > 1 else (False, True):
                restore(root, before)
                ended = program.run(*shlex.split(command), home=site.home, die_before=step)
                if ended.exit_code == 0:
                    # A few steps depend on the clock: this time it had fewer of them.
                    assert ended.steps < step
                    continue
                assert ended.exit_code == KILLED
                killed += 1
                recorded = as_recorded(site)
                try:
                    goes_on(program, site, story[number:], giving_back=giving_back)
                    ended_in = state_of(site, evidence="readback")
                    assert {name for name in expected if ended_in[name] != expected[name]} == set()
                    assert as_recorded(site).items() >= recorded.items()
                except AssertionError as error:
                    wrong.append(f"{command}, before step {step} of {steps}, {giving_back=}: {error}")
    assert wrong == []
    assert killed > 3


def restore(root: Path, copy: Path) -> None:
    shutil.rmtree(root)
    shutil.copytree(copy, root)


@pytest.mark.parametrize("command", IMPLICIT)
def test_a_kill_at_a_service(command: str, program: Program, container: Container, tmp_path: Path) -> None:
    site = settled(tmp_path, container, program)
    for earlier in IMPLICIT[: IMPLICIT.index(command)]:
        typed(program, site, earlier)
    deaths = 0
    for step in (3, 7, 12, 17):
        # Each goes on where the one before was killed.
        deaths += program.run(*shlex.split(command), home=site.home, die_before=step).exit_code == KILLED
    goes_on(program, site, IMPLICIT[IMPLICIT.index(command) :], giving_back=True)

    assert deaths >= 2
    objects = container.objects()
    assert LOCK not in objects
    assert files_of(objects).keys() == {f"spring/{path}" for path in SPRING} | {f"autumn/{path}" for path in AUTUMN}
    assert ask(site.journal, "SELECT count(*) FROM delivery") == [(len(SPRING) + len(AUTUMN),)]
    assert tables_of(site.journal) == tables_of(fetched(container, tmp_path))
    assert objects[JOURNAL] in container.backups().values()
    assert len(container.backups()) <= 3
