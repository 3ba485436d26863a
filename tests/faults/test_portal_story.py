"""A log-in page that answers everything for a while, in the middle of a command of a site."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.e2e.clouds import JOURNAL, LOCK, ask, fetched, files_of, manifest_of, tables_of
from tests.e2e.conftest import settle
from tests.e2e.mortal_program import Program
from tests.e2e.site import Site
from tests.faults.campaign import Campaign, Watch
from tests.faults.figures import Figures
from tests.faults.hasty_program import PART
from tests.faults.services import SERVICES, Services
from tests.faults.troubles import portal
from tests.trees import Bytes, build, contents
from tests.wire import Fault, Request, Wire

FILES = {f"{patient}/Images/scan.dcm": Bytes(1_000 + patient) for patient in range(1001, 1041)}
LARGE = {"1050/Waveforms/large.h5": Bytes(PART + 7)}


@pytest.fixture
def program(hasty_program: Program) -> Program:
    return hasty_program


@contextmanager
def a_site(services: Services, service: str, program: Program, root: Path) -> Iterator[Campaign]:
    cloud, port = services.cloud(service)
    with Wire(port) as wire:
        cloud = dataclasses.replace(cloud, port=wire.port)  # type: ignore[type-var]
        site = settle(root / "home", build(root / "source", {**FILES, **LARGE}), cloud, threads=4)
        (root / "elsewhere").mkdir()
        yield Campaign(program, site, wire, Watch(site, wire))


class ForAWhile:
    """The portal answers the requests from one number to another, whatever they are."""

    def __init__(self, first: int, last: int) -> None:
        self._answered = range(first, last)
        self._number = 0
        self._lock = threading.Lock()

    def __call__(self, _: Request) -> Fault | None:
        with self._lock:
            self._number += 1
            return portal(200) if self._number in self._answered else None


class Once:
    """It answers the first writing request for a key."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.met = 0

    def __call__(self, request: Request) -> Fault | None:
        is_for_it = re.search(rf"{re.escape(self.key)}(?![\w.])", unquote(request.target))
        if self.met or not is_for_it or request.method not in ("PUT", "POST"):
            return None
        self.met += 1
        return portal(200)


def written_once(site: Campaign, command: str, key: str) -> None:
    site.wire.chance = once = Once(key)
    ended = site.type(command)
    assert ended.exit_code == 0, site.told(command, ended)
    assert once.met
    site.wire.chance = None


@pytest.mark.parametrize("service", SERVICES)
def test_it_answers_for_a_while_in_the_middle_of_an_upload(
    service: str, services: Services, program: Program, tmp_path: Path, figures: Figures
) -> None:
    """Nothing is falsely delivered, nothing is refused, and the run goes on."""
    with a_site(services, service, program, tmp_path) as it:
        site = it.site
        it.watch.expect(contents(site.source), "spring")
        assert it.type("journal update --version spring").exit_code == 0
        it.wire.chance = ForAWhile(20, 35)
        ended = it.type("file upload")
        assert ended.exit_code == 0, it.told("file upload", ended)
        it.wire.chance = None
        it.watch.look()
        objects = site.cloud.objects()
        assert files_of(objects) == {f"spring/{path}": body for path, body in contents(site.source).items()}
        assert set(manifest_of(objects, "spring")) == set(files_of(objects))
        assert LOCK not in objects
        assert tables_of(site.journal) == tables_of(fetched(site.cloud, tmp_path / "elsewhere"))
        assert it.type("file verify").exit_code == 0
    figures.count("faults", 15)


@pytest.mark.parametrize("service", SERVICES)
def test_it_answers_for_the_lock_and_for_the_journal(
    service: str, services: Services, program: Program, tmp_path: Path, figures: Figures
) -> None:
    """There are no two holders, and no check-in that only seemed to succeed."""
    with a_site(services, service, program, tmp_path) as it:
        site = it.site
        assert it.type("journal update --version spring").exit_code == 0
        written_once(it, "journal checkout", LOCK)
        lock_id = ask(site.journal, "SELECT lock_id FROM custody")[0][0]
        assert str(lock_id).encode() in site.cloud.objects()[LOCK]
        other = Site(tmp_path / "other", site.source, site.cloud)
        other.configure(site.config.read_text().replace(str(site.home), str(other.home)))
        other.run("journal", "checkout", exit_code=10)

        build(site.source, {"OMOP/person.csv": "person_id\n1\n"})
        assert it.type("journal update --version summer").exit_code == 0
        before = site.cloud.objects()[JOURNAL]
        written_once(it, "journal checkin", JOURNAL)
        after = site.cloud.objects()
        assert after[JOURNAL] != before
        assert LOCK not in after
        assert tables_of(site.journal) == tables_of(fetched(site.cloud, tmp_path / "elsewhere"))
    figures.count("faults", 2)
