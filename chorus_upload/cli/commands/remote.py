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
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError

group = make_group(
    "Plain file operations on the central store.",
    name="remote",
    epilog=examples(
        ("What is in the folder of a version?", "remote list 20260301120000"),
        ("A note for the receiver, into the directory notes", "remote upload README.txt notes/"),
        ("Fetch the manifests, to here", "remote download '20260301120000/manifest-*.csv' ."),
    ),
)

Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="With all that is below directories.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there and has other content.")]
Keys = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Objects or directories, below the central path, or patterns such as '*.csv'; never all of the store.",
    ),
]


@group.command(
    "list",
    epilog=examples(
        ("What is at the top?", "remote list"),
        ("Everything of one version, with sizes and times", "remote list -r --long 20260301120000"),
        ("The tables of all versions", "remote list '*/OMOP/*.csv'"),
    ),
)
def list_(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH...]",
            help="Directories or objects, below the central path, or patterns such as '*.csv'. Default: the top.",
        ),
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
    listed = 0
    with central_store(run.settings) as store, interrupted_at_once(""):
        for entry in entries(store, paths or ["/"], recursive=recursive):
            if run.options.json:
                out.write(json_line("remote-entry", fields_of(entry)) + "\n")
            elif long:
                volume = "" if entry.size is None else size(entry.size)
                moment = "" if entry.time_us is None else local_time(entry.time_us)
                out.write(f"{volume:>10}  {moment:26}  {printable(entry.key)}\n")
            else:
                out.write(printable(entry.key) + "\n")
            listed += 1
            if out.gone:
                break
    if run.options.json:
        out.write(json_line("remote-list-finished", {"entries": listed}) + "\n")
    out.flush()
    return EXIT_OK


@group.command(
    "upload",
    epilog=examples(
        ("One file, into the directory notes", "remote upload README.txt notes/"),
        ("Under another name", "remote upload README.txt notes/about-march.txt"),
        ("A directory with all that is in it, and some tables, to the top", "remote upload -r documents '*.csv' /"),
    ),
)
def upload(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="LOCAL... REMOTE",
            help="Files, directories or patterns such as '*.csv' of this machine, and at the end where to, below the"
            " central path: notes/ is a directory, / is the top.",
        ),
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Where to: then all arguments are of this machine."),
    ] = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> int:
    """Put files into the central store.

    The last argument is where to. Each file keeps its own name; a single one gets the name REMOTE, if that ends in no
    slash and is no directory there. A file without a REMOTE goes to the top. Each is proven to have arrived; the
    journal learns nothing of it. Ends with 3 when a file could not be delivered, something else is in its place, or a
    link or what cannot be read was left out.
    """
    from chorus_upload.operations.remote_transfer import Options
    from chorus_upload.operations.remote_transfer import upload as run_upload

    run = current(context)
    local, place = _local_and_remote(paths) if to is None else (paths, _as_directory(to))
    options = Options(recursive=recursive, overwrite=overwrite)
    with stopped_by_signals() as stop:
        finished = run_upload(run.settings, local, to=place, options=options, emit=run.emit, stop=stop)
    run.emit(finished)
    return EXIT_PARTIAL if finished.failed or finished.left_out else EXIT_OK


def _local_and_remote(paths: list[str]) -> tuple[list[str], str]:
    """Tell what is sent from where to. ConfigError where the place was forgotten, or seems so."""
    *local, place = paths
    forgotten = "Where to in the central store? Add it at the end: notes/ for a directory, / for the top."
    if not local:
        if not Path(place).is_file():
            raise ConfigError(f"{place} is the only argument, and no file", hint=forgotten)
        return paths, "/"
    if Path(place).is_file() and (len(local) > 1 or Path(local[0]).name != Path(place).name):
        raise ConfigError(f"{place}, the last argument, is where to, and is a file of this machine", hint=forgotten)
    return local, place


def _as_directory(place: str) -> str:
    return f"{place.rstrip('/')}/" if place.strip() else place


@group.command(
    "download",
    epilog=examples(
        ("One object, to here", "remote download 20260301120000/OMOP/person.csv ."),
        ("The folder of a patient", "remote download -r 20260301120000/1001 inbox/"),
        ("Tables, into the directory tables", "remote download '20260301120000/OMOP/*.csv' tables/"),
    ),
)
def download(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="REMOTE... LOCAL",
            help="Objects, directories or patterns such as '*.csv', below the central path, and at the end where to on"
            " this machine: inbox/ is a directory, a dot is here.",
        ),
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Where to: then all arguments are of the central store."),
    ] = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> int:
    """Fetch objects from the central store.

    The last argument is where to; a single argument is fetched to here. Each object keeps its own name; a single one
    gets the name LOCAL, if that ends in no slash and is no directory. 'file download' brings back a version, and holds
    every file against the journal. Ends with 3 when something could not be fetched, or something else is in its place.
    """
    from chorus_upload.operations.remote_transfer import Options
    from chorus_upload.operations.remote_transfer import download as run_download

    run = current(context)
    if to is not None:
        remote, place = paths, _as_directory(to)
    else:
        remote, place = (paths[:-1], paths[-1]) if len(paths) > 1 else (paths, "./")
    options = Options(recursive=recursive, overwrite=overwrite)
    with stopped_by_signals() as stop:
        finished = run_download(run.settings, remote, to=place, options=options, emit=run.emit, stop=stop)
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
    'file verify' then calls them missing. Patterns and directories that together are all of the store are refused.
    Ends with 3 when an object could not be deleted.
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
