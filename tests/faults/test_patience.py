"""How long a service that fails is waited for: as long as was configured, and as long as the service itself asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.e2e.clouds import LOCK, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import THOROUGH, Figures
from tests.faults.services import SERVICES, Services
from tests.trees import Bytes, build, contents
from tests.wire import Answer, CutRequest, Delay, Fault, Request, Wire

PATIENCE = 1
LONGER = 20
"""How long a command may take that waits in vain, once before and once after, on a busy machine."""
TREE = {f"{patient}/Images/scan.dcm": Bytes(1_000) for patient in range(1001, 1031)}


@contextmanager
def a_site(
    services: Services, service: str, root: Path, *, threads: int = 4, patience: int = PATIENCE
) -> Iterator[tuple[Site, Wire]]:
    """A site on a wire to a service, whose files are in the journal."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        site = settle(root / "home", build(root / "source", TREE), cloud, threads=threads, patience=patience)
        site.run("journal", "update", "--version", "spring")
        yield site, wire


def _is_sent(request: Request) -> bool:
    """Whether it brings one of the files."""
    return request.method in ("PUT", "POST") and "scan.dcm" in request.target


def _is_fetched(request: Request) -> bool:
    return request.method == "GET" and "scan.dcm" in request.target


DOWN: dict[str, Fault] = {
    "429": Answer(429),
    "503 for an hour": Answer(503, (("Retry-After", "3600"),)),
    "resets": CutRequest(0),
}


@pytest.mark.parametrize("service", SERVICES if THOROUGH else SERVICES[:1])
@pytest.mark.parametrize("down", DOWN if THOROUGH else ["503 for an hour"])
def test_a_service_that_is_gone_from_the_beginning(
    down: str, service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    with a_site(services, service, tmp_path) as (site, wire):
        for command in (
            ("file upload", "journal update", "file verify", "remote list") if THOROUGH else ("file upload",)
        ):
            wire.chance = _counted(lambda _: True, DOWN[down], figures)
            begun = time.monotonic()
            assert "gave up" in site.run(*command.split(), exit_code=26).err
            figures.measure("longest wait in seconds", round(time.monotonic() - begun))
            assert time.monotonic() - begun < LONGER
            wire.chance = None
        _ends_well(site)


@pytest.mark.thorough
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("down", DOWN)
def test_a_service_that_goes_away_while_files_are_sent(
    down: str, service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    """It is not waited for once for each of all files: after some it is clear that it is gone, and the run ends."""
    with a_site(services, service, tmp_path) as (site, wire):
        for command, is_about_files in (
            ("file upload", _is_sent),
            ("file verify --deep", _is_fetched),
            ("file download --to back", _is_fetched),
        ):
            wire.chance = _going_away(is_about_files, DOWN[down], figures)
            begun = time.monotonic()
            site.run(*command.split(), exit_code=26)
            assert time.monotonic() - begun < 2 * LONGER
            wire.chance = None
            if command == "file upload":
                _ends_well(site)
        site.run("file", "verify", "--deep")
        site.run("file", "download", "--to", "back")
        assert contents(site.home / "back") == contents(site.source)


def _going_away(
    is_about_files: Callable[[Request], bool], down: Fault, figures: Figures
) -> Callable[[Request], Fault | None]:
    """After three files nothing is answered any more."""
    files: list[str] = []

    def happen(request: Request) -> Fault | None:
        if is_about_files(request):
            files.append(request.target)
        if len(files) < 4:
            return None
        figures.count("requests in vain")
        return down

    return happen


def _ends_well(site: Site) -> None:
    """The same again, when the service is back."""
    site.run("file", "upload")
    objects = site.cloud.objects()
    wanted = {f"spring/{path}": body for path, body in contents(site.source).items()}
    assert files_of(objects) == wanted
    assert LOCK not in objects
    assert site.pending() == set()


def _counted(is_meant: Callable[[Request], bool], fault: Fault, figures: Figures) -> Callable[[Request], Fault | None]:
    def happen(request: Request) -> Fault | None:
        if not is_meant(request):
            return None
        figures.count("requests in vain")
        return fault

    return happen


@pytest.mark.parametrize("service", SERVICES if THOROUGH else SERVICES[2:])
@pytest.mark.parametrize("says", ["seconds", "a date"] if THOROUGH else ["a date"])
@pytest.mark.parametrize("status", [429, 503] if THOROUGH else [429])
def test_it_is_left_alone_for_as_long_as_it_asks(
    status: int, says: str, service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    with a_site(services, service, tmp_path, threads=1, patience=60) as (site, wire):
        asked: list[tuple[str, float]] = []

        def refuse_once(request: Request) -> Fault | None:
            if not _is_sent(request):
                return None
            asked.append((request.target, time.time()))
            if len(asked) > 1:
                return None
            figures.count("refusals")
            # A date is told to the second.
            until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
            return Answer(status, (("Retry-After", "1" if says == "seconds" else format_datetime(until, usegmt=True)),))

        wire.chance = refuse_once
        site.run("file", "upload")
        (first, begun), (second, again) = asked[:2]
        assert first.partition("?")[0] == second.partition("?")[0]
        assert again - begun > 0.9
        _ends_well(site)


@pytest.mark.thorough
@pytest.mark.parametrize("service", SERVICES)
def test_a_storm_of_refusals_makes_it_send_less_at_once(
    service: str, services: Services, tmp_path: Path, figures: Figures
) -> None:
    """And nothing is lost in it, nor sent twice."""
    cloud, port = services.cloud(service)
    tree = {f"{patient}/Images/scan.dcm": Bytes(100) for patient in range(1001, 1121)}
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        site = settle(tmp_path / "home", build(tmp_path / "source", tree), cloud, threads=16, patience=60)
        site.run("journal", "update", "--version", "spring")
        at_once: list[int] = []
        refused: list[int] = []

        def storm(request: Request) -> Fault | None:
            if not _is_sent(request):
                return None
            at_once.append(wire.under_way)
            if 60 <= len(at_once) < 100:
                refused.append(len(at_once))
                return Answer(429)
            return Delay(0.05)

        wire.chance = storm
        site.run("file", "upload")
        figures.count("refusals", len(refused))
        figures.measure("peak requests at once before the storm", max(at_once[:60]))
        figures.measure("peak requests at once at its end", max(at_once[96:110]))
        assert len(refused) == 40
        assert max(at_once[96:110]) <= max(2, max(at_once[:60]) // 2)
        assert files_of(site.cloud.objects()) == {
            f"spring/{path}": body for path, body in contents(site.source).items()
        }
