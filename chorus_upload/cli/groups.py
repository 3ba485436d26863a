"""How commands are declared: the settings that all of them share, and examples on every help page."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

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


class Group(TyperGroup):
    """A group that names the right command to who typed one of another group."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer does not export these types
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            # Another spelling is proposed already.
            if elsewhere := _elsewhere(ctx.find_root().command, normal_spelling(args[0])):
                error.message = f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, elsewhere))}?"
            raise


def _elsewhere(program: TyperGroup, name: str) -> list[str]:
    """Return the commands of that name, at the top and in all groups, as they are to be typed."""
    groups = {f"{each} ": group for each, group in program.commands.items() if isinstance(group, TyperGroup)}
    return [f"{PROGRAM} {above}{name}" for above, group in {"": program, **groups}.items() if name in group.commands]


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
