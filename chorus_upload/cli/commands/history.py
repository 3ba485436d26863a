"""`chorus-upload history`: what was done with this journal before."""

from __future__ import annotations

from typing import Annotated

import typer

from chorus_upload.cli.commands.insight import GivenJournal, reading
from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import current
from chorus_upload.cli.options import LARGEST
from chorus_upload.cli.render.listings import history_report
from chorus_upload.errors import EXIT_OK


def add_to(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command(
        "history",
        epilog=examples(
            ("Earlier commands", "history"),
            ("The last ten", "history --limit 10"),
            ("As lines of JSON", "history --json"),
            ("Those of a journal that was kept aside", "history --local-journal journal.kept.db"),
        ),
    )(history)


def history(
    context: typer.Context,
    *,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, max=LARGEST, help="Only the last N commands. Default: all."),
    ] = None,
    local_journal: GivenJournal = None,
) -> int:
    """List earlier commands on this journal.

    When, with which options, how long, by whom, and the exit code. Never a credential.
    """
    from chorus_upload.operations import listing

    run = current(context)
    with reading(run, context, local_journal) as session:
        records = listing.history(session.journal)
        if limit is not None:
            records = records[-limit:]
        run.sink.result("command", records, lambda: history_report(records))
    return EXIT_OK
