"""`chorus-upload journal upgrade`: journals of the older tool become journals of this one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from chorus_upload.cli.arguments import chosen_destination
from chorus_upload.cli.asking import require_agreement
from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import current, given_arguments
from chorus_upload.cli.options import NewDestination, SameDestination, regular
from chorus_upload.errors import EXIT_OK, DestinationChanged


def add_to(group: typer.Typer) -> None:
    """Add the command to the group of journal commands."""
    group.command(
        "upgrade",
        epilog=examples(
            ("Convert the cloud journal of an older chorus-upload", "journal upgrade"),
            ("Convert a file on this machine, without the cloud", "journal upgrade --local-journal old.db"),
        ),
    )(upgrade)


def upgrade(
    context: typer.Context,
    *,
    local_journal: Annotated[
        Path | None,
        typer.Option(
            "--local-journal",
            metavar="FILE",
            callback=regular,
            help="Convert this file in its place, and leave the cloud alone. Default: the cloud journal.",
        ),
    ] = None,
    confirm_omissions: Annotated[
        bool,
        typer.Option("--confirm-omissions", help="Leave out rows that cannot be taken over, and name each of them."),
    ] = False,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """Convert the journal of an older chorus-upload.

    All of it is taken over: files, versions, uploads and history. Both journals are counted and must agree, or
    nothing is changed. Some of the uploads are looked for in the central store: where they are not, you are asked
    whether they went there. The original is kept beside the new one under a dated name. An upgrade that was
    interrupted may be repeated; a journal that is new already is left as it is.
    """
    from chorus_upload.operations.upgrade import UpgradeRequest
    from chorus_upload.operations.upgrade import upgrade as run_upgrade

    run = current(context)
    settings = run.settings
    arguments = {name: run.redact(text) for name, text in given_arguments(context).items()}
    request = UpgradeRequest(
        local_journal=local_journal,
        confirm_omissions=confirm_omissions,
        destination=chosen_destination(same=same_destination, new=new_destination),
        arguments=arguments,
    )
    try:
        result = run_upgrade(settings, request, emit=run.emit, redact=run.redact)
    except DestinationChanged as error:
        if run.options.json or not sys.stdin.isatty():
            raise
        require_agreement(run, f"{run.redact(error.message)}. Is it the same store all the same?")
        request = replace(request, destination=chosen_destination(same=True, new=False))
        result = run_upgrade(settings, request, emit=run.emit, redact=run.redact)
    if result is not None:
        run.sink.answer(result)
    return EXIT_OK
