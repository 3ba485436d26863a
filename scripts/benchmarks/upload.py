"""`file upload` beside rclone and azcopy: to an emulator of Azure, and to an endpoint that answers at once."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from . import peers
from .data import UploadTree, upload_tree, warm
from .measure import Columns, Measurement, Target, judge, measure, medians, print_table, ratio
from .ours import Site
from .servers import Destination, Service, discarding, emulator

OURS = "file upload"
EMULATOR = "emulator"
DISCARDING = "discarding endpoint"

Results = dict[str, Measurement]
Send = Callable[[UploadTree, Destination, Path], Measurement]
"""Sends a tree to a destination, with a directory to work in."""


def bench_upload(home: Path, work: Path, *, rounds: int, only: Collection[str], without: Collection[str]) -> int:
    """All the targets for uploads. Trees are below `home`, everything else below `work`, which is emptied."""
    services: dict[str, Service] = {EMULATOR: emulator}
    if nginx := None if "nginx" in without else peers.nginx():
        services[DISCARDING] = discarding(nginx)
    competitors: dict[str, Send] = {OURS: send_ours}
    if "rclone" not in without:
        competitors["rclone"] = rclone(peers.rclone())
    if azcopy_program := None if "azcopy" in without else peers.azcopy():
        competitors["azcopy"] = azcopy(azcopy_program)

    targets = []
    for name in only:
        tree = upload_tree(home, name)
        warm(tree.path)
        for service_name, service in services.items():
            print(f"{name} files, {service_name}", flush=True)
            results = compare(tree, service, competitors, work=work / "run", rounds=rounds)
            title = f"{tree.files:,} {name} files of {tree.size / 1e6:,.0f} MB in all, {service_name}, "
            print_table(f"{title}medians of {rounds} rounds", results, columns(tree))
            targets += judged(name, service_name, tree, results)
    return judge(targets)


def compare(tree: UploadTree, service: Service, competitors: Mapping[str, Send], *, work: Path, rounds: int) -> Results:
    """Each competitor in turn, in every round; each run has a service and a directory that nobody used before."""
    runs: defaultdict[str, list[Measurement]] = defaultdict(list)
    for _ in range(rounds):
        for name, send in competitors.items():
            work.mkdir()
            with service(work, tree.counts) as destination:
                runs[name].append(send(tree, destination, work))
                destination.check(files=tree.files, size=tree.size)
            shutil.rmtree(work)
    return {name: medians(measured) for name, measured in runs.items()}


def send_ours(tree: UploadTree, destination: Destination, work: Path) -> Measurement:
    """The whole command. The journal lies beside the files, as at a site, or on the disk where nothing is kept."""
    journal = destination.url("journal.db") if destination.keeps else None
    site = Site(work / "site", tree.path, "full", central=destination.url("site"), journal=journal)
    measure(site.update)
    return measure(site.upload)


def rclone(program: Path) -> Send:
    """Without options about checking: it asks for every file that it sent, and compares what it is told."""

    def send(tree: UploadTree, destination: Destination, _work: Path) -> Measurement:
        remote = f':azureblob,sas_url="{destination.container_url}?{destination.sas}":'
        remote += f"{destination.container_url.rpartition('/')[2]}/site"
        options = ["--config", os.devnull, "--transfers", "16", "--checkers", "16"]
        return measure([program, "copy", *options, tree.path, remote])

    return send


def azcopy(program: Path) -> Send:
    """With an MD5 for each file; it asks for the size of every file that it sent."""

    def send(tree: UploadTree, destination: Destination, work: Path) -> Measurement:
        options = ["--recursive", "--from-to", "LocalBlob", "--put-md5", "--skip-version-check"]
        places = {"AZCOPY_LOG_LOCATION": f"{work}/azcopy", "AZCOPY_JOB_PLAN_LOCATION": f"{work}/azcopy"}
        return measure([program, "copy", tree.path, destination.url("site"), *options], env=places)

    return send


def columns(tree: UploadTree) -> Columns:
    return {
        "files/s": lambda result: tree.files / result.seconds,
        "MB/s": lambda result: tree.size / 1e6 / result.seconds,
        "CPU ms a file": lambda result: cpu_of_one(tree, result),
    }


def cpu_of_one(tree: UploadTree, result: Measurement) -> float:
    """CPU milliseconds of the client for each file."""
    return result.cpu_seconds * 1000 / tree.files


def judged(name: str, service: str, tree: UploadTree, results: Results) -> list[Target]:
    """The targets for one tree and one service, if there are any."""
    ours = results[OURS]
    beside_rclone, beside_azcopy = (ratio(ours, results.get(peer)) for peer in ("rclone", "azcopy"))
    lead = f"{name}, {service}: "
    if (name, service) == ("small", EMULATOR):
        return [
            Target(f"{lead}upload / rclone", beside_rclone, round(1 / 1.2, 3)),
            Target(f"{lead}upload / azcopy", beside_azcopy, round(1 / 2.5, 3)),
        ]
    if (name, service) == ("large", EMULATOR):
        return [
            Target(f"{lead}upload / rclone", beside_rclone, round(1 / 1.1, 3)),
            Target(f"{lead}peak memory, MB", ours.peak_bytes / 1e6, 200),
        ]
    if (name, service) == ("small", DISCARDING):
        return [
            Target(f"{lead}upload / rclone", beside_rclone, 1),
            Target(f"{lead}CPU ms a file", cpu_of_one(tree, ours), 0.5),
        ]
    return []
