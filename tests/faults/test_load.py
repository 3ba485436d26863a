"""A great deal of everything: files, bytes and requests at once. Memory and open files stay where they are.

Here a little of each; all of it, a million files and 20 GB among them, with `scripts/test --faults`.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median

import pytest

from tests.e2e.conftest import new_disk, settle
from tests.e2e.ends import End
from tests.e2e.site import MODULE, Site
from tests.faults.discarding import Discarding, running_discarding
from tests.faults.figures import THOROUGH, Figures

GB = 10**9
MOST_MEGABYTES = 300
CACHES_MEGABYTES = 100
"""What SQLite may keep in memory of the journal and of what is compared fills up in the course of a run."""


@dataclass(slots=True)
class Watched:
    """What a process used while it ran: each entry is one look."""

    seconds: float = 0.0
    megabytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self, process: int) -> None:
        # At its end a process has neither.
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{process}/status").read_text()
            resident = int(status.partition("VmRSS:")[2].split()[0]) // 1024
            self.descriptors.append(len(os.listdir(f"/proc/{process}/fd")))  # noqa: PTH208 - only their number
            self.megabytes.append(resident)

    def assert_flat(self) -> None:
        """In the last quarter of a long run it is no more than in the second, but for a little.

        That is for what is held: at the end a journal is copied and a manifest written, which takes more for a moment.
        """
        quarter = len(self.megabytes) // 4
        assert max(self.megabytes) <= MOST_MEGABYTES
        if quarter > 100:
            for used, margin in ((self.megabytes, CACHES_MEGABYTES), (self.descriptors, 16)):
                assert median(used[-quarter:]) <= median(used[quarter : 2 * quarter]) + margin, used[::quarter]


def watch(site: Site, *arguments: str, figures: Figures) -> Watched:
    """Run a command in a process of its own, with an eye on it; it has to succeed."""
    watched, over = Watched(), threading.Event()
    begun = time.monotonic()
    with subprocess.Popen(
        [*MODULE, "--quiet", *arguments],
        cwd=site.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def look() -> None:
            while not over.wait(0.05):
                watched.look(process.pid)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            _, said = process.communicate()
        finally:
            over.set()
            thread.join()
            process.kill()
    watched.seconds = time.monotonic() - begun
    assert process.returncode == 0, said
    name = " ".join(arguments[:2])
    figures.measure(f"longest seconds of {name}", round(watched.seconds))
    figures.measure(f"peak MB of {name}", max(watched.megabytes))
    figures.measure(f"peak descriptors of {name}", max(watched.descriptors))
    return watched


def plant(root: Path, files: int) -> None:
    """Small files, a hundred in each directory, all of them different."""
    numbers = count()
    while numbers_here := list(islice(numbers, min(100, files))):
        directory = root / f"{1000 + numbers_here[0] // 1000}" / "Images" / f"series-{numbers_here[0] // 100}"
        directory.mkdir(parents=True)
        for number in numbers_here:
            descriptor = os.open(directory / f"{number}.dcm", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"slice %d of a very small image" % number)
            os.close(descriptor)
        files -= len(numbers_here)


@contextmanager
def discarding_site(tmp_path: Path, *, threads: int, delay: float = 0.0) -> Iterator[tuple[Site, Discarding]]:
    """A site whose files go to a service that keeps none of them, and whose journal is kept on a disk."""
    journal = tmp_path / "cloud" / "journal"
    journal.mkdir(parents=True)
    with running_discarding(delay=delay) as service:
        cloud = End(f"{journal}", "", print, dict)
        site = Site(tmp_path / "home", tmp_path / "source", cloud)
        site.configure(
            f"""
[configuration]
num_threads = {threads}
retry_seconds = 30
fingerprint = "on-upload"
[journal]
journaling_mode = "full"
[journal.local]
path = "{site.journal}"
[journal.source]
path = "{journal}/journal.db"
[central_path]
path = "az://container/data"
[central_path.auth]
azure_account_url = "{service.url}"
azure_account_name = "account"
azure_account_key = "a2V5"
[site_path.default]
path = "{site.source}"
"""
        )
        yield site, service


@pytest.mark.timeout(3_600)
def test_many_small_files(in_memory: Path, figures: Figures) -> None:
    """Into the journal, to a fast store, and verified; then nothing has changed; then a few have."""
    number = 1_000_000 if THOROUGH else 1_500
    site = settle(in_memory / "home", in_memory / "source", new_disk(in_memory / "cloud"))
    plant(site.source, number)
    figures.count("files", number)

    watch(site, "journal", "update", "--version", "spring", figures=figures).assert_flat()
    watch(site, "file", "upload", figures=figures).assert_flat()
    watch(site, "file", "verify", figures=figures).assert_flat()
    watch(site, "journal", "update", "--version", "summer", figures=figures).assert_flat()
    (site.source / "1000/Images/series-0/0.dcm").write_text("another")
    watch(site, "journal", "update", "--version", "summer", figures=figures).assert_flat()

    assert site.pending() == {"1000/Images/series-0/0.dcm"}
    assert sum(len(names) for _, _, names in os.walk(in_memory / "cloud/data/spring")) >= number


@pytest.mark.timeout(3_600)
def test_very_large_files(tmp_path: Path, figures: Figures) -> None:
    """Files with holes: 200 GB are planned, 20 GB are really sent."""
    size = 10 * GB if THOROUGH else GB // 10
    with discarding_site(tmp_path, threads=8) as (site, service):
        for number in range(20):
            path = site.source / "1001" / "Waveforms" / f"{number}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, size)
        site.run("journal", "update", "--version", "spring")
        planned = site.run("--json", "file", "upload", "--dry-run").event("upload-planned")
        assert planned["pending"] == {"files": 20, "bytes": 20 * size}
        figures.count("GB planned", 20 * size // GB)
        before = service.figures()
        watched = watch(site, "file", "upload", "--max-num-files", "2", figures=figures)
        came = service.figures()

        assert came.bytes - before.bytes >= 2 * size
        figures.count("MB sent", (came.bytes - before.bytes) // 10**6)
        watched.assert_flat()
        assert len(site.uploaded()) == 2


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_many_requests_at_once(tmp_path: Path, figures: Figures) -> None:
    """Over a line on which every answer takes a second."""
    with discarding_site(tmp_path, threads=512, delay=1.0) as (site, service):
        plant(site.source, 20_000)
        site.run("journal", "update", "--version", "spring")
        watched = watch(site, "file", "upload", figures=figures)
        came = service.figures()

        watched.assert_flat()
        assert site.pending() == set()
        assert came.most_at_once >= 500
        assert came.most_at_once <= 512
        figures.measure("peak requests at once", came.most_at_once)
