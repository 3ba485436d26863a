"""How commands are declared: the settings that all of them share, and examples on every help page."""

from __future__ import annotations

import sys
from typing import Any

import typer

from chorus_upload.cli.render.stream import Stream
from chorus_upload.errors import ConfigError

PROGRAM = "chorus-upload"


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


def make_group(help_text: str, *, epilog: str, name: str | None = None) -> typer.Typer:
    """Make an empty group of commands. Typed without a command it shows its help and ends as a usage error."""
    group = typer.Typer(
        name=name,
        help=help_text,
        epilog=epilog,
        context_settings=CONTEXT_SETTINGS,
        invoke_without_command=True,
        add_completion=False,
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
