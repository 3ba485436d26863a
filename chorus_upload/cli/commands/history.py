"""`chorus-upload history`: what was done with this journal before."""

from __future__ import annotations

import typer

from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import current
from chorus_upload.cli.render.listings import history_report
from chorus_upload.errors import EXIT_OK


def add_to(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command(
        "history",
        epilog=examples(("Earlier commands", "history"), ("As lines of JSON", "history --json")),
    )(history)


def history(context: typer.Context) -> int:
    """List earlier commands on this journal.

    When, with which options, how long, by whom, and the exit code. Never a credential.
    """
    from chorus_upload.operations import listing

    run = current(context)
    with run.session(context, read_only=True) as session:
        records = listing.history(session.journal)
    run.sink.result("command", records, lambda: history_report(records))
    return EXIT_OK
