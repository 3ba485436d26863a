"""Names made of anything that Linux takes: all that can be a key arrives and comes back, the rest is named, once."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chorus_upload.layout import Pattern
from tests.e2e.clouds import files_of
from tests.e2e.conftest import new_disk, settle
from tests.faults.figures import Figures
from tests.faults.hostile import cases, surroundings, times, typed
from tests.trees import build, contents

PIECES = (
    *(
        "\n",
        "\r",
        "\t",
        "\x01",
        "\x1b]0;owned\x07",
        "\x1b[2J",
        "\x7f",
        "\u009b31m",
        "\u202e",
        "\u200b",
        "\u2028",
        "\ufeff",
    ),
    *(
        "'",
        '"',
        "`",
        "$(reboot)",
        "${HOME}",
        "$PATH",
        "%PATH%",
        "!x!",
        "&",
        "|",
        ";",
        "#",
        "?",
        "*",
        "[a]",
        "{b}",
        "\\",
        "^",
    ),
    *(
        "-",
        "--yes",
        "~",
        " ",
        "  ",
        ".",
        "..",
        "...",
        "=1+1",
        "@x",
        "+1",
        ",",
        "a=b",
        "100%",
        "%2e%2e%2f",
        "%00",
        "\\n",
    ),
    *("[red]", "[/]", "[link=x]", ":smile:", "{0.__class__}", "{patient_id}", "%s", "<b>", "&amp;", "</a>", "<!--"),
    *("'; DROP TABLE file; --", "' OR 1=1", '" OR ""="', "\\0", "_", "%", "file://x", "C:", "a:b", "\\\\h\\s"),
    *("é", "e\u0301", "\u212a", "\u017f", "ß", "日本", "😀", "\U0010ffff", "\ufffe", "\u0000e"[1:], "n" * 100),
    *("CON", "nul.txt", "aux", "journal.db", "journal.db.locked", "manifest-x.csv", "version.tar", ".locked", "Images"),
)
WHOLE = (
    *("journal.db", "manifest-20260301120000.csv", "manifest.csv", ".locked", "CON", "nul.txt", "version.tar", "a.zip"),
    *(
        "-rf",
        "--",
        "-",
        "~",
        "...",
        " ",
        "\n",
        "=cmd|' /C calc'!A0",
        "n" * 251 + ".dcm",
        "é" * 127,
        "C:",
        "\\",
        "\u200b",
    ),
    *("a\u00e9.dcm", "ae\u0301.dcm", "config.toml", "index.html", "%2e%2e", "..a", "\x1b]0;x\x07", "[/]"),
)
NO_TEXT = ("\udcff", "caf\udce9.dcm", "\udcc3", "a\udced\udca0\udc80")
SQL = ("x'; DROP TABLE file; --", 'y" OR ""="', "z`; --", "%_")


def _name(chance: random.Random) -> str:
    """A name that a directory can hold."""
    if chance.random() < 0.2:
        return chance.choice(WHOLE)
    name = "".join(chance.choices((*PIECES, "a", "b", "1"), k=chance.choice((1, 2, 3, 5))))
    return name.replace("/", "_") + ("x" if name in (".", "..") else "")


def _tree(chance: random.Random, number: int) -> dict[str, str | bytes]:
    """Files in `Images` directories, some of them deep; content tells which is which."""
    found: dict[str, str | bytes] = {}
    for _ in range(number):
        above = [_name(chance) for _ in range(chance.choice((0, 0, 1, 2, 6)))]
        path = "/".join(("1001/Images", *above, _name(chance)))
        is_taken = any(each == path or each.startswith(f"{path}/") or path.startswith(f"{each}/") for each in found)
        # Two that differ only in case are told apart here, and would be another matter on another system.
        if not is_taken and len(path.encode()) < 900 and max(len(part.encode()) for part in path.split("/")) < 256:
            found[path] = f"{path} has this content".encode()
    return found


@pytest.mark.timeout(900)
def test_what_was_sent_comes_back(tmp_path: Path, figures: Figures) -> None:
    """Update, list, upload, verify, download: in words that no terminal acts upon."""
    for told, chance in cases(times(quick=1, thorough=40)):
        root = tmp_path / told.rpartition(" ")[2]
        disk = new_disk(root / "cloud")
        site = settle(root / "home", root / "source", disk, threads=2)
        tree, no_text = _tree(chance, 40), {f"1001/Images/{name}": "x" for name in chance.sample(NO_TEXT, 2)}
        build(site.source, {**tree, **no_text})
        around = surroundings(root, but=(root / "cloud", site.home))

        updated = typed(site.home, "--json", "journal", "update", "--version", "spring", figures=figures)
        assert updated.exit_code == 3, (told, updated)
        problems = [json.loads(line) for line in updated.said.splitlines() if '"problem-found"' in line]
        invalid = [each["problem"]["path"] for each in problems if each["problem"]["kind"] == "invalid-name"]
        assert len(invalid) == len(no_text), (told, invalid)
        typed(site.home, "-v", "journal", "update", figures=figures)
        listed = typed(site.home, "--json", "file", "list", figures=figures)
        paths = {json.loads(line)["path"] for line in listed.said.splitlines() if '"listed-file"' in line}
        assert paths == tree.keys(), told
        sent = typed(site.home, "-v", "file", "upload", figures=figures)
        refused = {path for path in tree if not _can_be_a_key(path)}
        arriving = {path: body for path, body in tree.items() if path not in refused}
        assert sent.exit_code == (3 if refused else 0), (told, sent)
        assert sent.said.count("warning: refused: ") == len(refused), (told, sent)

        objects = disk.objects()
        assert _stored(objects) == {f"spring/{path}": content for path, content in arriving.items()}, told
        manifests = [body for key, body in objects.items() if key.startswith("data/spring/manifest-2")]
        rows = [row for body in manifests for row in csv.DictReader(io.StringIO(body.decode(), newline=""))]
        assert {row["key"] for row in rows} == {f"spring/{path}" for path in arriving}, told
        for command in ("file verify --deep", "file list --uploaded", "history", "journal check", "-v file verify"):
            assert typed(site.home, *command.split(), figures=figures).exit_code == 0, (told, command)
        back = typed(site.home, "-v", "file", "download", "--to", "back", figures=figures)
        assert back.exit_code == (3 if refused else 0), (told, back)
        assert contents(site.home / "back") == arriving, told
        chosen = chance.sample(sorted(tree), 3)
        shown = typed(site.home, "journal", "show", "--", chosen[0], figures=figures)
        assert shown.exit_code == 0, (told, chosen[0], shown)
        marked = typed(site.home, "file", "mark-as-deleted", *(f"--file={each}" for each in chosen), figures=figures)
        assert marked.exit_code == 0, (told, chosen, marked)
        assert surroundings(root, but=(root / "cloud", site.home)) == around, told
        figures.count("files with hostile names sent and brought back", len(arriving))
        figures.count("files with hostile names refused", len(refused) + len(no_text))


def _can_be_a_key(path: str) -> bool:
    """Some services take a backslash for a slash."""
    return not {"", ".", ".."} & set(re.split(r"[/\\]", path))


def _stored(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The uploaded files, those that are called like files of the program included."""
    files = files_of(objects)
    beside = {key.removeprefix("data/"): body for key, body in objects.items() if key.startswith("data/")}
    return files | {key: body for key, body in beside.items() if key.count("/") > 1}


