"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .candidates import bench_candidates
from .clouds import PAIRS, TREES, bench_clouds
from .data import UPLOADS
from .journal import bench_journal, bench_large
from .scripts import bench_scripts
from .upload import bench_upload


def arguments() -> argparse.Namespace:
    rounds = argparse.ArgumentParser(add_help=False)
    rounds.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    tree = argparse.ArgumentParser(add_help=False)
    tree.add_argument("--tree", type=Path, metavar="DIR", help="make the files below DIR and keep them for next time")

    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure chorus-upload beside its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    journal = commands.add_parser("journal", parents=[rounds, tree], help="many small files: find, rclone, restic")
    journal.add_argument(
        "--files",
        type=int,
        default=200_000,
        metavar="N",
        help="default: %(default)s; more than that also measures how time and memory grow from there",
    )
    add_without(journal, "rclone", "restic")
    large = commands.add_parser("large", parents=[rounds, tree], help="one large file: cat")
    large.add_argument("--gib", type=int, default=4, metavar="N", help="default: %(default)s")
    upload = commands.add_parser(
        "upload", parents=[rounds, tree], help="uploads to an emulator and to an endpoint that discards: rclone, azcopy"
    )
    upload.add_argument(
        "--only", type=some_of(*UPLOADS), default=list(UPLOADS), metavar="TREE,...", help=f"of {', '.join(UPLOADS)}"
    )
    add_without(upload, "rclone", "azcopy", "nginx")
    clouds = commands.add_parser("clouds", parents=[rounds], help="from service to service: rclone copy")
    clouds.add_argument("--only", type=some_of(*PAIRS), default=list(PAIRS), metavar="PAIR,...", help=", ".join(PAIRS))
    clouds.add_argument("--trees", type=some_of(*TREES), default=list(TREES), metavar="TREE,...", help=", ".join(TREES))
    commands.add_parser("scripts", parents=[tree], help="scripts for az and azcopy: written and run")
    candidates = commands.add_parser("candidates", parents=[rounds], help="puts by libraries that could send ours")
    candidates.add_argument("--puts", type=int, default=3_000, metavar="N", help="in each run; default: %(default)s")
    return parser.parse_args()


def add_without(parser: argparse.ArgumentParser, *programs: str) -> None:
    parser.add_argument(
        "--without",
        action="extend",
        type=some_of(*programs),
        default=[],
        metavar="PROGRAM,...",
        help=f"leave out some of {', '.join(programs)}",
    )


def some_of(*known: str) -> Callable[[str], list[str]]:
    """Reads names with commas between them."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
        return names

    return read


def run(given: argparse.Namespace, home: Path, work: Path) -> int:
    match given.command:
        case "upload":
            return bench_upload(home, work, rounds=given.rounds, only=given.only, without=given.without)
        case "clouds":
            return bench_clouds(work, rounds=given.rounds, pairs=given.only, trees=given.trees)
        case "scripts":
            return bench_scripts(home, work)
        case "candidates":
            return bench_candidates(work, puts_in_all=given.puts, rounds=given.rounds)
        case "large":
            return bench_large(home, work, gibibytes=given.gib, rounds=given.rounds)
    return bench_journal(home, work, files=given.files, rounds=given.rounds, without=given.without)


def main() -> int:
    given = arguments()
    kept: Path | None = getattr(given, "tree", None)
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
    # Beside a tree that is kept, so that everything happens on the disk that the user chose.
    with tempfile.TemporaryDirectory(prefix="chorus-bench-", dir=kept) as temporary:
        work = Path(temporary).resolve()
        return run(given, kept.resolve() if kept else work, work)


if __name__ == "__main__":
    sys.exit(main())
