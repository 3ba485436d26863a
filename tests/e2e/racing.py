"""Real processes that race for the lock of one journal, round after round.

In each round all of them check the journal out at the same moment. The winner adds a version to it and gives it
back. In the end the cloud journal must have every winner's version, in their order, and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from chorus_upload.cli.app import main
from tests.e2e.clouds import LOCK, ask, fetched
from tests.e2e.site import Site

WON, REFUSED = 0, 10


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round: the exit codes of all who raced."""

    exit_codes: tuple[int, ...]

    @property
    def winners(self) -> list[int]:
        return [number for number, code in enumerate(self.exit_codes) if code == WON]

    @property
    def is_good(self) -> bool:
        """Whether one won, and everybody else was told that it is locked."""
        return sorted(self.exit_codes) == [WON] + [REFUSED] * (len(self.exit_codes) - 1)


class Racer:
    """A process of its own, which has imported the program and waits for commands."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def exit_code(self) -> int:
        """The exit code of the command that was begun."""
        assert self._process.stdout
        return int(json.loads(self._process.stdout.readline()))

    def run(self, command: str) -> int:
        self.begin(command)
        return self.exit_code()


@contextmanager
def racer(site: Site) -> Iterator[Racer]:
    """A racer at a site, which ends with this block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.racing", str(site.home)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Racer(process)
        assert process.stdin
        process.stdin.close()


def race(sites: Sequence[Site], *, rounds: int) -> list[Round]:
    """Let these sites, which have one cloud journal, race; gives what came of each round.

    Raises AssertionError when a winner's work is lost.
    """
    results = []
    with ExitStack() as stack:
        racers = [stack.enter_context(racer(site)) for site in sites]
        for number in range(rounds):
            for each in racers:
                each.begin("journal checkout")
            result = Round(tuple(each.exit_code() for each in racers))
            results.append(result)
            for winner in result.winners:
                assert racers[winner].run(f"journal update --version r{number:05}-{winner}") == 0
                assert racers[winner].run("journal checkin") == 0
    won = [f"r{number:05}-{winner}" for number, result in enumerate(results) for winner in result.winners]
    cloud = sites[0].cloud
    assert LOCK not in cloud.objects()
    assert [row[0] for row in ask(fetched(cloud, sites[0].home), "SELECT label FROM version ORDER BY id")] == won
    return results


def _serve(home: Path) -> None:
    """Read commands, one a line, and answer with their exit codes."""
    os.chdir(home)
    answer = sys.stdout
    for line in sys.stdin:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            code = main(line.split())
        print(code, file=answer, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
