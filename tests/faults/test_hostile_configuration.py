"""A configuration may hold anything: it comes to settings, or to an error that names the place, and shows no secret."""

from __future__ import annotations

import copy
import json
import math
import random
import tomllib
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_generations import OF_2024, OF_2025, OF_2026
from tests.faults.figures import Figures
from tests.faults.hostile import cases, times, typed

TEMPLATE = Path(__file__).parents[2] / "config.toml.template"
SECRETS = ("JOURNALSECRET", "CENTRALSECRET", "AWSSECRET", "PASTEDSECRET")

TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "/a\0b",
        "\x1b]0;x\x07",
        "\u202e",
        "\ufeff",
        "é",
        "e\u0301",
        "²",
        "\U0010ffff",
        "x" * 50_000,
    ),
    *("~", "~nobody-here/x", "~\0", "/", ".", "..", "../..", "n" * 300, "a/" * 3_000 + "x", "C:\\x", "\\\\h\\s", "C:x"),
    *("az://", "az:///", "az://c", "az://c/../../x", "az://c/a//b", "az://c/a\\b", "az://[::1", "s3://", "gs://x/\n"),
    *("https://[", "https://[::1/x", "http://", "http://h:port/x", "http://h:99999/x", "https://\uff0e\u2100/x"),
    *("https://user:PASTEDSECRET@h:0/x", "https://user:PASTEDSECRET/x@h/", "sftp://user:PASTEDSECRET@[/x"),
    *("https://x.blob.core.windows.net/c?sv=1&sig=PASTEDSECRET", "sv=1&sig=PASTEDSECRET", "AccountKey=PASTEDSECRET"),
    *(
        "AccountName=x;BlobEndpoint=https://[a",
        "smb://h",
        "file://host/x",
        "memory://",
        "javascript:x",
        "x" * 300 + "://",
    ),
    *("zip://", "zip://::", "tar://::", "zip://a::zip://b::c.zip", "tar://::https://[x", "zip://..::/a.zip"),
    *("{patient_id:w}/{filepath}", "{filepath}{filepath}", "{", "}", "{}", "{0.__class__}", "{patient_id:>99999999}"),
    *("{patient_id.__class__}/{filepath}", "(a+)+$", "[", "{filepath}", "/{filepath}", "%s%n", "$(reboot)", "`x`"),
    *("1e999", "0x10", "-1", "9" * 5_000, "nan", "inf", ",", "OMOP,,Images", "default", "full", "FULL", "sas_token"),
    *("08:00,2M 18:00,off mon-fri", "99:99,2M", "1" * 400 + "M", "2025-01-01T00:00:00Z", "account_key", "login"),
)
OTHERS: tuple[object, ...] = (
    *(True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324),
    *([], [""], [[]], ["a", 1], ["Images"] * 1_000, {}, {"a": 1}, {"path": "x"}, {"auth": {"auth": {}}}),
    *(date(2020, 1, 1), datetime(2020, 1, 1), time(1, 2)),  # noqa: DTZ001 - as TOML has it
)

BOMBS = {
    "nothing": b"",
    "not text": bytes(range(256)),
    "UTF-16": "[journal]".encode("utf-16"),
    "lists in lists": b"a = " + b"[" * 5_000 + b"]" * 5_000,
    "lists that never end": b"a = " + b"[" * 100_000,
    "tables in tables": b"a = " + b"{a=" * 3_000 + b"1" + b"}" * 3_000,
    "a key of many parts": b".".join([b"a"] * 30_000) + b" = 1",
    "a quoted key of many parts": b" . ".join([b'"a b"'] * 30_000) + b" = 1",
    "a section of many parts": b"[" + b".".join([b"a"] * 50_000) + b"]\nb = 1",
    "a long number": b"[configuration]\nnum_threads = " + b"9" * 5_000,
    "a long number in hex": b"[configuration]\nnum_threads = 0x" + b"f" * 100_000,
    "a large number": b"[configuration]\nretry_seconds = 1e999999999",
    "a long text": b'[configuration]\nproxy = "' + b"x" * 5_000_000 + b'"',
    "a long key": b"x" * 900_000 + b" = 1",
    "many keys": b"[configuration]\n" + b"".join(b"k%d = 1\n" % number for number in range(1_000)),
    "many sections": b"".join(b"[site_path.M%d]\n" % number for number in range(1_000)),
    "lists of tables": b"[[configuration]]\n[[journal]]\n[[site_path.Images]]\npath = 'x'\n",
    "no day of any year": b"a = 2020-02-30",
    "half a character": b"a = '\xed\xa0\x80'",
    "keys that a terminal acts upon": b'"\\u001b]0;x\\u0007" = 1\n["a\\nb\\u001b[31m"]\n',
}


