"""`chorus-upload journal …`: the journal itself, what is in it, and who holds it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from chorus_upload.cli.arguments import chosen_modalities
from chorus_upload.cli.groups import examples, make_group
from chorus_upload.cli.invocation import Invocation, current
from chorus_upload.cli.options import LocalJournal, Modalities
from chorus_upload.cli.render.listings import versions_report
from chorus_upload.cli.render.stream import Stream
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError
from chorus_upload.events import Emit, Event, JournalCheckedIn, JournalCheckedOut, Notice

group = make_group(
    "Keep the journal of what the sources hold.",
    name="journal",
    epilog=examples(
        ("Take down what is new or changed", "journal update"),
        ("What each version holds, and what is still to upload", "journal list"),
        ("Work on a local copy for a while, and give it back", "journal checkout"),
        ("", "journal checkin"),
    ),
)


@group.command(
    "update",
    epilog=examples(
        ("Journal everything that is new, changed or gone", "journal update"),
        (
            "Only two modalities, into a version with a name of your own",
            "journal update --version 2026-03 --modalities OMOP,Images",
        ),
        ("Add to the last version, e.g. after an interruption", "journal update --amend"),
        ("Which files does no pattern match?", "journal update --list-outside"),
        ("Half of a source was removed on purpose", "journal update --confirm-deletions"),
    ),
)
def update(
    context: typer.Context,
    *,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="V",
            help="The label of the version; an existing one is added to. Default: now, YYYYMMDDHHMMSS.",
        ),
    ] = None,
    amend: Annotated[
        bool, typer.Option("--amend", help="Add to the last version (or to --version) instead of making one.")
    ] = False,
    modalities: Modalities = None,
    confirm_deletions: Annotated[
        bool,
        typer.Option(
            "--confirm-deletions",
            help="Retire files that are gone even if a source is empty or has lost more than the configured share.",
        ),
    ] = False,
    list_outside: Annotated[
        bool, typer.Option("--list-outside", help="Name the files that no modality's pattern matches.")
    ] = False,
) -> int:
    """Take down what is new, modified, renamed or gone.

    The sources are scanned, and what they hold is recorded as a version of the journal. Nothing is sent. An
    update that was interrupted goes on where it stopped. Ends with 3 when something could not be read.
    """
    from chorus_upload.operations.update import UpdateRequest
    from chorus_upload.operations.update import update as run_update

    run = current(context)
    request = UpdateRequest(
        version=version,
        amend=amend,
        modalities=chosen_modalities(run.settings, modalities),
        confirm_deletions=confirm_deletions,
        list_outside=list_outside,
    )
    with run.session(context) as session:
        run.emit(run_update(session.journal, run.settings, request, emit=run.emit))
        code = session.exit_code = EXIT_PARTIAL if run.needs_attention else EXIT_OK
    return code


@group.command(
    "list",
    epilog=examples(
        ("All versions", "journal list"),
        ("One version, images only, for a program", "journal list --version 20260301120000 --modalities Images --json"),
    ),
)
def list_(
    context: typer.Context,
    *,
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="Only this version.")] = None,
    modalities: Modalities = None,
) -> int:
    """List the versions and what is still to upload.

    For each version and modality: persons and files that came with it, those that are active still, and those
    that wait for an upload.
    """
    from chorus_upload.operations.listing import list_versions

    run = current(context)
    chosen = chosen_modalities(run.settings, modalities)
    with run.session(context, read_only=True) as session:
        summaries = list_versions(session.journal, run.settings, version=version, modalities=chosen)
    run.sink.result("version", summaries, lambda: versions_report(summaries))
    return EXIT_OK


@group.command(
    "checkout",
    epilog=examples(
        ("Take the journal to the configured local path", "journal checkout"),
        ("To another place", "journal checkout --local-journal /data/journal.db"),
    ),
)
def checkout(context: typer.Context, local_journal: LocalJournal = None) -> int:
    """Take the journal from the cloud and lock it.

    Nobody else can change it meanwhile. The commands that follow work on the local journal, until 'journal
    checkin'.
    """
    from chorus_upload.operations import custody

    run = current(context)
    custody.checkout(run.settings, local_journal=local_journal, emit=_answering(run))
    return EXIT_OK


@group.command(
    "checkin",
    epilog=examples(
        ("Give the journal back", "journal checkin"),
        ("After an interruption, from another place", "journal checkin --local-journal /data/journal.db"),
    ),
)
def checkin(context: typer.Context, local_journal: LocalJournal = None) -> int:
    """Give the journal back and unlock it.

    The local journal becomes the one in the cloud, if that is still the one that was checked out.
    """
    from chorus_upload.operations import custody

    run = current(context)
    custody.checkin(run.settings, local_journal=local_journal, emit=_answering(run))
    return EXIT_OK


@group.command(
    "unlock",
    epilog=examples(
        ("See who holds the lock, and remove it after a question", "journal unlock"),
        ("Without the question, in a script", "journal unlock --yes"),
    ),
)
def unlock(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove the lock of the cloud journal by force.

    What its holder has not checked in is not in the cloud journal, and cannot be checked in afterwards.
    """
    from chorus_upload.operations import custody

    run = current(context)
    holder = custody.lock_status(run.settings)
    if holder is None:
        run.emit(Notice("The journal is not locked."))
        return EXIT_OK
    if not yes:
        _confirm_unlock(context, holder)
    custody.unlock(run.settings, emit=run.emit)
    return EXIT_OK


def _answering(run: Invocation) -> Emit:
    """Return an `emit` for which taking or giving back the journal is the answer, and not a remark."""

    def emit(event: Event) -> None:
        if isinstance(event, JournalCheckedOut | JournalCheckedIn):
            run.sink.answer(event)
        else:
            run.emit(event)

    return emit


def _confirm_unlock(context: typer.Context, holder: str) -> None:
    """Ask; ConfigError where nobody can answer, typer.Exit when the answer is no."""
    run = current(context)
    if run.options.json or not sys.stdin.isatty():
        raise ConfigError(holder, hint="'journal unlock --yes' removes the lock without a question")
    run.emit(Notice(holder))
    run.sink.pause()
    if not _agrees("Remove the lock? [y/N]: "):
        raise typer.Exit(EXIT_OK)


def _agrees(question: str) -> bool:
    """Ask on standard error. Who closes the input instead of answering has interrupted the command."""
    asked = Stream(sys.stderr)
    asked.write(question)
    asked.flush()
    answer = sys.stdin.readline()
    if not answer:
        asked.line("")
        raise typer.Abort
    return answer.strip().lower() in ("y", "yes")
