"""Marking files by hand: as deleted, or as uploaded by other means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli.arguments import chosen_destination, chosen_paths
from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import current
from chorus_upload.cli.options import (
    FileList,
    Files,
    LocalJournal,
    NewDestination,
    SameDestination,
    UploadDatetime,
    regular,
)
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError

if TYPE_CHECKING:
    from chorus_upload.operations.destination import Choice


def add_to(group: typer.Typer) -> None:
    """Add the marking commands to the group of file commands."""
    group.command(
        "mark-as-deleted",
        epilog=examples(
            ("One file", "file mark-as-deleted --file 1001/Images/scan.dcm"),
            ("Many, from a list", "file mark-as-deleted --file-list gone.txt"),
            ("All that one version says of them", "file mark-as-deleted --version 20260301120000 --file-list gone.txt"),
        ),
    )(mark_as_deleted)
    group.command(
        "mark-as-uploaded-central",
        epilog=examples(
            (
                "Everything pending that another tool has sent",
                "file mark-as-uploaded-central --upload-datetime 20260301120000",
            ),
            ("Only these", "file mark-as-uploaded-central --upload-datetime 20260301120000 --file-list sent.txt"),
        ),
    )(mark_as_uploaded_central)
    group.command(
        "mark-as-uploaded-local",
        epilog=examples(
            (
                "After a generated script has sent these files",
                "file mark-as-uploaded-local --upload-datetime 20260301120000 --file-list sent.txt",
            ),
            (
                "In a journal that lies elsewhere",
                "file mark-as-uploaded-local --upload-datetime 20260301120000 --local-journal /data/journal.db",
            ),
        ),
    )(mark_as_uploaded_local)
    group.command(
        "mark-as-uploaded",
        epilog=examples(("After a script has run", "file mark-as-uploaded --results upload.sh.results")),
    )(mark_as_uploaded)


def mark_as_deleted(
    context: typer.Context,
    *,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="The version that retires them. Default: the last one.")
    ] = None,
    files: Files = None,
    file_list: FileList = None,
    local_journal: LocalJournal = None,
) -> int:
    """Retire files from the journal.

    This is how deletion works in append mode. Nothing is removed from the central store. Ends with 3 when a file
    is not in the journal.
    """
    from chorus_upload.operations import marking

    run = current(context)
    paths = chosen_paths(files, file_list)
    if paths is None:
        raise ConfigError("which files?", hint="give --file PATH or --file-list FILE")
    with run.session(context, local_journal=local_journal) as session:
        marked = marking.mark_as_deleted(session.journal, run.settings, paths=paths, version=version, emit=run.emit)
        run.emit(marked)
        code = session.exit_code = EXIT_PARTIAL if marked.refused else EXIT_OK
    return code


def mark_as_uploaded_central(
    context: typer.Context,
    *,
    upload_datetime: UploadDatetime,
    files: Files = None,
    file_list: FileList = None,
    local_journal: LocalJournal = None,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """Mark files that another tool has uploaded.

    The journal is that of the cloud. Each is verified against the central store first, and only those that match
    are marked. Without --file and --file-list: all that are pending. Ends with 3 when one does not match.
    """
    return _mark_as_uploaded(
        context,
        upload_datetime,
        chosen_paths(files, file_list),
        local_journal=local_journal,
        local_only=False,
        destination=chosen_destination(same=same_destination, new=new_destination),
    )


def mark_as_uploaded_local(
    context: typer.Context,
    *,
    upload_datetime: UploadDatetime,
    files: Files = None,
    file_list: FileList = None,
    local_journal: LocalJournal = None,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """The same, in the local journal only.

    The journal is not checked out and not checked in. Each is verified against the central store first, and only
    those that match are marked. Without --file and --file-list: all that are pending. Ends with 3 when one does
    not match.
    """
    return _mark_as_uploaded(
        context,
        upload_datetime,
        chosen_paths(files, file_list),
        local_journal=local_journal,
        local_only=True,
        destination=chosen_destination(same=same_destination, new=new_destination),
    )


def mark_as_uploaded(
    context: typer.Context,
    *,
    results: Annotated[
        list[Path],
        typer.Option(
            "--results",
            metavar="FILE",
            callback=regular,
            help="What a script has noted beside it. May be given several times.",
        ),
    ],
    local_journal: LocalJournal = None,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """Record what a generated script has sent.

    Each file is read back from the central store and compared with its source; only what matches is recorded. Ends
    with 3 when one does not match.
    """
    from chorus_upload.operations import marking

    run = current(context)
    destination = chosen_destination(same=same_destination, new=new_destination)
    with run.session(context, local_journal=local_journal) as session:
        marked = marking.mark_results(session.journal, run.settings, results, emit=run.emit, destination=destination)
        run.emit(marked)
        code = session.exit_code = EXIT_PARTIAL if marked.refused else EXIT_OK
    return code


def _mark_as_uploaded(
    context: typer.Context,
    upload_datetime: str,
    paths: list[str] | None,
    *,
    local_journal: Path | None,
    local_only: bool,
    destination: Choice | None,
) -> int:
    from chorus_upload.operations import marking

    run = current(context)
    with run.session(context, local_journal=local_journal, local_only=local_only) as session:
        marked = marking.mark_as_uploaded(
            session.journal,
            run.settings,
            upload_datetime=upload_datetime,
            paths=paths,
            emit=run.emit,
            destination=destination,
        )
        run.emit(marked)
        code = session.exit_code = EXIT_PARTIAL if marked.refused else EXIT_OK
    return code
