"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .journal import bench_journal, bench_large


def arguments() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    common.add_argument("--tree", type=Path, metavar="DIR", help="make the files below DIR and keep them for next time")

    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure chorus-upload beside its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    journal = commands.add_parser("journal", parents=[common], help="many small files: find, rclone, restic")
    journal.add_argument(
        "--files",
        type=int,
        default=200_000,
        metavar="N",
        help="default: %(default)s; more than that also measures how time and memory grow from there",
    )
    journal.add_argument("--without", action="append", default=[], choices=("rclone", "restic"))
    large = commands.add_parser("large", parents=[common], help="one large file: cat")
    large.add_argument("--gib", type=int, default=4, metavar="N", help="default: %(default)s")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.tree:
        given.tree.mkdir(parents=True, exist_ok=True)
    # Beside a tree that is kept, so that everything happens on the disk that the user chose.
    with tempfile.TemporaryDirectory(prefix="chorus-bench-", dir=given.tree) as temporary:
        work = Path(temporary).resolve()
        home = given.tree.resolve() if given.tree else work
        if given.command == "large":
            return bench_large(home, work, gibibytes=given.gib, rounds=given.rounds)
        return bench_journal(home, work, files=given.files, rounds=given.rounds, without=given.without)


if __name__ == "__main__":
    sys.exit(main())
