"""Help pages, found without reading the rest of the command line.

The usual way would convert the values of all options first, and load a library for it that takes longer than
everything else; and it would complain of a wrong option where the user asks which ones there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import typer
from typer.core import TyperCommand, TyperGroup

from chorus_upload.cli.groups import CONTEXT_SETTINGS, PROGRAM, normal_spelling

_FLAGS = frozenset(CONTEXT_SETTINGS["help_option_names"])
_WITH_VALUE = frozenset({"-c", "--config"})


def help_page(program: TyperGroup, arguments: Sequence[str]) -> str | None:
    """Return the page that `arguments` ask for; None if they ask for none, or for that of an unknown command."""
    asked = list(takewhile(lambda argument: argument != "--", arguments))
    if _FLAGS.isdisjoint(asked):
        return None
    command: TyperCommand | TyperGroup = program
    context = typer.Context(program, info_name=PROGRAM, **CONTEXT_SETTINGS)
    for word in _words(asked):
        if not isinstance(command, TyperGroup):
            break
        name = normal_spelling(word)
        child = command.commands.get(name)
        if not isinstance(child, TyperCommand | TyperGroup):
            return None
        command, context = child, typer.Context(child, info_name=name, parent=context)
    return command.get_help(context)


def _words(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is no option and no value of a global one."""
    remaining = iter(arguments)
    for argument in remaining:
        if argument in _WITH_VALUE:
            next(remaining, None)
        elif not argument.startswith("-"):
            yield argument
