"""Runs commands as whole processes and tells what they took; prints it; judges it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a command, or the medians of several: wall-clock seconds, CPU seconds and peak memory in bytes.

    The kernel hands the memory of the harness on to its children, so nothing smaller than that can be seen.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(command: Sequence[str | Path]) -> Measurement:
    """Runs `command` with its output thrown away. Raises RuntimeError with the end of its messages if it fails."""
    with tempfile.TemporaryFile() as messages:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages, close_fds=True
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            messages.seek(0)
            said = messages.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{said}")
    return Measurement(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * MAXRSS_UNIT)


def medians(runs: Sequence[Measurement]) -> Measurement:
    return Measurement(
        median(run.seconds for run in runs),
        median(run.cpu_seconds for run in runs),
        round(median(run.peak_bytes for run in runs)),
    )


def print_table(title: str, results: Mapping[str, Measurement], *, files: int | None = None) -> None:
    """One line for each command; with `files` also the time of one file."""
    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
    print(f"\n{title}")
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}" + (f"{'µs a file':>11}" if files else ""))
    for name, result in results.items():
        peak = f"{result.peak_bytes / 1e6:.0f}" if result.peak_bytes > floor else f"<{floor / 1e6:.0f}"
        line = f"{name:32}{result.seconds:9.2f}{result.cpu_seconds:9.2f}{peak:>9}"
        print(line + (f"{result.seconds / files * 1e6:11.1f}" if files else ""))


@dataclass(frozen=True, slots=True)
class Target:
    """`value` must not exceed `limit`; no value when there was nothing to compare with."""

    text: str
    value: float | None
    limit: float

    @property
    def missed(self) -> bool:
        return self.value is not None and self.value > self.limit


def judge(targets: Sequence[Target]) -> int:
    """Prints PASS or MISS for each target; returns the exit code of the benchmark."""
    print()
    for target in targets:
        verdict = "MISS" if target.missed else "PASS" if target.value is not None else "----"
        value = "not measured" if target.value is None else f"{target.value:.2f}"
        print(f"{verdict}  {target.text}: {value} (at most {target.limit:g})")
    return int(any(target.missed for target in targets))


def ratio(ours: Measurement, theirs: Measurement | None) -> float | None:
    """How many times as long ours takes."""
    return ours.seconds / theirs.seconds if theirs else None
