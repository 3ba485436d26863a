"""`chorus-upload file …`: what is to be sent, sending it, checking it, bringing it back, and marking by hand."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from chorus_upload.cli import listing
from chorus_upload.cli.arguments import chosen_destination, chosen_modalities
from chorus_upload.cli.commands import download, marking, verify
from chorus_upload.cli.commands.scripts import ScriptOptions, ScriptShell, write_upload_scripts
from chorus_upload.cli.groups import examples, make_group
from chorus_upload.cli.interruption import stopped_by_signals
from chorus_upload.cli.invocation import Invocation, current
from chorus_upload.cli.options import (
    MaxFiles,
    Modalities,
    NewDestination,
    Patients,
    SameDestination,
    WaitForCredentials,
)
from chorus_upload.cli.output_file import Force, is_list, require_replaceable
from chorus_upload.cli.render.formats import files as files_text
from chorus_upload.cli.render.formats import size
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Report
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError
from chorus_upload.events import Level, Notice

group = make_group(
    "Send files, check them, bring them back.",
    name="file",
    epilog=examples(
        ("What would be sent?", "file list"),
        ("Send it", "file upload"),
        ("Is it all there?", "file verify"),
        ("Bring a version back", "file download --version 20260301120000 --to restored"),
    ),
)


class OutputType(StrEnum):
    """What `file list` writes."""

    LIST = "list"
    AZ = "azcli"
    AZCOPY = "azcopy"


@group.command(
    "list",
    epilog=examples(
        ("Everything that is still to upload", "file list"),
        (
            "The first hundred images, into a file",
            "file list --modalities Images --max-num-files 100 --output-file images.txt",
        ),
        ("What is still to upload of one patient", "file list --patient 1001"),
        (
            "What was uploaded of one version, with key, checksum and time",
            "file list --version 20260301120000 --uploaded --json",
        ),
        (
            "A script that sends it with Microsoft's az, for bash; .bat is for Windows",
            "file list --output-type azcli --output-file upload.sh",
        ),
        ("For a program, safe for any file name", "file list --null | xargs -0 -n 1 echo"),
    ),
)
def list_(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    *,
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="Only files of this version.")] = None,
    modalities: Modalities = None,
    patients: Patients = None,
    output_file: Annotated[
        Path | None, typer.Option("--output-file", metavar="FILE", help="Write to this file, not to standard output.")
    ] = None,
    output_type: Annotated[
        OutputType,
        typer.Option(
            "--output-type",
            help="What to write: 'list' is one path a line; 'azcli' and 'azcopy' are scripts that upload with that"
            " program, which --max-num-files cuts into several.",
        ),
    ] = OutputType.LIST,
    shell: Annotated[
        ScriptShell | None,
        typer.Option(
            "--shell",
            help="What runs the script. Default: what the name of the output file says, or what this system has.",
        ),
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Write a script for a machine on which chorus-upload is not installed.")
    ] = False,
    max_num_files: MaxFiles = None,
    uploaded: Annotated[bool, typer.Option("--uploaded", help="What was uploaded, instead of what would be.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="End each path with a NUL byte, so that names may hold line breaks.")
    ] = False,
    force: Force = False,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """List what would be uploaded, or script it.

    One path below the source's root a line on standard output, totals on standard error. Ends with 3 when a script
    cannot have a file; those are named.
    """
    from chorus_upload.operations.listing import knows_path, list_files, tell_what_is_not_listed

    run = current(context)
    chosen = chosen_modalities(run.settings, modalities, emit=run.emit)
    of_patients = tuple(patients) if patients else None
    destination = chosen_destination(same=same_destination, new=new_destination)
    if output_type is not OutputType.LIST:
        options = ScriptOptions(
            output_file,
            output_type.value,
            shell,
            standalone,
            version,
            chosen,
            of_patients,
            max_num_files,
            force,
            destination,
        )
        if uploaded or null:
            raise ConfigError("--uploaded and --null are for lists, not for scripts")
        return write_upload_scripts(run, context, options)
    if shell is not None or standalone:
        raise ConfigError("--shell and --standalone are for scripts", hint="Add --output-type azcli or azcopy.")
    out = Stream(sys.stdout)
    encode = _encoder(run, null=null, to_screen=output_file is None and out.is_terminal)
    with run.session(context, read_only=True) as session, ExitStack() as opened:
        if output_file is not None:
            is_ours = is_list(run.settings, partial(knows_path, session.journal))
            require_replaceable(run, output_file, option="--output-file", is_ours=is_ours, force=force)
        write = listing.to_stream(out) if output_file is None else opened.enter_context(listing.to_file(output_file))
        found = list_files(
            session.journal,
            run.settings,
            version=version,
            modalities=chosen,
            patients=of_patients,
            max_files=max_num_files,
            uploaded=uploaded,
            destination=destination,
        )
        listed = listing.write_listing(found, encode, write)
        if listed is not None and chosen is None and not uploaded:
            tell_what_is_not_listed(session.journal, run.settings, destination=destination, emit=run.emit)
    if listed is not None:
        _tell_totals(run, listed, uploaded=uploaded, escaped=encode is listing.as_line and listed.escaped > 0)
    return EXIT_OK


def _encoder(run: Invocation, *, null: bool, to_screen: bool) -> listing.Encode:
    if run.options.json:
        return listing.as_json_line
    if null:
        return listing.as_null_terminated
    return listing.as_screen_line if to_screen else listing.as_line


def _tell_totals(run: Invocation, listed: listing.Listed, *, uploaded: bool, escaped: bool) -> None:
    if run.options.json:
        run.sink.result("list-finished", [listing.ListFinished(listed.files, listed.bytes)], Report)
        return
    if escaped:
        run.emit(
            Notice(
                f"{files_text(listed.escaped)} with line breaks in the name: --null gives the names as they are",
                Level.WARNING,
            )
        )
    run.emit(Notice(f"{files_text(listed.files)}, {size(listed.bytes)} {'uploaded' if uploaded else 'to upload'}"))


@group.command(
    "upload",
    epilog=examples(
        ("Send everything that is new since the last submission", "file upload"),
        ("What would be sent, and under which keys?", "file upload --dry-run"),
        ("A first try with ten files", "file upload --max-num-files 10"),
        ("Images of one version only", "file upload --version 20260301120000 --modalities Images"),
        ("Over night, with a log", "file upload > upload.log 2>&1"),
    ),
)
def upload(
    context: typer.Context,
    *,
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="Only files of this version.")] = None,
    modalities: Modalities = None,
    max_num_files: MaxFiles = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the files and their keys, send nothing.")] = False,
    wait_for_credentials: WaitForCredentials = None,
    same_destination: SameDestination = False,
    new_destination: NewDestination = False,
) -> int:
    """Send what is new, and prove that it arrived.

    Every file that arrived is recorded. It may be interrupted at any time: what is recorded is never sent again.
    Ends with 3 when files could not be delivered, or a manifest could not; they are named, and left to the next upload.
    """
    from chorus_upload.operations.upload import UploadRequest
    from chorus_upload.operations.upload import upload as run_upload

    run = current(context)
    run.wait_for_credentials(wait_for_credentials)
    request = UploadRequest(
        version=version,
        modalities=chosen_modalities(run.settings, modalities, emit=run.emit),
        max_files=max_num_files,
        dry_run=dry_run,
        destination=chosen_destination(same=same_destination, new=new_destination),
    )
    # A dry run changes nothing: it needs no lock and leaves no trace.
    with run.session(context, read_only=dry_run) as session:
        with stopped_by_signals() as stop:
            finished = run_upload(session.journal, run.settings, request, emit=run.emit, stop=stop)
        run.emit(finished)
        code = session.exit_code = EXIT_PARTIAL if finished.failed or finished.manifests_refused else EXIT_OK
    return code


verify.add_to(group)
download.add_to(group)
marking.add_to(group)
