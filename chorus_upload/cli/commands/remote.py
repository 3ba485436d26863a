"""`chorus-upload remote …`: plain file operations on the central store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from chorus_upload.cli.asking import require_agreement, require_somebody
from chorus_upload.cli.groups import examples, make_group
from chorus_upload.cli.interruption import interrupted_at_once, stopped_by_signals
from chorus_upload.cli.invocation import current
from chorus_upload.cli.render.formats import files as files_text
from chorus_upload.cli.render.formats import local_time, size
from chorus_upload.cli.render.records import fields_of, json_line
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.text import printable
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL

group = make_group(
    "Plain file operations on the central store.",
    name="remote",
    epilog=examples(
        ("What is in the folder of a version?", "remote list 20260301120000"),
        ("A note for the receiver", "remote upload README.txt --to notes"),
        ("Fetch a manifest", "remote download 20260301120000/manifest-20260301130000.csv"),
    ),
)

Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="With all that is below directories.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there and has other content.")]
Keys = Annotated[list[str], typer.Argument(metavar="PATH...", help="Objects or directories, below the central path.")]


@group.command(
    "list",
    epilog=examples(
        ("What is at the top?", "remote list"),
        ("Everything of one version, with sizes and times", "remote list -r --long 20260301120000"),
    ),
)
def list_(
    context: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH...]", help="Directories or objects, below the central path.")
    ] = None,
    *,
    recursive: Recursive = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="With size and time of the last change.")] = False,
) -> int:
    """List what is in the central store.

    One path below the central path a line; directories end in a slash.
    """
    from chorus_upload.operations.remote import central_store, entries

    run = current(context)
    out = Stream(sys.stdout)
    with central_store(run.settings) as store, interrupted_at_once(""):
        for entry in entries(store, paths or [""], recursive=recursive):
            if run.options.json:
                out.write(json_line("remote-entry", fields_of(entry)) + "\n")
            elif long:
                volume = "" if entry.size is None else size(entry.size)
                moment = "" if entry.time_us is None else local_time(entry.time_us)
                out.write(f"{volume:>10}  {moment:26}  {printable(entry.key)}\n")
            else:
                out.write(printable(entry.key) + "\n")
            if out.gone:
                break
    out.flush()
    return EXIT_OK


@group.command(
    "upload",
    epilog=examples(
        ("One file, to the top", "remote upload README.txt"),
        ("A directory with all that is in it", "remote upload -r documents --to 20260301120000"),
    ),
)
def upload(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or directories of this machine.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Where to, below the central path.")] = "",
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> int:
    """Put files into the central store.

    Each keeps its own name, and is proven to have arrived; the journal learns nothing of it. Ends with 3 when a file
    could not be delivered, or something else is in its place.
    """
    from chorus_upload.operations.remote_transfer import Options
    from chorus_upload.operations.remote_transfer import upload as run_upload

    run = current(context)
    options = Options(recursive=recursive, overwrite=overwrite)
    with stopped_by_signals() as stop:
        finished = run_upload(run.settings, paths, to=to, options=options, emit=run.emit, stop=stop)
    run.emit(finished)
    return EXIT_PARTIAL if finished.failed else EXIT_OK


@group.command(
    "download",
    epilog=examples(
        ("One object, to here", "remote download 20260301120000/OMOP/person.csv"),
        ("The folder of a patient", "remote download -r 20260301120000/1001 --to inbox"),
    ),
)
def download(
    context: typer.Context,
    paths: Keys,
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where to. Default: here.")] = Path(),
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> int:
    """Fetch objects from the central store.

    Each keeps its own name. 'file download' brings back a version, and holds every file against the journal. Ends
    with 3 when something could not be fetched, or something else is in its place.
    """
    from chorus_upload.operations.remote_transfer import Options
    from chorus_upload.operations.remote_transfer import download as run_download

    run = current(context)
    options = Options(recursive=recursive, overwrite=overwrite)
    with stopped_by_signals() as stop:
        finished = run_download(run.settings, paths, to=to, options=options, emit=run.emit, stop=stop)
    run.emit(finished)
    return EXIT_PARTIAL if finished.failed else EXIT_OK


@group.command(
    "delete",
    epilog=examples(
        ("One object", "remote delete notes/README.txt"),
        ("A directory, without a question", "remote delete -r --yes notes"),
    ),
)
def delete(
    context: typer.Context,
    paths: Keys,
    *,
    recursive: Recursive = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Delete objects from the central store.

    Asks before that. The journal learns nothing of it: it goes on calling files delivered that are deleted here, and
    'file verify' then calls them missing. Ends with 3 when an object could not be deleted.
    """
    from chorus_upload.operations import remote

    run = current(context)
    with stopped_by_signals() as stop, remote.central_store(run.settings, stop=stop) as store:
        doomed = remote.doomed(store, run.settings, paths, recursive=recursive, emit=run.emit)
        what = f"{files_text(doomed.tally.files)}, {size(doomed.tally.bytes)},"
        told = f"{what} would be deleted permanently from {store.url}"
        if not yes:
            require_somebody(run, told, hint="'remote delete --yes' does it without a question")
            for each in doomed.objects[:10]:
                run.sink.log(each.key)
            require_agreement(run, f"{told}. Delete them?")
        finished = remote.delete(store, run.settings, doomed, emit=run.emit, stop=stop)
    run.emit(finished)
    return EXIT_PARTIAL if finished.refused else EXIT_OK
