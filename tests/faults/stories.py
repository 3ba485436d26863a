"""Commands that are killed, what went before, and the documented ways on after that."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.e2e.clouds import CENTRAL, Cloud
from tests.e2e.conftest import settle
from tests.e2e.mortal_program import Program
from tests.e2e.site import Site
from tests.e2e.test_upgrade import V1, V2, V2_APPEND, Kind, settle_old
from tests.faults.sweeping import Story, Typed, colleague, must
from tests.s3 import Bucket as S3Bucket
from tests.trees import Bytes, Content, build, contents, remove, rename

NOT_CHECKED_OUT, REFUSED = 11, 12
CHECKIN = Typed("journal checkin", (0, NOT_CHECKED_OUT))

MARK = Typed("file mark-as-uploaded-central --upload-datetime 20260301120000")
MARK_HERE = Typed("file mark-as-uploaded-local --upload-datetime 20260301120000")
LIST = Typed("file list --uploaded --output-file ../target/list.txt")
SEND = "remote upload -r ../source --to notes"

SPRING: dict[str, Content] = {
    "1001/Images/scan.dcm": Bytes(100),
    "1002/Images/large.dcm": Bytes((8 << 20) + 70_000),
    "OMOP/person.csv": "person_id\n1\n",
}


def uploaded(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded one version."""
    site = settle(root / "home", build(root / "source", SPRING), cloud, threads=1)
    must(program, site, "journal update --version spring")
    must(program, site, "file upload")
    return site