@pytest.mark.timeout(900)
def test_settings_or_an_error_that_names_the_place(tmp_path: Path, figures: Figures) -> None:
    """Templates of all generations in which some values became others."""
    templates = [tomllib.loads(text) for text in (OF_2024, OF_2025, OF_2026, TEMPLATE.read_text(encoding="utf-8"))]
    config = tmp_path / "config.toml"
    config.touch(mode=0o600)
    for told, chance in cases(times(quick=20, thorough=2_000)):
        document = copy.deepcopy(chance.choice(templates))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            _change(document, chance)
        text = "".join(f"{_as_toml(key)} = {_as_toml(value)}\n" for key, value in document.items())
        config.write_text(text, encoding="utf-8")
        command = chance.choice((("config", "show"), ("--json", "config", "show"), ("config", "check")))

        ended = typed(tmp_path, *command, figures=figures)

        assert ended.exit_code in (0, 2), (told, ended, text)
        assert not [secret for secret in SECRETS if secret in ended.said], (told, ended, text)
        if ended.exit_code and command[-1] == "show":
            assert "config.toml: " in ended.said, (told, ended, text)
        figures.count("configurations refused" if ended.exit_code else "configurations that came to settings")


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_is_no_configuration(name: str, tmp_path: Path, figures: Figures) -> None:
    """It is refused at once, by commands that work with it, too."""
    (tmp_path / "config.toml").write_bytes(BOMBS[name])
    commands = (("config", "check"), ("journal", "update"), ("file", "upload"), ("remote", "list"))
    for command in commands[: times(quick=1, thorough=4)]:
        assert typed(tmp_path, *command, figures=figures).exit_code == 2
        figures.count("files that are none refused")


LABELS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "/x",
        "a/b",
        "a\\b",
        "C:x",
        "x\n",
        "x\ny",
        "x\r",
        "\x1b[2J",
        "\u202ex",
    ),
    *(
        "é",
        "e\u0301",
        "\uff58",
        "²",
        "x" * 129,
        "x" * 100_000,
        "$(reboot)",
        "`x`",
        "a;b",
        "'",
        '"',
        "%PATH%",
        "a b",
        "a:b",
        "*",
    ),
    *("{patient_id}", "{0.__class__}", "'; DROP TABLE file; --", "[red]x[/]", "\ud800", "\udcff", "a\tb", "~"),
)


@pytest.mark.timeout(600)
def test_what_is_no_label_and_no_modality_on_the_command_line(tmp_path: Path, figures: Figures) -> None:
    """It is refused, and nothing is made of it."""
    for name in ("cloud", "data", "source/1001/Images"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "source/1001/Images/scan.dcm").write_bytes(b"scan")
    (tmp_path / "config.toml").write_text(
        f"""
[journal]
journaling_mode = "full"
[journal.local]
path = "{tmp_path}/journal.db"
[journal.source]
path = "{tmp_path}/cloud/journal.db"
[central_path]
path = "{tmp_path}/data"
[site_path.default]
path = "{tmp_path}/source"
"""
    )
    assert typed(tmp_path, "journal", "update", "--version", "spring", figures=figures).exit_code == 0
    before = _names_in(tmp_path)
    commands = (
        *(
            ("journal", "update", "--version={}"),
            ("journal", "update", "--modalities={}"),
            ("journal", "list", "--version={}"),
        ),
        *(("file", "upload", "--version={}"), ("file", "download", "--version={}"), ("file", "verify", "--version={}")),
        *(
            ("journal", "diff", "spring", "{}"),
            ("file", "download", "--patient={}"),
            ("file", "list", "--modalities={}"),
        ),
    )
    for label in LABELS[:: times(quick=8, thorough=1)]:
        for command in commands[: times(quick=2, thorough=len(commands))]:
            ended = typed(tmp_path, *(word.replace("{}", label) for word in command), figures=figures)
            assert ended.exit_code in (2, 4), (label, command, ended)
            figures.count("labels and names refused")
    assert _names_in(tmp_path) == before


def _names_in(root: Path) -> set[str]:
    """All names but those of the journal's backups, of which each command may leave one, and of its companions."""
    return {path.name for path in root.rglob("*") if path.suffix != ".backup" and "journal.db-" not in path.name}


def _change(document: dict[str, Any], chance: random.Random) -> None:
    """Change one thing somewhere in a document."""
    places = list(_places(document))
    if not places:
        return
    *above, key = chance.choice(places)
    table = document
    for word in above:
        table = table[word]
    match chance.randrange(5):
        case 0:
            del table[key]
        case 1:
            table[key] = chance.choice(TEXTS)
        case 2:
            table[key] = chance.choice(OTHERS)
        case 3:
            word = chance.choice((*(text for text in TEXTS if len(text) < 300), "auth", "path", "source", "local"))
            table[word] = table.pop(key)
        case _ if isinstance(table[key], str) and "SECRET" not in table[key]:
            at = chance.randrange(len(table[key]) + 1)
            odd = chance.choice([text for text in TEXTS if len(text) < 300 and "SECRET" not in text])
            table[key] = table[key][:at] + odd + table[key][at:]
        case _:
            table[key] = chance.choice(OTHERS)


def _places(table: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in table.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += _places(value, (*above, key))
    return found


def _as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if math.isnan(value) or math.isinf(value):
            return str(value)
        case str():
            plain = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            return plain.replace("\ufeff", "\\ufeff")
        case dict():
            return "{" + ", ".join(f"{_as_toml(key)} = {_as_toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_as_toml, value)) + "]"
        case date() | time():
            return value.isoformat()
        case _:
            return repr(value)
