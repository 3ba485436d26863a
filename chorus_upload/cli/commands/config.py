"""`chorus-upload config …` and `config-help`: what the configuration says, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import typer

from chorus_upload.cli.groups import examples, make_group
from chorus_upload.cli.invocation import current
from chorus_upload.cli.render.tables import Report
from chorus_upload.errors import EXIT_OK

group = make_group(
    "Look at the configuration; the cloud is not touched.",
    name="config",
    epilog=examples(
        ("What the file and the environment come to, secrets masked", "config show"),
        ("What is wrong with another file", "-c /data/site.toml config check"),
    ),
)


@group.command(
    "show",
    epilog=examples(
        ("What the file and the environment come to", "config show"), ("For a program", "config show --json")
    ),
)
def show(context: typer.Context) -> int:
    """Show what file and environment come to.

    Defaults are filled in and secrets are masked.
    """
    from chorus_upload.config.showing import masked

    run = current(context)
    settings = masked(run.settings)
    run.sink.result("settings", [settings], lambda: Report(remarks=tuple(_lines(settings)), data=True))
    return EXIT_OK


def _lines(settings: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yield one line for each setting, its place in front: `central.location.path = az://…`."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} = {value}"


def add_to(app: typer.Typer) -> None:
    """Add the command that is not in the group."""
