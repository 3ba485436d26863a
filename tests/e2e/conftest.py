"""Sites with the configuration of today; the generations before it are in `test_two_submissions.py`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.clouds import Cloud, Container, Disk
from tests.e2e.ends import end
from tests.e2e.site import Site
from tests.emulators import Azurite
from tests.trees import Content, Directory, build
from tests.wire import Wire

__all__ = ["azure_site", "container", "disk", "end", "in_memory", "site", "wire"]


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
    site = Site(home, source, cloud)
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


MEMORY = Path("/dev/shm")  # noqa: S108
"""A disk in memory, on systems that have one: for what waits for a real disk more than it works."""


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """A directory for this block, in memory if possible."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory for one test, in memory if possible."""
    with directory_in_memory() as directory:
        yield directory


def new_disk(root: Path) -> Disk:
    """An empty central store, and a place for the journal, on a disk."""
    return Disk(build(root, {"journal": Directory(), "data": Directory()}))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A site to which much has happened already. Each test gets it as if nothing had happened since."""

    site: Site
    root: Path
    copy: Path

    @classmethod
    def after(cls, root: Path, tree: Mapping[str, Content], commands: Iterable[tuple[str, ...]]) -> Self:
        """Let the commands happen to a new site with this source, whose cloud is a disk."""
        site = settle(root / "it" / "home", build(root / "it" / "source", tree), new_disk(root / "it" / "cloud"))
        for command in commands:
            site.run(*command)
        return cls(site, root / "it", shutil.copytree(root / "it", root / "copy"))

    def restore(self) -> Site:
        shutil.rmtree(self.root)
        shutil.copytree(self.copy, self.root)
        return self.site


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An empty central store, and a place for the journal, on a disk."""
    return new_disk(tmp_path / "cloud")


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
