"""A site on its way to a second version, for tests that disturb it: what it does, and where it has to end."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.clouds import (
    CENTRAL,
    LOCK,
    Cloud,
    Disk,
    ask,
    fetched,
    files_of,
    manifest_for,
    manifest_of,
    others_of,
    tables_of,
)
from tests.e2e.conftest import settle
from tests.e2e.mortal_program import Program
from tests.e2e.site import Site
from tests.trees import Bytes, Content, build

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
BOTH_STORIES = pytest.mark.parametrize(
    "story",
    [pytest.param(IMPLICIT, id="implicit"), pytest.param(EXPLICIT, id="explicit", marks=pytest.mark.thorough)],
)


def settled(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded one version, and whose files have changed since then."""
    site = settle(root / "home", build(root / "source", SPRING), cloud, threads=1)
    (root / "elsewhere").mkdir()
    for command in ("journal update --version spring", "file upload"):
        typed(program, site, command)
    build(site.source, AUTUMN)
    return site


def about_to_type(story: tuple[str, ...], root: Path, cloud: Cloud, program: Program) -> Site:
    """The same site. Who checks out is on another machine, so that the journal has to be fetched."""
    site = settled(root, cloud, program)
    if story is EXPLICIT:
        for path in site.home.glob("journal.db*"):
            path.unlink()
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


def require_same(ended_in: dict[str, object], expected: dict[str, object]) -> None:
    """Hold two states against each other, and name what differs."""
    assert {name for name in expected if ended_in[name] != expected[name]} == set()


def as_recorded(site: Site) -> dict[str, tuple[int, int]]:
    """Each object that the local journal calls delivered: a file that is put again is another file."""
    found = {}
    for (key,) in ask(site.journal, "SELECT key FROM delivery"):
        status = (site.cloud.root / CENTRAL / key).stat() if isinstance(site.cloud, Disk) else None
        found[key] = (status.st_ino, status.st_mtime_ns) if status else (0, 0)
    return found


def restore(root: Path, copy: Path) -> None:
    shutil.rmtree(root)
    shutil.copytree(copy, root)
