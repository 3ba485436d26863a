"""Sites with the configuration of today; the generations before it are in `test_two_submissions.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clouds import Cloud, Container, Disk
from tests.e2e.site import Site
from tests.emulators import Azurite
from tests.trees import Directory, build
from tests.wire import Wire


def settle(
    home: Path,
    source: Path,
    cloud: Cloud,
    *,
    threads: int = 4,
    patience: int = 5,
    mode: str = "full",
    configuration: str = "",
    more: str = "",
) -> Site:
    """A site that sends what is in `source` to `cloud`; `configuration` and `more` are lines for `config.toml`."""
    site = Site(home, source, secrets=cloud.secrets)
    site.configure(
        f"""
[configuration]
num_threads = {threads}
retry_seconds = {patience}
{configuration}

[journal]
journaling_mode = "{mode}"

[journal.local]
path = "{site.journal}"
{cloud.config}
[site_path.default]
path = "{source}"
{more}
"""
    )
    return site


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An empty central store, and a place for the journal, on a disk."""
    return Disk(build(tmp_path / "cloud", {"journal": Directory(), "data": Directory()}))


@pytest.fixture
def site(tmp_path: Path, disk: Disk) -> Site:
    """A site whose cloud is a disk."""
    return settle(tmp_path / "home", tmp_path / "source", disk)


@pytest.fixture
def container(azurite: Azurite, azure_container: str) -> Container:
    """An empty container."""
    return Container(azurite, azure_container, azurite.sas(azure_container))


@pytest.fixture
def azure_site(tmp_path: Path, container: Container) -> Site:
    """A site whose cloud is a container on Azurite."""
    return settle(tmp_path / "home", tmp_path / "source", container)


@pytest.fixture
def wire(azurite: Azurite) -> Iterator[Wire]:
    """A wire to Azurite."""
    with Wire(azurite.port) as wire:
        yield wire
