"""A log-in page that answers longer than patience lasts, as nginx gives it: with a status, an ETag and HTML (Azure)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.clouds import JOURNAL, LOCK, Container, ask, files_of, manifest_for, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.troubles import PORTAL
from tests.trees import Bytes, Content, build, bytes_of
from tests.wire import Answer, Fault, Request, Wire

TREE: dict[str, Content] = {f"10{number:02d}/Images/scan.dcm": Bytes(500 + number) for number in range(30)}
OF_NGINX = (
    ("Server", "nginx"),
    ("Content-Type", "text/html"),
    ("ETag", '"5c8e1f2a-60"'),
    ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
    ("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="),
)
MORE = pytest.mark.thorough
SAID = "something between here and the service responded"


@dataclass(slots=True)
class Portal:
    """Answers in the place of the service what is `meant`, at most so often."""

    meant: Callable[[Request], bool]
    most: int = 1_000
    status: int = 200
    met: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Fault | None:
        if len(self.met) >= self.most or not self.meant(request):
            return None
        self.met.append(request)
        return Answer(self.status, OF_NGINX, PORTAL)


def site_on(wire: Wire, container: Container, tmp_path: Path, *, name: str = "home", patience: int = 0) -> Site:
    cloud = dataclasses.replace(container, port=wire.port)
    return settle(tmp_path / name, build(tmp_path / "source", TREE), cloud, patience=patience)


def puts(key: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and request.target.partition("?")[0].endswith(f"/{key}")


@pytest.mark.thorough
@pytest.mark.parametrize("status", [200, 201, 403, 404, 412])
def test_nothing_is_delivered_to_a_log_in_page(
    status: int, wire: Wire, container: Container, tmp_path: Path, figures: Figures
) -> None:
    """It comes when ten files have arrived, and goes; `test_portal_story.py` tells the same of every service."""
    site = site_on(wire, container, tmp_path, patience=30)
    site.run("journal", "update", "--version", "spring")
    wire.chance = portal = Portal(lambda _: wire.count("PUT", "/Images/") > 10, most=4, status=status)

    site.run("file", "upload")

    figures.count("pages", len(portal.met))
    assert len(portal.met) == 4
    expected = {f"spring/{path}": bytes_of(path, body) for path, body in TREE.items() if isinstance(body, Bytes)}
    assert files_of(container.objects()) == expected
    assert manifest_of(container.objects(), "spring") == manifest_for(expected, "spring", evidence="server")
    site.run("file", "verify", "--deep")


def test_a_page_that_stays_is_named(wire: Wire, container: Container, tmp_path: Path, figures: Figures) -> None:
    site = site_on(wire, container, tmp_path)
    site.run("journal", "update", "--version", "spring")
    wire.chance = portal = Portal(lambda request: "/Images/" in request.target)
    upload = site.run("--json", "file", "upload", exit_code=3)
    assert upload.event("upload-finished")["delivered"]["files"] == 0
    assert {each["kind"] for each in upload.events("file-failed")} == {"transient"}
    assert all(SAID in each["detail"] for each in upload.events("file-failed"))
    assert ask(site.journal, "SELECT * FROM delivery") == []
    assert manifest_of(container.objects(), "spring") == {}

    figures.count("pages", len(portal.met))
    wire.chance = Portal(lambda _: True, status=403)
    failed = site.run("file", "upload", exit_code=26)
    assert f"{SAID} (403, without x-ms-request-id)" in failed.err
    assert "`proxy`" in failed.err


@pytest.mark.parametrize("status", [201, pytest.param(412, marks=MORE)])
def test_a_page_for_the_journal_is_no_check_in(
    status: int, wire: Wire, container: Container, tmp_path: Path, figures: Figures
) -> None:
    site = site_on(wire, container, tmp_path)
    site.run("journal", "update", "--version", "spring")
    before = container.objects()[JOURNAL]
    site.run("journal", "checkout")
    (site.source / "1001/Images/more.dcm").write_text("more")
    site.run("journal", "update", "--version", "summer")
    wire.chance = portal = Portal(puts(JOURNAL), status=status)

    refused = site.run("journal", "checkin", exit_code=26)

    figures.count("pages", len(portal.met))
    assert SAID in refused.err
    assert container.objects()[JOURNAL] == before
    wire.chance = None
    site.run("journal", "checkin")
    assert container.objects()[JOURNAL] != before
    assert LOCK not in container.objects()
    assert "summer" in site.run("journal", "list").out


def test_a_page_for_the_lock_makes_no_holder(
    wire: Wire, container: Container, tmp_path: Path, figures: Figures
) -> None:
    ours, theirs = (site_on(wire, container, tmp_path, name=name) for name in ("ours", "theirs"))
    ours.run("journal", "update", "--version", "spring")
    wire.chance = portal = Portal(puts(LOCK))
    refused = ours.run("journal", "checkout", exit_code=26)
    figures.count("pages", len(portal.met))
    assert SAID in refused.err
    assert LOCK not in container.objects()

    wire.chance = None
    theirs.run("journal", "checkout")
    ours.run("journal", "checkout", exit_code=10)
    theirs.run("journal", "checkin")
