"""The libraries that could send our requests, under one and the same load: the reason for the one that we use."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import peers, puts
from .servers import Destination, Service, discarding, emulator

AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run took: puts a second, CPU milliseconds a put, memory of all processes, and what was answered."""

    puts_a_second: float
    cpu_ms: float
    peak_bytes: int
    answers_md5: bool


def bench_candidates(work: Path, *, puts_in_all: int, rounds: int) -> int:
    """Every candidate in turn, in every round, in one process and in two."""
    services: dict[str, Service] = {}
    if nginx := peers.nginx():
        services["discarding endpoint"] = discarding(nginx)
    services["emulator"] = emulator
    python = peers.http_layers()
    for service_name, service in services.items():
        runs: defaultdict[str, list[Rate]] = defaultdict(list)
        for number in range(1, rounds + 1):
            print(f"{service_name}, round {number} of {rounds}", flush=True)
            for candidate in puts.CANDIDATES:
                for processes in (1, 2):
                    home = work / "run"
                    home.mkdir()
                    with service(home, ()) as destination:
                        rate = run(python, candidate, destination, puts_in_all=puts_in_all, processes=processes)
                    shutil.rmtree(home)
                    runs[f"{candidate}, {processes} process" + ("es" if processes > 1 else "")].append(rate)
        print_rates(f"{puts_in_all:,} puts of 10 kB, {AT_A_TIME} at a time, {service_name}", runs)
    return 0


def run(python: Path, candidate: str, destination: Destination, *, puts_in_all: int, processes: int) -> Rate:
    """The load, shared between processes that begin together when all are ready."""
    share = [str(puts_in_all // processes), str(AT_A_TIME // processes)]
    command: list[str | Path] = [python, puts.__file__, candidate, destination.container_url, destination.sas, *share]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for number in range(processes)
        ]
        for child in children:
            hear(child)
        begun = time.perf_counter()
        for child in children:
            tell(child)
        results = [json.loads(hear(child)) for child in children]
        seconds = time.perf_counter() - begun
    return Rate(
        puts_in_all / seconds,
        sum(result["cpu_seconds"] for result in results) * 1000 / puts_in_all,
        sum(result["peak_bytes"] for result in results),
        all(result["answers_md5"] for result in results),
    )


def hear(child: subprocess.Popen[str]) -> str:
    """The next line of a process; RuntimeError when it ended. What was wrong with it, it has said itself by then."""
    line = child.stdout.readline() if child.stdout else ""
    if not line:
        raise RuntimeError(f"{child.args!r} ended")
    return line


def tell(child: subprocess.Popen[str]) -> None:
    """Lets a process that waits begin."""
    if child.stdin:
        child.stdin.write("\n")
        child.stdin.flush()


def print_rates(title: str, runs: Mapping[str, Sequence[Rate]]) -> None:
    print(f"\n{title}")
    print(f"{'':36}{'puts/s':>9}{'CPU ms a put':>14}{'peak MB':>9}  answer carries MD5")
    for name, rates in runs.items():
        rate, cpu_ms, peak = (
            median(values)
            for values in zip(*((one.puts_a_second, one.cpu_ms, one.peak_bytes) for one in rates), strict=True)
        )
        carried = "yes" if all(one.answers_md5 for one in rates) else "no"
        print(f"{name:36}{rate:9,.0f}{cpu_ms:14.2f}{peak / 1e6:9.0f}  {carried}")
    print(flush=True)
