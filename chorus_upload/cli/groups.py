"""How commands are declared: the settings that all of them share, and examples on every help page."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperGroup

from chorus_upload.cli.render.stream import Stream
from chorus_upload.errors import ConfigError

PROGRAM = "chorus-upload"

_OTHER_WORDS = {"push": "upload", "send": "upload", "pull": "download", "fetch": "download", "scan": "update"}
"""Names that other programs have for such commands."""


def normal_spelling(token: str) -> str:
    """Return a command or an option with hyphens: sites have typed `mark_as_uploaded_central` for years."""
    return token.replace("_", "-")


CONTEXT_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": normal_spelling,
}


def examples(*pairs: tuple[str, str]) -> str:
    """Return the end of a help page: what one may want, and the command line that does it.

    Command lines are given without the name of the program; one without a wish continues the one before.
    """
    lines = ["\b", "Examples:"]
    for wish, command in pairs:
        if wish:
            lines.append(f"  # {wish}")
        lines.append(f"  {PROGRAM} {command}")
    return "\n".join(lines)


class Group(TyperGroup):
    """A group that names the right command to who typed one of another group, or one that is nearly so called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer does not export these types
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            name = normal_spelling(args[0])
            known = _by_spelling(ctx.find_root().command)
            meant = known.get(_OTHER_WORDS.get(name, name), [])
            # Another spelling may be proposed already.
            if not meant and "Did you mean" not in error.message:
                meant = [
                    command
                    for spelling in get_close_matches(name, known, n=1, cutoff=0.7)
                    for command in known[spelling]
                ]
            if meant:
                error.message = f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, meant))}?"
            raise


def _by_spelling(program: TyperGroup) -> dict[str, list[str]]:
    """Return the commands as they are to be typed, by their names alone and together with that of their group."""
    groups = {f"{each} ": group for each, group in program.commands.items() if isinstance(group, TyperGroup)}
    found: dict[str, list[str]] = {}
    for above, group in {"": program, **groups}.items():
        for name in group.commands:
            for spelling in {name, f"{above}{name}".replace(" ", "-")}:
                found.setdefault(spelling, []).append(f"{PROGRAM} {above}{name}")
    return found


def make_group(help_text: str, *, epilog: str, name: str | None = None, completion: bool = False) -> typer.Typer:
    """Make an empty group of commands. Typed without a command it shows its help and ends as a usage error.

    With `completion` it has the options that set up the completion of a shell.
    """
    group = typer.Typer(
        name=name,
        cls=Group,
        help=help_text,
        epilog=epilog,
        context_settings=CONTEXT_SETTINGS,
        invoke_without_command=True,
        add_completion=completion,
        # Help pages are plain text: they are quick, fit every console, and are the same in the documentation.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    group.callback()(require_command)
    return group


def require_command(context: typer.Context) -> None:
    """Show the help of a group that was typed without a command, and end as a usage error."""
    if context.invoked_subcommand is None:
        Stream(sys.stderr).line(context.get_help())
        raise typer.Exit(ConfigError.exit_code)
