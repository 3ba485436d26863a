"""`chorus-upload journal checkout`, `checkin`, `unlock` and `merge`: who has the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chorus_upload.cli.asking import require_agreement, require_somebody
from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import Invocation, current
from chorus_upload.cli.options import LocalJournal, regular
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL
from chorus_upload.events import Emit, Event, JournalCheckedIn, JournalCheckedOut, Notice


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group of journal commands."""
    group.command(
        "checkout",
        epilog=examples(
            ("Take the journal to the configured local path", "journal checkout"),
            ("To another place", "journal checkout --local-journal /data/journal.db"),
        ),
    )(checkout)
    group.command(
        "checkin",
        epilog=examples(
            ("Give the journal back", "journal checkin"),
            ("After an interruption, from another place", "journal checkin --local-journal /data/journal.db"),
        ),
    )(checkin)
    group.command(
        "unlock",
        epilog=examples(
            ("See who holds the lock, and remove it after a question", "journal unlock"),
            ("Without the question, in a script", "journal unlock --yes"),
        ),
    )(unlock)
    group.command(
        "merge",
        epilog=examples(
            ("After 'journal checkin' was refused", "journal merge"),
            ("A journal that was kept under another name", "journal merge journal.db.20260301120000"),
        ),
    )(merge)


def checkout(context: typer.Context, local_journal: LocalJournal = None) -> int:
    """Take the journal from the cloud and lock it.

    Nobody else can change it meanwhile. The commands that follow work on the local journal, until 'journal
    checkin'.
    """
    from chorus_upload.operations import custody

    run = current(context)
    custody.checkout(run.settings, local_journal=local_journal, emit=_answering(run))
    return EXIT_OK


def checkin(context: typer.Context, local_journal: LocalJournal = None) -> int:
    """Give the journal back and unlock it.

    The local journal becomes the one in the cloud, if that is still the one that was checked out.
    """
    from chorus_upload.operations import custody

    run = current(context)
    custody.checkin(run.settings, local_journal=local_journal, emit=_answering(run))
    return EXIT_OK


def unlock(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove the lock of the cloud journal by force.

    Shows who holds it, and asks. What its holder has not checked in is not in the cloud journal; once that has
    changed it cannot be checked in any more, only merged.
    """
    from chorus_upload.operations import custody

    run = current(context)
    held = custody.lock_status(run.settings)
    if held is None:
        run.emit(Notice("The journal is not locked."))
        return EXIT_OK
    if not yes:
        require_somebody(run, held.sentence, hint="'journal unlock --yes' removes the lock without a question")
        run.emit(Notice(held.sentence))
        require_agreement(run, "Remove the lock?")
    custody.unlock(run.settings, shown=held, emit=run.emit)
    return EXIT_OK


def merge(
    context: typer.Context,
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            callback=regular,
            help="The journal whose deliveries are taken over. Default: the local one, if it was refused, and those"
            " that were kept beside it for that reason.",
            show_default=False,
        ),
    ] = None,
    local_journal: LocalJournal = None,
) -> int:
    """Take over what a refused journal delivered.

    For a journal that could not be checked in because the cloud has gone on without it. It is kept under a dated
    name. What it has delivered is recorded in the present journal wherever that has the same file in the same
    version; all else is named. Ends with 3 when something could not be taken over.
    """
    from chorus_upload.operations import merging

    run = current(context)
    refused = merging.find_refused(run.settings, other=other, local_journal=local_journal, emit=run.emit)
    if not refused:
        run.emit(Notice("No journal was refused here: there is nothing to merge."))
        return EXIT_OK
    with run.session(context, local_journal=local_journal) as session:
        merged = merging.merge(session.journal, run.settings, refused, emit=run.emit)
        code = session.exit_code = EXIT_PARTIAL if merged.report.refused else EXIT_OK
    merging.settle(refused, merged, named=other, emit=run.emit)
    run.emit(merged.report)
    return code


def _answering(run: Invocation) -> Emit:
    """Return an `emit` for which taking or giving back the journal is the answer, and not a remark."""

    def emit(event: Event) -> None:
        if isinstance(event, JournalCheckedOut | JournalCheckedIn):
            run.sink.answer(event)
        else:
            run.emit(event)

    return emit
