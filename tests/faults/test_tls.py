"""Whoever stands between us and a service is told nothing, on every way to every service.

An impostor listens where the service should be, with a certificate of an issuer whom nobody knows, for another host,
or from the past. Every command ends with the exit code for that, at once and not after its patience, and not one
request, with the credentials in it, was ever sent. With the right certificate the same commands work.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chorus_upload.errors import TlsError
from tests.e2e.ends import End
from tests.e2e.site import Site
from tests.emulators import Authority
from tests.faults.figures import Figures
from tests.trees import Bytes, build
from tests.wire import Wire

TREE = {"OMOP/person.csv": Bytes(3_000), "1001/Images/scan.dcm": Bytes(70_000)}
KINDS = ("az", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("s3", "gs")))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's own, which the configuration names."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def impostors(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ssl.SSLContext]:
    unknown = Authority(tmp_path_factory.mktemp("unknown"))
    return {
        "an unknown issuer": unknown.server("127.0.0.1"),
        "another host": authority.server("storage.elsewhere.example", "127.0.0.2"),
        "an expired certificate": authority.server("127.0.0.1", until=-timedelta(hours=1)),
    }


@pytest.fixture
def place(request: pytest.FixtureRequest, end: Callable[[str, str], End]) -> tuple[End, int]:
    """An empty place of the kind that the test names, and the port of its service."""
    kind = request.param
    return end(kind, "central"), request.getfixturevalue({"az": "azurite", "s3": "seaweedfs", "gs": "gcs"}[kind]).port


def settled(tmp_path: Path, cloud: End, source: str, bundle: Path | None) -> Site:
    """A site with a patience that would be noticed."""
    site = Site(tmp_path / "home", build(tmp_path / "source", TREE), cloud)
    trusted = f'ca_bundle = "{bundle}"' if bundle else ""
    site.configure(
        f"""
[configuration]
retry_seconds = 600
{trusted}
[journal]
journaling_mode = "full"
[journal.local]
path = "{site.journal}"
{cloud.config}
[site_path.default]
{source}
"""
    )
    return site


def behind(cloud: End, port: int, wire: Wire) -> End:
    """The same place, reached by TLS through the wire."""
    return replace(cloud, auth=cloud.auth.replace(f"http://127.0.0.1:{port}", f"https://127.0.0.1:{wire.port}"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_an_impostor_in_the_place_of_the_central_store(
    place: tuple[End, int],
    authority: Authority,
    impostors: Mapping[str, ssl.SSLContext],
    tmp_path: Path,
    figures: Figures,
) -> None:
    cloud, port = place
    prepared = settled(tmp_path, cloud, f'path = "{tmp_path}/source"', None)
    prepared.run("journal", "update", "--version", "spring")
    before = cloud.objects()
    for context in impostors.values():
        with Wire(port, tls=context) as wire:
            site = settled(tmp_path, behind(cloud, port, wire), f'path = "{tmp_path}/source"', authority.bundle)
            for command in ("journal update", "file upload", "file verify", "remote list", "remote upload home notes/"):
                arguments = command.replace("home", f"-r {tmp_path}/source").split()
                ran = site.run(*arguments, exit_code=TlsError.exit_code)
                figures.count("commands refused")
                assert "not trusted" in ran.err
            assert "not trusted" in site.run("config", "check", "--online", exit_code=None).out
            assert wire.requests == [], "a credential was sent to somebody else"
    assert cloud.objects() == before


@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_with_the_right_certificate_everything_works(
    place: tuple[End, int], authority: Authority, tmp_path: Path, figures: Figures
) -> None:
    cloud, port = place
    with Wire(port, tls=authority.server("127.0.0.1")) as wire:
        site = settled(tmp_path, behind(cloud, port, wire), f'path = "{tmp_path}/source"', authority.bundle)
        site.run("journal", "update", "--version", "spring")
        site.run("file", "upload")
        site.run("file", "verify", "--deep")
        site.run("file", "download", "--to", str(tmp_path / "back"))
        figures.count("requests over TLS", len(wire.requests))
        assert "not trusted" not in site.run("config", "check", "--online").out
    assert {f"data/spring/{path}" for path in TREE} <= cloud.objects().keys()

    with Wire(port, tls=authority.server("127.0.0.1")) as wire:
        # Without `ca_bundle` the hospital's own authority is an unknown one.
        site = settled(tmp_path, behind(cloud, port, wire), f'path = "{tmp_path}/source"', None)
        site.run("file", "upload", exit_code=TlsError.exit_code)
        assert wire.requests == []


def _of_the_service(cloud: End, port: int, wire: Wire) -> str:
    return f'path = "{cloud.path}"\n[site_path.default.auth]\n{behind(cloud, port, wire).auth}'


def _web(address: str) -> Callable[[End, int, Wire], str]:
    return lambda _cloud, _port, wire: f'path = "{address.replace("PORT", str(wire.port))}"'


SOURCES: dict[str, tuple[str, Callable[[End, int, Wire], str]]] = {
    "az": ("az", _of_the_service),
    "s3": ("s3", _of_the_service),
    "gs": ("gs", _of_the_service),
    "https": ("az", _web("https://127.0.0.1:PORT/images/?sig=a-secret")),
    "zip": ("az", _web("zip://::https://someone:secret@127.0.0.1:PORT/images.zip")),
    "tar": ("az", _web("tar://::https://127.0.0.1:PORT/images.tar.gz")),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("place", "source"),
    [
        pytest.param(*each, id=name, marks=[] if name == "https" else [pytest.mark.thorough])
        for name, each in SOURCES.items()
    ],
    indirect=["place"],
)
def test_an_impostor_in_the_place_of_a_source(
    place: tuple[End, int],
    source: Callable[[End, int, Wire], str],
    authority: Authority,
    impostors: Mapping[str, ssl.SSLContext],
    tmp_path: Path,
    figures: Figures,
) -> None:
    cloud, port = place
    central = build(tmp_path / "central", {"data/.keep": ""})
    ours = End(str(central), "", print, dict)
    for context in impostors.values():
        with Wire(port, tls=context) as wire:
            site = settled(tmp_path, ours, source(cloud, port, wire), authority.bundle)
            ran = site.run("journal", "update", exit_code=TlsError.exit_code)
            figures.count("commands refused")
            assert "not trusted" in ran.err
            assert wire.requests == [], "a credential was sent to somebody else"
