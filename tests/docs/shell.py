"""Runs the blocks of a document as a reader would: one shell, one block after the other, and compares what it says."""

from __future__ import annotations

import ast
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.docs.markdown import ROOT, Block
from tests.e2e.site import quick_program

NOT_OUTPUT = ("not output", "said elsewhere")

_SEPARATOR = "=== end of block {number}: "
_ANY = "…"

# What differs from run to run, in documents as well as in what a command says.
_VARYING = (
    (re.compile(r"\b\d{14}\b"), "LABEL"),
    (re.compile(r"\b\d{4}-\d\d-\d\d( at | )\d\d:\d\d(:\d\d)?( UTC|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r"\bprocess \d+"), "process N"),
    (re.compile(r"-{2,}"), "--"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of shell that has to end with an exit code."""

    script: str
    exit_code: int = 0


def step_of(block: Block, *, before: str = "") -> Step:
    """A block as a step; a marker `exit N` says how it ends."""
    word, _, code = block.marker.partition(" ")
    return Step(f"{before}\n{block.text}", int(code) if word == "exit" else 0)


def run(
    steps: Sequence[Step], *, cwd: Path, environment: Mapping[str, str] | None = None, wrap: Sequence[str] = ()
) -> list[str]:
    """Run the steps in one bash, so that `cd` and `export` last; gives what each of them said.

    A step fails the test when its last command, or one that it does not expect to fail, ends otherwise.
    `wrap` is what bash is started by. Without it, a process that has imported the program forks for each command.
    """
    script = ["FAILED=0", "trap 'FAILED=$?' ERR"]
    for number, step in enumerate(steps):
        name = cwd / f".step-{number}"
        name.write_text(step.script, encoding="utf-8")
        script.append(f'FAILED=0; . {shlex.quote(str(name))}; echo "{_SEPARATOR.format(number=number)}$FAILED"')
    done = subprocess.run(
        [*wrap, "bash", "-c", "\n".join(script)],
        cwd=cwd,
        env=_environment(cwd, environment or {}, quick=not wrap),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    said: list[str] = []
    rest = done.stdout
    for number, step in enumerate(steps):
        output, found, rest = rest.partition(_SEPARATOR.format(number=number))
        assert found, f"the shell ended within this:\n{step.script}\n{output}"
        code, _, rest = rest.partition("\n")
        assert int(code) == step.exit_code, f"exit code {code}, not {step.exit_code}:\n{step.script}\n{output}"
        assert "Traceback" not in output
        said.append(output)
    return said


def _environment(cwd: Path, more: Mapping[str, str], *, quick: bool) -> dict[str, str]:
    programs = cwd / ".programs"
    programs.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    program = shlex.quote(quick_program().command) if quick else f"{python} -m chorus_upload"
    for name, command in {"chorus-upload": program, "python": python, "python3": python}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    user = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "anna")
    return {**os.environ, **user, "PATH": path, "PYTHONPATH": str(ROOT), "TZ": "UTC", "COLUMNS": "200", **more}


def normalised(line: str) -> str:
    for pattern, word in _VARYING:
        line = pattern.sub(word, line)
    return line.strip()


def missing_lines(expected: str, output: str) -> list[str]:
    """The lines of a document's block that no line of the output is like. `…` stands for anything."""
    lines = [normalised(line) for line in output.replace(socket.gethostname(), "upload-vm").splitlines()]
    return [line for line in expected.splitlines() if line.strip() and not _is_among(normalised(line), lines)]


def _is_among(line: str, lines: Sequence[str]) -> bool:
    like = re.compile(".*".join(re.escape(part) for part in line.split(_ANY)))
    return any(like.fullmatch(each) for each in lines)


@cache
def _texts_of_the_program() -> str:
    """Everything that the program can say, with a bar wherever a value is put in."""
    texts = []
    for path in sorted((ROOT / "chorus_upload").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "|" for part in node.values)
                )
    return "\n".join(texts)


def unsaid(expected: str) -> list[str]:
    """The pieces of a document's block that the program has no words for.

    A line is cut where a value stands: at `…`, quoted names, labels, numbers. The first word says what kind of
    line it is.
    """
    pieces = []
    for line in expected.splitlines():
        text = re.sub(r"^(error|hint|warning): ", "", line)
        pieces += [piece.strip() for piece in re.split(r"…|\b(?:process )?\d+\b|\bjournal\.db\b|\b\w+: ", text)]
    return [piece for piece in pieces if len(piece) > 3 and piece not in _texts_of_the_program()]
