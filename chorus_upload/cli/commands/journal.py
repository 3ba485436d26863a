"""`chorus-upload journal …`: the journal itself, what is in it, and who holds it."""

from __future__ import annotations

from typing import Annotated

import typer

from chorus_upload.cli.arguments import chosen_destination, chosen_modalities
from chorus_upload.cli.commands import custody, insight, upgrade
from chorus_upload.cli.commands.insight import GivenJournal, reading
from chorus_upload.cli.groups import examples, make_group
from chorus_upload.cli.invocation import current
from chorus_upload.cli.options import Modalities, NewDestination, SameDestination, WaitForCredentials
from chorus_upload.cli.render.listings import versions_report
from chorus_upload.cli.render.tables import Report
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL

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
def update(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    *,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="V",
            help="The label of the version; the newest one is added to, older ones are refused. Default: now,"
            " YYYYMMDDHHMMSS.",
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
    confirm_outside: Annotated[
        bool,
        typer.Option(
            "--confirm-outside",
            help="Retire files that are gone even if they, or many others, are now under names of no pattern.",
        ),
    ] = False,
    list_outside: Annotated[
        bool, typer.Option("--list-outside", help="Name the files that no modality's pattern matches.")
    ] = False,
    forget_mount: Annotated[
        list[str] | None,
        typer.Option(
            "--forget-mount",
            metavar="PATH",
            help="This directory is to be no mount point any more: what is missing there counts as deleted.",
        ),
    ] = None,
    wait_for_credentials: WaitForCredentials = None,
) -> int:
    """Take down what is new, modified, renamed or gone.

    The sources are scanned, and what they hold is recorded as a version of the journal. Nothing is sent. An
    update that was interrupted goes on where it stopped. Ends with 3 when something could not be read.
    """
    from chorus_upload.operations.update import UpdateRequest
    from chorus_upload.operations.update import update as run_update

    run = current(context)
    run.wait_for_credentials(wait_for_credentials)
    request = UpdateRequest(
        version=version,
        amend=amend,
        modalities=chosen_modalities(run.settings, modalities, emit=run.emit),
        confirm_deletions=confirm_deletions,
        confirm_outside=confirm_outside,
        list_outside=list_outside,
        forget_mounts=tuple(forget_mount or ()),
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
        ("A journal that was kept aside", "journal list --local-journal journal.kept.db"),
    ),
)
def list_(
    context: typer.Context,
    *,
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="Only this version.")] = None,
    modalities: Modalities = None,
    all_: Annotated[bool, typer.Option("--all", help="Also versions without files of their own.")] = False,
    local_journal: GivenJournal = None,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """List the versions and what is still to upload.

    For each version and modality: persons and files that came with it, those that are active still, and those
    that wait for an upload. Then the totals of each version and of all of them.
    """
    from chorus_upload.operations.insight import last_pruned, version_totals
    from chorus_upload.operations.listing import list_versions

    run = current(context)
    chosen = chosen_modalities(run.settings, modalities, emit=run.emit)
    destination = chosen_destination(same=same_destination, new=new_destination)
    with reading(run, context, local_journal) as session:
        journal = session.journal
        rows = list_versions(journal, run.settings, version=version, modalities=chosen, destination=destination)
        totals = version_totals(journal, run.settings, rows, version=version, modalities=chosen)
        pruned = last_pruned(journal)
        with_empty = all_ or version is not None
        run.sink.result("version", rows, lambda: versions_report(rows, totals, pruned=pruned, with_empty=with_empty))
        # For programs only: people have seen them in the table.
        run.sink.result("version-total", totals, Report)
    return EXIT_OK


custody.add_to(group)
upgrade.add_to(group)
insight.add_to(group)