def recorded(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site whose one version another tool has put into the central store."""
    site = settle(root / "home", build(root / "source", SPRING), cloud, threads=1)
    must(program, site, "journal update --version spring")
    for path, body in contents(site.source).items():
        cloud.put(f"{CENTRAL}/spring/{path}", body)
    return site


def recorded_here(root: Path, cloud: Cloud, program: Program) -> Site:
    """The same, which has checked its journal out."""
    site = recorded(root, cloud, program)
    must(program, site, "journal checkout")
    return site


def locked(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site whose journal a colleague has checked out."""
    site = uploaded(root, cloud, program)
    must(program, colleague(site), "journal checkout")
    return site


def with_a_target(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded, and a directory for what is brought back."""
    (root / "target").mkdir()
    return uploaded(root, cloud, program)


def pruned_soon(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site with three versions, of which the second came and went without an upload."""
    site = uploaded(root, cloud, program)
    build(site.source, {"1003/Images/brief.dcm": Bytes(10), "OMOP/person.csv": "person_id\n2\n"})
    must(program, site, "journal update --version summer")
    remove(site.source / "1003")
    build(site.source, {"OMOP/person.csv": "person_id\n3\n"})
    must(program, site, "journal update --version autumn --confirm-deletions")
    must(program, site, "file upload")
    return site


def refused(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded under a lock that a colleague has broken, who has worked on since."""
    site = settle(root / "home", build(root / "source", SPRING), cloud, threads=1)
    must(program, site, "journal update --version spring")
    must(program, site, "journal checkout")
    must(program, site, "file upload")
    other = colleague(site)
    must(program, other, "journal unlock --yes")
    must(program, other, "journal list")
    build(site.source, {"OMOP/death.csv": "person_id\n"})
    must(program, other, "journal update --version summer")
    must(program, site, "journal checkin", codes=(REFUSED,))
    return site


def old(kind: Kind) -> Story:
    def prepare(root: Path, cloud: Cloud, _: Program) -> Site:
        return settle_old(root, cloud, kind)

    return Story(
        prepare,
        "journal upgrade",
        (
            (Typed("journal upgrade"),),
            # Whoever cannot go on now gives the journal back; then it is upgraded tomorrow, if it was not yet.
            (Typed("journal checkin", (0, 11, 14)), Typed("journal upgrade")),
        ),
    )


def old_file(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has a copy of an old journal beside its own."""
    site = uploaded(root, cloud, program)
    (site.home / "old.db").write_bytes(V2.content)
    return site


def restored(site: Site) -> object:
    """What was brought back, and whether with the times of the sources."""
    target = site.home.with_name("target")

    def has_its_time(path: str) -> bool:
        return (target / path).stat().st_mtime_ns // 1_000 == (site.source / path).stat().st_mtime_ns // 1_000

    return {path: (body, has_its_time(path)) for path, body in contents(target).items()}


def brought(site: Site) -> object:
    return contents(site.home.with_name("target"))


UPGRADES = [pytest.param(old(kind), id=f"upgrade of {kind.name}") for kind in (V1, V2, V2_APPEND)]
STORIES = [
    *UPGRADES,
    pytest.param(
        Story(
            old_file,
            "journal upgrade --local-journal old.db --same-destination",
            ((Typed("journal upgrade --local-journal old.db --same-destination"),),),
        ),
        id="upgrade of a file",
    ),
    pytest.param(
        Story(
            refused,
            "journal merge",
            (
                (Typed("journal merge"), Typed("file upload"), Typed("file verify --version spring")),
                # Given back first, as after any interruption; it may be refused once more.
                (Typed("journal checkin", (0, NOT_CHECKED_OUT, REFUSED)), Typed("journal merge"), Typed("file upload")),
                # By the name of what was moved aside; as often as one likes.
                (Typed("journal merge {aside}"), Typed("journal merge"), Typed("file upload")),
            ),
        ),
        id="merge",
    ),
    pytest.param(
        Story(
            uploaded,
            "file download --version spring --to ../target",
            (
                (Typed("file download --version spring --to ../target"),),
                (Typed("file download --version spring --to ../target --reread"),),
                (Typed("file download --version spring --to ../target --overwrite"),),
            ),
            more=restored,
        ),
        id="download",
    ),
    pytest.param(
        Story(
            recorded,
            "file mark-as-uploaded-central --upload-datetime 20260301120000",
            (
                (MARK, Typed("file upload")),
                (
                    CHECKIN,
                    MARK,
                    Typed("file upload"),
                ),
            ),
            # An upload goes on with a submission that was interrupted, and leaves a manifest of it, too.
            may_differ=frozenset({"beside"}),
        ),
        id="mark as uploaded",
    ),
    pytest.param(
        Story(
            uploaded,
            "file mark-as-deleted --file OMOP/person.csv --version summer",
            (
                (Typed("file mark-as-deleted --file OMOP/person.csv --version summer", (0, 3)),),
                (CHECKIN, Typed("file mark-as-deleted --file OMOP/person.csv --version summer", (0, 3))),
            ),
        ),
        id="mark as deleted",
    ),
    pytest.param(
        Story(
            pruned_soon,
            "journal prune --keep 1 --yes",
            ((Typed("journal prune --keep 1 --yes"),), (CHECKIN, Typed("journal prune --keep 1 --yes"))),
        ),
        id="prune",
    ),
    pytest.param(
        Story(
            recorded_here,
            MARK_HERE.line,
            (
                (MARK_HERE, Typed("journal checkin"), Typed("file upload")),
                (Typed("journal checkin"), Typed("journal checkout"), MARK_HERE, CHECKIN, Typed("file upload")),
            ),
            may_differ=frozenset({"beside"}),
        ),
        id="mark as uploaded here",
    ),
    pytest.param(
        Story(
            locked,
            "journal unlock --yes",
            ((Typed("journal unlock --yes"), Typed("file upload")),),
        ),
        id="unlock",
    ),
    pytest.param(
        Story(uploaded, "journal list", ((Typed("journal list"),),)),
        id="list",
    ),
    pytest.param(
        Story(with_a_target, LIST.line, ((LIST,),), more=brought),
        id="list to a file",
    ),
    pytest.param(
        Story(
            uploaded,
            "remote upload -r ../source --to notes",
            (
                (Typed("remote upload -r ../source --to notes"),),
                (Typed("remote upload -r --overwrite ../source --to notes"),),
            ),
        ),
        id="remote upload",
    ),
    pytest.param(
        Story(
            uploaded,
            "remote download -r spring --to ../target",
            ((Typed("remote download -r spring --to ../target"),),),
            more=brought,
        ),
        id="remote download",
    ),
    pytest.param(
        Story(
            uploaded,
            "remote delete -r --yes spring/1001 spring/OMOP",
            ((Typed("remote delete -r --yes spring/1001 spring/OMOP", (0, 20, 23, 24, 25)),),),
        ),
        id="remote delete",
    ),
]


SMALL: dict[str, Content] = {f"{patient}/Images/scan.dcm": Bytes(100, edition=patient) for patient in (1001, 1002)}
LARGE: dict[str, Content] = {
    "1004/Images/large.dcm": Bytes((9 << 20) + 5),
    "1004/Images/small.dcm": Bytes(50),
    "OMOP/death.csv": "person_id\n",
}


def changed(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded one version, and has another one, with a large file, to upload."""
    site = settle(root / "home", build(root / "source", {"1001/Images/scan.dcm": Bytes(100)}), cloud, threads=1)
    must(program, site, "journal update --version spring")
    must(program, site, "file upload")
    build(site.source, LARGE)
    must(program, site, "journal update --version autumn")
    return site


def unfinished(site: Site) -> object:
    """What an upload in parts that nobody goes on with has left at the service, which costs money there."""
    cloud = site.cloud
    return cloud.service.sessions(cloud.name) if isinstance(cloud, S3Bucket) else None


def changing(root: Path, cloud: Cloud, program: Program) -> Site:
    """A site that has uploaded one version, and whose files have changed since."""
    site = settle(root / "home", build(root / "source", SMALL), cloud, threads=1)
    must(program, site, "journal update --version spring")
    must(program, site, "file upload")
    build(site.source, {"1001/Images/scan.dcm": Bytes(100, edition=2), "1003/Images/scan.dcm": Bytes(50)})
    rename(site.source, "1002", "2002")
    return site


UPDATE = Typed("journal update --version autumn --confirm-deletions")
UPDATING = Story(changing, UPDATE.line, ((UPDATE, Typed("file upload")), (CHECKIN, UPDATE, Typed("file upload"))))
UPLOAD = Story(changed, "file upload", ((Typed("file upload"),), (CHECKIN, Typed("file upload"))), more=unfinished)
AT_SERVICES = {"update": UPDATING, "upload": UPLOAD, **{str(each.id): cast(Story, each.values[0]) for each in STORIES}}
