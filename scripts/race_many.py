"""The races of `scripts/race`: prints what came of them, and ends with 1 when a round was not as it must be."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.e2e.clouds import Cloud, Container
from tests.e2e.conftest import new_disk, settle
from tests.e2e.racing import Round, race
from tests.emulators import running_azurite
from tests.trees import build


def run(cloud: Cloud, root: Path, *, rounds: int, racers: int) -> list[Round]:
    source = build(root / "source", {"OMOP/person.csv": "person_id\n1\n"})
    return race([settle(root / f"home-{number}", source, cloud) for number in range(racers)], rounds=rounds)


def told(place: str, results: list[Round], *, seconds: float) -> bool:
    """Print what came of the rounds at one place; gives whether all of them were good."""
    good = sum(each.is_good for each in results)
    wins = Counter(winner for each in results for winner in each.winners)
    shares = ", ".join(f"racer {racer} won {number}" for racer, number in sorted(wins.items()))
    print(
        f"{place}: {good} of {len(results)} rounds had exactly one winner, no work was lost ({shares}; {seconds:.0f} s)"
    )
    for number, each in enumerate(results):
        if not each.is_good:
            print(f"  round {number}: exit codes {each.exit_codes}")
    return good == len(results)


def main() -> int:
    options = argparse.ArgumentParser(description="Real processes race for the lock of one journal.")
    options.add_argument("--rounds", type=int, default=300)
    options.add_argument("--racers", type=int, default=3)
    options.add_argument("--only", choices=["disk", "azure"])
    chosen = options.parse_args()
    all_good = True
    with tempfile.TemporaryDirectory(prefix="chorus-race-") as directory:
        root = Path(directory)
        if chosen.only != "azure":
            begun = time.monotonic()
            results = run(new_disk(root / "cloud"), root / "disk", rounds=chosen.rounds, racers=chosen.racers)
            all_good &= told("disk", results, seconds=time.monotonic() - begun)
        if chosen.only != "disk":
            (root / "azurite").mkdir()
            with running_azurite(root / "azurite") as azurite:
                name = azurite.create_container()
                cloud = Container(azurite, name, azurite.sas(name))
                begun = time.monotonic()
                results = run(cloud, root / "azure", rounds=chosen.rounds, racers=chosen.racers)
            all_good &= told("Azurite", results, seconds=time.monotonic() - begun)
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
