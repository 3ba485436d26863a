"""SIGKILL before requests to a service, in the middle of large bodies, and before every other step of a command.

Here a few kills in a row; with `CHORUS_EVERY_STEP=1` in the environment an upload is killed before its every step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.clouds import Cloud, Container
from tests.e2e.mortal_program import Program, steps_to_try
from tests.emulators import Azurite
from tests.faults.figures import THOROUGH, Figures
from tests.faults.stories import AT_SERVICES
from tests.faults.sweeping import Kills, sweep_at_service
from tests.gs import Bucket as GsBucket
from tests.gs import Service
from tests.randomness import SEED
from tests.s3 import Bucket as S3Bucket
from tests.s3 import SeaweedFS


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
            token.touch(mode=0o600)
            token.write_text("ya29.a-token-of-the-tests")
            return lambda: GsBucket(gcs, gcs.create_bucket(), token)


def some(steps: int) -> list[list[int]]:
    """A few, spread over a run and those that go on after it."""
    return [[max(1, steps * part // 7 - SEED % 3) for part in (2, 3, 4, 5)]]


def each(steps: int) -> list[list[int]]:
    return [[step] for step in range(1, steps + 1)]


def every_sixth(steps: int) -> list[list[int]]:
    return [[step] for step in steps_to_try(steps, every=6, offset=SEED)]


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize(
    ("new_cloud", "name", "kills"),
    [
        pytest.param("azure", "upload", each if THOROUGH else some, id="upload at azure"),
        *(
            pytest.param("azure", name, every_sixth, id=f"{name} at azure", marks=pytest.mark.thorough)
            for name in ("update", "upgrade of journal-v2", "merge", "download", "mark as uploaded", "remote upload")
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
