"""Every command explains itself, and the documentation says the same."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.core import TyperGroup

from chorus_upload.cli.app import build_command, main
from chorus_upload.cli.arguments import hoist_global_options
from chorus_upload.cli.groups import PROGRAM

ROOT = Path(__file__).parents[2]
_EXAMPLE = re.compile(rf"^ +{PROGRAM} (.+)$", re.MULTILINE)


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "write_command_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _load_script()
PATHS: list[tuple[str, ...]] = list(script.command_paths())
IDS = [" ".join(words) or PROGRAM for words in PATHS]
COMMAND = build_command()


def command_at(words: tuple[str, ...]) -> typer.core.TyperCommand | TyperGroup:
    command: object = COMMAND
    for word in words:
        assert isinstance(command, TyperGroup)
        command = command.commands[word]
    assert isinstance(command, typer.core.TyperCommand | TyperGroup)
    return command


def examples_of(words: tuple[str, ...]) -> list[str]:
    return _EXAMPLE.findall(command_at(words).epilog or "")


def test_all_documented_commands_are_there() -> None:
    assert set(IDS) >= {
        "journal update",
        "journal list",
        "journal checkout",
        "journal checkin",
        "journal unlock",
        "file list",
        "file upload",
        "file verify",
        "file mark-as-deleted",
        "file mark-as-uploaded-central",
        "file mark-as-uploaded-local",
        "history",
        "usage",
        "config-help",
        "config show",
        "config check",
    }


@pytest.mark.parametrize("words", PATHS, ids=IDS)
def test_every_command_and_every_option_has_help(words: tuple[str, ...]) -> None:
    command = command_at(words)

    assert (command.help or "").strip()
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words} {parameter.name} has no help"


@pytest.mark.parametrize("words", PATHS[1:], ids=IDS[1:])
def test_the_first_sentence_fits_the_list_of_commands(words: tuple[str, ...]) -> None:
    assert not command_at(words).get_short_help_str(50).endswith("...")


@pytest.mark.parametrize("words", PATHS, ids=IDS)
def test_every_command_has_an_example_of_itself_that_can_be_typed(words: tuple[str, ...]) -> None:
    examples = examples_of(words)

    assert examples
    for example in examples:
        own = hoist_global_options(_arguments(example))
        with COMMAND.make_context(PROGRAM, own, resilient_parsing=True):
            pass
        _parse_to_the_end(own)
        assert words == () or " ".join(words) in example


def _arguments(example: str) -> list[str]:
    """The arguments of an example, without what the shell does with its output."""
    return list(_before_redirection(shlex.split(example)))


def _before_redirection(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in (">", "2>&1", "|"):
            return
        yield word


def _parse_to_the_end(arguments: list[str]) -> None:
    """Parse a command line with its subcommands, without running it: a wrong option raises a usage error."""
    command: object = COMMAND
    remaining = arguments
    while isinstance(command, TyperGroup):
        with command.make_context(PROGRAM, remaining, resilient_parsing=False) as context:
            pass
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        command, remaining = command.commands[rest[0]], rest[1:]
    assert isinstance(command, typer.core.TyperCommand)
    with command.make_context(PROGRAM, remaining):
        pass


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", PATHS, ids=IDS)
def test_both_help_flags_work_everywhere(words: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, flag]) == 0

    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: {' '.join((PROGRAM, *words))} ")
    assert "Examples:" in shown.out
    assert shown.out.isascii()
    assert shown.err == ""


@pytest.mark.parametrize("words", [words for words in PATHS if any("-" in word for word in words)])
def test_underscores_are_accepted_and_not_advertised(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*(word.replace("-", "_") for word in words), "-h"]) == 0

    assert f"Usage: {PROGRAM} {' '.join(words)} " in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("journal",), ("file",), ("config",)])
def test_a_group_without_a_command_shows_its_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) == 2

    assert "Commands:" in capsys.readouterr().err


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == script.reference(), (
        "run scripts/write_command_reference.py"
    )
