"""Services and networks in every kind of trouble: no wrong file is delivered, and no delivery is forgotten."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import settle
from tests.e2e.mortal_program import Program
from tests.faults.campaign import Campaign, Step, Watch, outcome_of, place_of, require_same
from tests.faults.figures import THOROUGH, Figures
from tests.faults.hasty_program import BLOCK, PART
from tests.faults.services import SERVICES, Services
from tests.faults.troubles import TROUBLES, Trouble, redirect
from tests.randomness import SEED
from tests.trees import Bytes, Content, build, bytes_of, contents
from tests.wire import Request, Wire

"""Of the day, unless it is given: what failed can be repeated with it."""
CAMPAIGNS = int(os.environ.get("CHORUS_CAMPAIGNS", "6" if THOROUGH else "1"))
SPRING: dict[str, Content] = {
    "1001/Images/scan.dcm": Bytes(100),
    "1002/Images/scan.dcm": Bytes(3_000),
}
LARGE = {"azure": 2 * BLOCK + 7, "s3": PART + 7, "google": 2 * BLOCK + 7}
"""What goes in two or three parts."""
AUTUMN: dict[str, Content] = {"1001/Images/scan.dcm": Bytes(100, edition=2), "1003/Images/scan.dcm": Bytes(50)}
GIVEN_IN_SPRING = {"OMOP/person.csv": Bytes(2_000), "OMOP/note.csv": Bytes(100_000)}
GIVEN_IN_AUTUMN = {"OMOP/death.csv": Bytes(70)}


@pytest.fixture
def program(hasty_program: Program) -> Program:
    return hasty_program


@contextmanager
def a_campaign(services: Services, service: str, program: Program, root: Path) -> Iterator[tuple[Campaign, list[Step]]]:
    """A new site at a service, on a wire, and its story."""
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        site = settle(root / "home", build(root / "source", {}), cloud, threads=2, more=place_of(cloud))
        (root / "elsewhere").mkdir()
        watch = Watch(site, wire)

        def spring() -> None:
            build(site.source, {**SPRING, "1002/Waveforms/large.h5": Bytes(LARGE[service])})
            given = {name: bytes_of(name, content) for name, content in GIVEN_IN_SPRING.items()}
            for name, content in given.items():
                cloud.put(f"given/{name}", content)
            watch.expect(contents(site.source) | given, "spring")

        def autumn() -> None:
            build(site.source, AUTUMN)
            given = {name: bytes_of(name, content) for name, content in GIVEN_IN_AUTUMN.items()}
            for name, content in given.items():
                cloud.put(f"given/{name}", content)
            watch.expect(contents(site.source) | given, "autumn")

        story = [
            Step("journal update --version spring", spring),
            Step("file upload"),
            Step("file verify --deep"),
            Step("file download --to back"),
            Step("journal checkout", autumn),
            Step("journal update --version autumn"),
            Step("file upload"),
            Step("journal checkin"),
            Step("remote list -r"),
            Step("remote download -r autumn --to inbox"),
        ]
        yield Campaign(program, site, wire, watch), story if THOROUGH else story[:2]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """Where the story leads without trouble, and the first of each kind of request that each of its commands makes."""

    outcome: dict[str, object]
    kinds: list[dict[str, Request]]


Calm = Callable[[str], Undisturbed]


@pytest.fixture(scope="module")
def known() -> dict[str, Undisturbed]:
    return {}


@pytest.fixture
def calm(services: Services, program: Program, tmp_path: Path, known: dict[str, Undisturbed]) -> Calm:
    """The story without trouble at a service; it is told once."""

    def tell(service: str) -> Undisturbed:
        if service not in known:
            with a_campaign(services, service, program, tmp_path / "calm") as (campaign, steps):
                kinds = campaign.tell(steps)
                known[service] = Undisturbed(outcome_of(campaign.site), kinds)
        return known[service]

    return tell


def _cases() -> list[tuple[str, Trouble]]:
    """Every trouble at every service; or today's sample of that."""
    every = {service: [each for each in TROUBLES if service in each.services] for service in SERVICES}
    if THOROUGH:
        return [(service, trouble) for service, troubles in every.items() for trouble in troubles]
    service = SERVICES[SEED % 3]
    draw = random.Random(SEED)  # noqa: S311
    return [(service, draw.choice([each for each in every[service] if each.survived and not each.is_slow]))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("service", "trouble"), _cases(), ids=lambda it: it if isinstance(it, str) else it.name)
def test_each_trouble_with_each_kind_of_request(
    trouble: Trouble, service: str, services: Services, program: Program, calm: Calm, tmp_path: Path, figures: Figures
) -> None:
    """Of each kind of request that a command makes the first meets it, until the command meets it no more."""
    expected = calm(service)
    with a_campaign(services, service, program, tmp_path / "storm") as (storm, steps):
        for step, kinds in zip(steps, expected.kinds, strict=True):
            met = storm.disturb(step, trouble, most=1 if trouble.is_slow else 1_000)
            figures.count("faults", len(met))
            meant = {kind for kind, request in kinds.items() if trouble.can_meet(request)}
            # Some trouble has a command go another way: to send what could not be copied, say.
            missed = meant - met
            enough = 0.8 * len(meant) if trouble.survived and not trouble.is_slow else min(1, len(meant))
            assert len(meant & met) >= enough, f"{step.command} did not meet it at {missed}"
        storm.tidy_up()
        require_same(outcome_of(storm.site), expected.outcome)


@pytest.mark.timeout(600)
@pytest.mark.thorough
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("status", [302, 308])
def test_nobody_is_followed_to_another_place(
    status: int, service: str, services: Services, program: Program, tmp_path: Path, figures: Figures
) -> None:
    """There the same service would answer: whoever went there would get what he wants, and leave his credentials."""
    _, port = services.cloud(service)
    with Wire(port) as elsewhere, a_campaign(services, service, program, tmp_path / "storm") as (storm, steps):
        for step in steps:
            figures.count("redirections", len(storm.disturb(step, redirect(status, elsewhere.port))))
        assert elsewhere.requests == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", SERVICES if THOROUGH else SERVICES[::2][SEED % 2 :][:1])
def test_any_trouble_at_any_time(
    service: str, services: Services, program: Program, calm: Calm, tmp_path: Path, figures: Figures
) -> None:
    """Each request may meet anything; what is drawn follows from CHORUS_SEED."""
    expected = calm(service)
    for number in range(CAMPAIGNS):
        seed = SEED * 1_000 + number
        with a_campaign(services, service, program, tmp_path / str(seed)) as (storm, steps):
            try:
                for step in steps:
                    figures.count("faults", storm.shake(step, random.Random(f"{seed} {step.command}"), share=0.1))  # noqa: S311
                storm.tidy_up()
                require_same(outcome_of(storm.site), expected.outcome)
            except AssertionError as error:
                raise AssertionError(f"CHORUS_SEED={SEED}, campaign {number}: {error}") from error
        figures.count("stories")
