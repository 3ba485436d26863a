"""Generated scripts: how quickly they are written, and what batches are worth beside a run of az for each file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.emulators import real

from .data import small_files, warm
from .measure import Measurement, Target, judge, measure, print_table
from .ours import PROGRAM, Site
from .servers import Destination, emulator

WRITTEN = 100_000
SENT = 2_000
ALONE = 20
"""Files that are sent by az alone, one after the other: what a script without batches would do."""


def bench_scripts(home: Path, work: Path) -> int:
    """Trees are below `home`, everything else below `work`. One round: a script takes long."""
    results: dict[str, Measurement] = {}
    for files in (WRITTEN // 10, WRITTEN):
        site = Site(work / f"write-{files}", small_files(home, files), "full", central=nowhere("central"))
        measure(site.update)
        results[f"script for {files:,} files"] = measure(listing(site, "azcli", site.home / "upload.sh"))
    print_table("Writing a script, one round", results)

    tree = small_files(home, SENT)
    warm(tree)
    sent: dict[str, Measurement] = {}
    for tool in ("azcli", "azcopy"):
        with fresh(work) as place, emulator(place, ()) as destination:
            sent[f"script with {tool}, 4 workers"] = run_script(tool, tree, destination, place)
    with fresh(work) as place, emulator(place, ()) as destination:
        alone = one_by_one(tree, destination)
    print_table(f"{SENT:,} files to an emulator, standalone scripts, one round", sent)
    each = alone.seconds / ALONE
    print(f"\n`az storage blob upload` for one file: {each:.2f} s, so {each * SENT:,.0f} s for {SENT:,} one by one")
    written = results[f"script for {WRITTEN:,} files"]
    return judge(
        [
            Target(f"a script for {WRITTEN:,} files, seconds", written.seconds, 10),
            Target("script with az / az for each file, 4 at once", seconds(sent, "azcli") * 4 / (each * SENT), 0.25),
        ]
    )


@contextmanager
def fresh(work: Path) -> Iterator[Path]:
    """A directory that is there for a block."""
    path = work / "run"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def nowhere(name: str) -> str:
    """An address in Azure that nobody asks."""
    return f"https://example.blob.core.windows.net/bench/{name}?sv=1&sig=none"


def listing(site: Site, tool: str, output: Path, *more: str) -> list[str | Path]:
    return [PROGRAM, "-c", site.config, "file", "list", "--output-type", tool, "--output-file", output, *more]


def run_script(tool: str, tree: Path, destination: Destination, place: Path) -> Measurement:
    site = Site(
        place / "site", tree, "full", central=destination.url("site"), journal=destination.url("journal/journal.db")
    )
    measure(site.update)
    script = place / "upload.sh"
    measure(listing(site, tool, script, "--standalone"))
    directories = os.pathsep.join([str(real("az").parent), str(real("azcopy").parent), os.environ["PATH"]])
    environment = {"PATH": directories, "AZURE_STORAGE_SAS_TOKEN": destination.sas, "HOME": str(place)}
    return measure(["bash", script, "--workers", "4"], env=environment)


def one_by_one(tree: Path, destination: Destination) -> Measurement:
    files = sorted(path for path in tree.rglob("*.dat"))[:ALONE]
    endpoint, _, container = destination.container_url.rpartition("/")
    commands = "".join(
        f"az storage blob upload --file '{path}' --container-name {container} --name {path.name}"
        f" --blob-endpoint {endpoint} --no-progress --only-show-errors --output none || exit\n"
        for path in files
    )
    environment = {
        "PATH": os.pathsep.join([str(real("az").parent), os.environ["PATH"]]),
        "AZURE_STORAGE_SAS_TOKEN": destination.sas,
    }
    return measure(["bash", "-c", commands], env=environment)


def seconds(results: dict[str, Measurement], tool: str) -> float:
    return next(result.seconds for name, result in results.items() if f" {tool}," in name)
