"""A site: a machine with sources, a configuration and somebody who types commands."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.e2e.clouds import Cloud
from tests.e2e.mortal_program import Program, Running, running_program

MODULE = (sys.executable, "-m", "chorus_upload")
SCRIPT = (str(Path(sys.executable).with_name("chorus-upload")),)

# The tests may run as root, for whom nothing is unreadable: give up that privilege, and only that.
_LIKE_ANYBODY = """
import ctypes, os, sys
if os.geteuid() == 0:
    DROP_FROM_BOUNDING_SET, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        if ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
            sys.exit("cannot give up the privileges of root")
os.execv(sys.argv[1], sys.argv[1:])
"""
LIKE_ANYBODY = (sys.executable, "-c", _LIKE_ANYBODY, *MODULE)
"""The program as it runs for somebody whom permissions keep out."""


# The program on a share that takes its time: every opening in the source is waited for, and noted.
_SLOW_SHARE = """
import os, runpy, sys, time
source, notes, seconds = os.environ["SOURCE"] + os.sep, os.environ["NOTES"], float(os.environ["SECONDS"])
def share(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(source):
        with open(notes, "a") as file:
            print(arguments[0].removeprefix(source), file=file)
        time.sleep(seconds)
sys.addaudithook(share)
really_open = os.open
def opened(path, flags, mode=0o777, *, dir_fd=None):
    if dir_fd is not None:
        share("open", (os.readlink(f"/proc/self/fd/{dir_fd}") + os.sep + path,))
    return really_open(path, flags, mode, dir_fd=dir_fd)
os.open = opened
os.supports_dir_fd.add(opened)
runpy.run_module("chorus_upload", run_name="__main__", alter_sys=True)
"""


@cache
def quick_program() -> Program:
    """The program that all sites of this test process share; it ends with it."""
    running = running_program()
    atexit.register(running.__exit__, None, None, None)
    return running.__enter__()


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended, and what it said."""

    exit_code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind that a command with `--json` told of."""
        return [event for event in map(json.loads, self.lines) if event["event"] == kind]

    def event(self, kind: str) -> dict[str, Any]:
        """The one event of this kind."""
        (event,) = self.events(kind)
        return event


@dataclass(frozen=True, slots=True)
class Site:
    """`home` holds `config.toml` and the local journal; `source` is where the files are, `cloud` where they go."""

    home: Path
    source: Path
    cloud: Cloud
    program: tuple[str, ...] = MODULE
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    @property
    def journal(self) -> Path:
        return self.home / "journal.db"

    def configure(self, text: str) -> None:
        """Write the configuration, for nobody else to read."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.config.touch(mode=0o600)
        self.config.write_text(text, encoding="utf-8")

    def run(
        self,
        *arguments: str,
        exit_code: int | None = 0,
        program: tuple[str, ...] | None = None,
    ) -> Ran:
        """Type a command, and hold it to good manners (no traceback, no secret, no warning) and its exit code.

        A process that has imported the program forks for it, unless it is to be started in a certain way.
        """
        words = [*(program or self.program), *arguments]
        if self._is_quick(words):
            ended = quick_program().run(*words[3:], home=self.home)
            ran = Ran(ended.exit_code, ended.out, ended.err)
        else:
            done = subprocess.run(
                words,
                cwd=self.home,
                env=self._environment(),
                capture_output=True,
                check=False,
                timeout=300,
            )
            ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        told = f"{' '.join(arguments)}\n{ran.out}\n{ran.err}"
        assert exit_code in (None, ran.exit_code), told
        assert "Traceback" not in told, told
        assert "Warning:" not in told, told
        assert not [secret for secret in self.cloud.secrets if secret in told], told
        return ran

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes] | Running]:
        """Type a command and do something else meanwhile. At the end it is killed without a warning."""
        if self._is_quick(self.program):
            with quick_program().running(*self.program[3:], *arguments, home=self.home) as run:
                yield run
            return
        with subprocess.Popen(
            [*self.program, *arguments],
            cwd=self.home,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def speaking(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The same, and hear what it says."""
        with subprocess.Popen(
            [*self.program, *arguments],
            cwd=self.home,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def on_slow_share(self, seconds: float, *, notes: Path) -> Site:
        """The same site, when opening anything in the source takes so long; `notes` gets a line for each."""
        environment = {"SOURCE": str(self.source), "NOTES": str(notes), "SECONDS": str(seconds)}
        return replace(self, program=(sys.executable, "-c", _SLOW_SHARE), environment=environment)

    def _is_quick(self, words: Sequence[str]) -> bool:
        """Whether nothing is said of how the program is to be started."""
        return tuple(words[:3]) == MODULE and not self.environment

    def _environment(self) -> dict[str, str]:
        # A warning of ours, or a file or a connection that is left open, is a fault of the program.
        return {**os.environ, "PYTHONWARNINGS": "error", **self.environment}

    def pending(self) -> set[str]:
        """What `file list` says is still to be sent."""
        return set(self.run("file", "list").lines)

    def uploaded(self) -> dict[str, dict[str, Any]]:
        """What `file list --uploaded` says of each path."""
        return {each["path"]: each for each in self.run("--json", "file", "list", "--uploaded").events("listed-file")}


def wait_until(condition: Callable[[], object], *, seconds: float = 300) -> None:
    """Wait for something to become true; fail when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
