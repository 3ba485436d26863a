"""`journal update` beside find, rclone and restic, on very many small files and on one large file."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from . import peers
from .data import large_file, small_files, warm
from .measure import Columns, Measurement, Target, judge, measure, medians, print_table, ratio
from .ours import Site

COMPARED_FILES = 200_000
"""Above this number the peers are left out: what is asked then is how ours grows."""

MODES = ("full", "append")

Results = dict[str, Measurement]


def bench_journal(home: Path, work: Path, *, files: int, rounds: int, without: Collection[str]) -> int:
    """All the targets for small files. Trees are below `home`, everything else below `work`, which is emptied."""
    compared = min(files, COMPARED_FILES)
    tree = small_files(home, compared)
    warm(tree)
    runs: defaultdict[str, list[Measurement]] = defaultdict(list)
    rclone = None if "rclone" in without else peers.rclone()
    restic = None if "restic" in without else peers.restic()
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", flush=True)
        runs["find"].append(measure(["find", tree, "-type", "f", "-printf", "%s %T@ %p\\n"]))
        if rclone:
            runs["rclone hashsum xxh128"].append(measure([rclone, "hashsum", "xxh128", tree]))
        if restic:
            first, unchanged = measure_restic(restic, tree, work / "restic")
            runs["restic, first backup"].append(first)
            runs["restic, unchanged"].append(unchanged)
        for name, result in measure_ours(tree, work, files=compared).items():
            runs[name].append(result)
    results = {name: medians(measured) for name, measured in runs.items()}
    print_table(f"{compared:,} small files, medians of {rounds} rounds", results, time_of_one(compared))
    targets = compare(results)

    if files > compared:
        tree = small_files(home, files)
        warm(tree)
        many = measure_ours(tree, work, files=files)
        print_table(f"{files:,} small files", many, time_of_one(files))
        targets += growth(results, compared, many, files)
    return judge(targets)


def time_of_one(files: int) -> Columns:
    return {"µs a file": lambda result: result.seconds / files * 1e6}


def measure_ours(tree: Path, work: Path, *, files: int) -> Results:
    """The first update and an unchanged one, in each mode, with a new journal."""
    results = {}
    for mode in MODES:
        site = Site(work / "site", tree, mode)
        results[f"journal update, {mode}, first"] = measure(site.update)
        results[f"journal update, {mode}, unchanged"] = measure(site.update)
        site.check(files)
        shutil.rmtree(site.home)
    return results


def measure_restic(restic: Path, tree: Path, work: Path) -> tuple[Measurement, Measurement]:
    """A first backup into a new repository, and a second one that finds nothing changed."""
    work.mkdir()
    password = work / "password"
    password.write_text("benchmark\n")
    command: list[str | Path] = [restic, "--quiet", "--repo", work / "repository", "--password-file", password]
    command += ["--cache-dir", work / "cache"]
    measure([*command, "init"])
    first, unchanged = measure([*command, "backup", tree]), measure([*command, "backup", tree])
    shutil.rmtree(work)
    return first, unchanged


def compare(results: Results) -> list[Target]:
    rclone, restic = results.get("rclone hashsum xxh128"), results.get("restic, unchanged")
    targets = []
    for mode in MODES:
        first, unchanged = (results[f"journal update, {mode}, {which}"] for which in ("first", "unchanged"))
        targets += [
            Target(f"{mode}: first update / rclone hashsum", ratio(first, rclone), 0.6),
            Target(f"{mode}: unchanged update / find", ratio(unchanged, results["find"]), 3),
            Target(f"{mode}: unchanged update / restic unchanged", ratio(unchanged, restic), 0.25),
        ]
    return targets


def growth(few: Results, few_files: int, many: Results, many_files: int) -> list[Target]:
    """Time a file must stay, within what two measurements can tell apart; memory must not grow with the tree."""
    targets = []
    for name, result in many.items():
        growth_a_file = (result.seconds / many_files) / (few[name].seconds / few_files)
        targets.append(Target(f"{name}: time a file / with {few_files:,}", growth_a_file, 1.25))
    peak = max(result.peak_bytes for result in many.values())
    return [*targets, Target(f"peak memory with {many_files:,} files, MB", peak / 1e6, 300)]


def bench_large(home: Path, work: Path, *, gibibytes: int, rounds: int) -> int:
    """The target for large files: hashing one costs hardly more than reading it."""
    tree = large_file(home, gibibytes)
    warm(tree)
    (path,) = (found for found in tree.rglob("*") if found.is_file())
    runs: defaultdict[str, list[Measurement]] = defaultdict(list)
    for _ in range(rounds):
        runs["cat"].append(measure(["cat", path]))
        site = Site(work / "site", tree, "full")
        runs["journal update"].append(measure(site.update))
        site.check(1)
        shutil.rmtree(site.home)
    results = {name: medians(measured) for name, measured in runs.items()}
    print_table(f"one file of {gibibytes} GiB, medians of {rounds} rounds", results)
    return judge([Target("first update / cat", ratio(results["journal update"], results["cat"]), 1.2)])
