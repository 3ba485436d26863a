"""Runs commands as whole processes and tells what they took; prints it; judges it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import launch

LEAST_MEMORY = 16_000_000
"""What starts the commands may itself take that much, in bytes; less cannot be seen."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a command, or the medians of several: wall-clock seconds, CPU seconds and peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


Columns = Mapping[str, Callable[[Measurement], float]]
"""What a table has to tell besides seconds, CPU seconds and memory, by its heading."""


def measure(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Measurement:
    """Runs `command` with its output thrown away. Raises RuntimeError with the end of its messages if it fails.

    `env` is added to the environment.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", launch.__file__, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **(env or {})},
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return Measurement(**json.loads(done.stdout))


def medians(runs: Sequence[Measurement]) -> Measurement:
    return Measurement(
        median(run.seconds for run in runs),
        median(run.cpu_seconds for run in runs),
        round(median(run.peak_bytes for run in runs)),
    )


def print_table(title: str, results: Mapping[str, Measurement], columns: Columns | None = None) -> None:
    """One line for each command, with `columns` at its end."""
    columns = columns or {}
    print(f"\n{title}")
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}" + "".join(f"{heading:>14}" for heading in columns))
    for name, result in results.items():
        peak = f"{max(result.peak_bytes, LEAST_MEMORY) / 1e6:.0f}"
        peak = peak if result.peak_bytes > LEAST_MEMORY else f"<{peak}"
        line = f"{name:32}{result.seconds:9.2f}{result.cpu_seconds:9.2f}{peak:>9}"
        print(line + "".join(f"{value(result):14,.2f}" for value in columns.values()))


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
