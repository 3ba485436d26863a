"""SIGKILL before every step of the other commands that change something; `test_sigkill.py` has update and upload.

Here every so-manieth step has its turn, other ones on other days; with `CHORUS_EVERY_STEP=1` in the environment all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from tests.e2e.clouds import CENTRAL, Cloud, Container
from tests.e2e.conftest import new_disk, settle
from tests.e2e.mortal_program import Program, running_program, steps_to_try
from tests.e2e.site import Site
from tests.e2e.test_upgrade import V1, V2, V2_APPEND, Kind, settle_old
from tests.emulators import Azurite
from tests.faults.figures import THOROUGH, Figures
from tests.faults.sweeping import Kills, Story, Typed, colleague, must, sweep, sweep_at_service
from tests.gs import Bucket as GsBucket
from tests.gs import Service
from tests.s3 import Bucket as S3Bucket
from tests.s3 import SeaweedFS
from tests.trees import Bytes, Content, build, contents, remove

TODAY = datetime.now(UTC).toordinal()
NOT_CHECKED_OUT, REFUSED = 11, 12
CHECKIN = Typed("journal checkin", (0, NOT_CHECKED_OUT))

MARK = Typed("file mark-as-uploaded-central --upload-datetime 20260301120000")
SEND = "remote upload -r ../source --to notes"

SPRING: dict[str, Content] = {
    "1001/Images/scan.dcm": Bytes(100),
    "1002/Images/large.dcm": Bytes((8 << 20) + 70_000),
    "OMOP/person.csv": "person_id\n1\n",
}


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running_program() as program:
        yield program


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
    """What was brought back, with its times."""
    target = site.home.with_name("target")
    return {path: (body, (target / path).stat().st_mtime_ns // 1_000) for path, body in contents(target).items()}


def brought(site: Site) -> object:
    return contents(site.home.with_name("target"))


UPGRADES = [pytest.param(old(kind), id=f"upgrade of {kind.name}") for kind in (V1, V2, V2_APPEND)]
STORIES = [
    *UPGRADES[:2],
    pytest.param(
        Story(
            old_file,
            "journal upgrade --local-journal old.db",
            ((Typed("journal upgrade --local-journal old.db"),),),
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
        Story(uploaded, "journal list", ((Typed("journal list"),),)),
        id="list",
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


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("story", STORIES)
def test_a_kill_before_every_step(story: Story, program: Program, in_memory: Path, figures: Figures) -> None:
    root = in_memory / "site"
    every = 1 if THOROUGH else 40
    sweep(story, root, new_disk(root / "cloud"), program, every=every, offset=TODAY, figures=figures)


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


UPLOAD = Story(changed, "file upload", ((Typed("file upload"),), (CHECKIN, Typed("file upload"))), more=unfinished)
AT_SERVICES = {"upload": UPLOAD, **{str(each.id): cast(Story, each.values[0]) for each in STORIES}}


@pytest.fixture
def new_cloud(request: pytest.FixtureRequest) -> Callable[[], Cloud]:
    """Makes places at the service of this name."""
    match request.param:
        case "azure":
            azurite: Azurite = request.getfixturevalue("azurite")

            def new_container() -> Cloud:
                name = azurite.create_container()
                return Container(azurite, name, azurite.sas(name))

            return new_container
        case "s3":
            seaweedfs: SeaweedFS = request.getfixturevalue("seaweedfs")
            return lambda: S3Bucket(seaweedfs, seaweedfs.create_bucket())
        case _:
            gcs: Service = request.getfixturevalue("gcs")
            token: Path = request.getfixturevalue("tmp_path") / "token"
            token.write_text("a token")
            return lambda: GsBucket(gcs, gcs.create_bucket(), token)


def some(steps: int) -> list[list[int]]:
    """A few, spread over a run and those that go on after it."""
    return [[max(1, steps * part // 7 - TODAY % 3) for part in (2, 3, 4, 5)]]


def each(steps: int) -> list[list[int]]:
    return [[step] for step in range(1, steps + 1)]


def every_sixth(steps: int) -> list[list[int]]:
    return [[step] for step in steps_to_try(steps, every=6, offset=TODAY)]


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize(
    ("new_cloud", "name", "kills"),
    [
        pytest.param("azure", "upload", each if THOROUGH else some, id="upload at azure"),
        *(
            pytest.param("azure", name, every_sixth, id=f"{name} at azure", marks=pytest.mark.thorough)
            for name in ("upgrade of journal-v2", "merge", "download", "mark as uploaded", "remote upload")
        ),
        *(
            pytest.param(service, name, some, id=f"{name} at {service}", marks=pytest.mark.thorough)
            for service in ("s3", "gs")
            for name in ("upload", "merge", "download", "upgrade of journal-v2")
        ),
    ],
    indirect=["new_cloud"],
)
def test_a_kill_at_a_service(
    new_cloud: Callable[[], Cloud], name: str, kills: Kills, program: Program, in_memory: Path, figures: Figures
) -> None:
    """Before requests of every kind, and in the middle of the body of one."""
    sweep_at_service(AT_SERVICES[name], in_memory, new_cloud, program, groups=kills, figures=figures)