def test_words_of_sql_in_all_that_has_a_name(tmp_path: Path, figures: Figures) -> None:
    """Patients and files: what looks like a statement is a name like any other."""
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", tmp_path / "source", disk)
    tree: dict[str, str | bytes] = {f"1001/Images/{name}/{name}": name.encode() for name in SQL}
    build(site.source, tree)
    for command in ("journal update --version spring", "file upload"):
        assert typed(site.home, *command.split(), figures=figures).exit_code == 0
    for name in SQL:
        path = f"1001/Images/{name}/{name}"
        found = typed(site.home, "--json", "journal", "show", "--", path, figures=figures)
        assert found.exit_code == 0
        assert found.said.count('"event"') == 1
        nobody = typed(site.home, "file", "download", "--patients", name, "--to", "back", figures=figures)
        assert nobody.exit_code == 2
        assert typed(site.home, "file", "mark-as-deleted", "--file", path, figures=figures).exit_code == 0
        figures.count("names with words of SQL")
    checked = typed(site.home, "journal", "check", figures=figures)
    assert checked.exit_code == 0
    assert contents(disk.root / "data" / "spring" / "1001" / "Images") == {
        path.removeprefix("1001/Images/"): body for path, body in tree.items()
    }


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_terminal_sees_no_sequence_of_theirs(tmp_path: Path, figures: Figures) -> None:
    """In colours and with bars of progress, for eyes."""
    disk = new_disk(tmp_path / "cloud")
    site = settle(tmp_path / "home", tmp_path / "source", disk)
    names = [f"a{piece}b{number}" for number, piece in enumerate(PIECES) if "/" not in piece]
    build(site.source, {f"1001/Images/{name}/{name}": "x" for name in names} | {"1001/Images/\udcff": "x"})
    commands = ("-v journal update --version spring", "-v file upload", "file list", "history", "-v file verify")
    for command in commands:
        said = _on_a_terminal(site.home, *command.split())
        for theirs in (
            b"]0;owned",
            b"\x9b31m",
            "\u202e".encode(),
            "\u2028".encode(),
            "\u009b".encode(),
            b"\x07",
            b"\xff",
        ):
            assert b"\x1b" + theirs not in said, (command, theirs)
            assert theirs == b"]0;owned" or theirs not in said, (command, theirs)
        figures.count("commands on a terminal")
    assert (disk.root / "data/spring/1001/Images").is_dir()


def _on_a_terminal(home: Path, *arguments: str) -> bytes:
    """Type a command at a terminal of 100 columns; all that reaches it."""
    ours, theirs = pty.openpty()
    said = b""
    environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}
    program = [sys.executable, "-m", "chorus_upload", *arguments]
    with subprocess.Popen(program, cwd=home, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            said += piece
    os.close(ours)
    assert process.returncode in (0, 3), said
    return said


@pytest.mark.parametrize(
    "pattern",
    [
        "{version:w}_{patient_id:w}_{filepath}_x",
        "{version:w}_{filepath}_{patient_id:w}.txt",
        "{filepath}_{version:w}_{patient_id:w}",
        "{filepath}/{version:w}_{patient_id:w}/x",
    ],
)
def test_a_name_that_can_be_divided_in_many_ways(pattern: str, figures: Figures) -> None:
    """Fields that may begin and end anywhere: to try them all takes a moment, not the afternoon."""
    parsed, length = Pattern.parse(pattern), times(quick=400, thorough=4_096)
    for end in ("!", "_x", "/_x", "_!_x", "/.txt", "x_1_x", "!_1", "/x"):
        begun = time.monotonic()
        parsed.match("_" * (length - len(end)) + end)
        seconds = time.monotonic() - begun
        assert seconds < 60, end
        figures.measure("longest match (ms)", int(seconds * 1_000))
        figures.count("names that nearly fit")
