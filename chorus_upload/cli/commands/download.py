"""`chorus-upload file download`: bring the state of a version back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli.arguments import chosen_destination, chosen_modalities
from chorus_upload.cli.asking import is_agreed, require_somebody
from chorus_upload.cli.groups import examples
from chorus_upload.cli.interruption import stopped_by_signals
from chorus_upload.cli.invocation import current
from chorus_upload.cli.options import Modalities, Patients, SameDestination, WaitForCredentials
from chorus_upload.cli.render.formats import files as files_text
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError

if TYPE_CHECKING:
    from chorus_upload.events import ExtraFiles


def add_to(group: typer.Typer) -> None:
    """Add the command to the group of file commands."""
    group.command(
        "download",
        epilog=examples(
            ("All that there was at a version", "file download --version 20260301120000 --to restored"),
            ("Go on after an interruption: the same again", "file download --version 20260301120000 --to restored"),
            ("The images of one patient, as they are now", "file download --modalities Images --patient 1001"),
            (
                "Bring a directory up to date with the last version",
                "file download --to training-data --overwrite --delete-extra",
            ),
        ),
    )(download)


def download(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    *,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="The version to bring back. Default: the last one.")
    ] = None,
    modalities: Modalities = None,
    patients: Patients = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Where to put them. Default: a directory named as the version, here."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in the target that have other content.")
    ] = False,
    reread: Annotated[
        bool,
        typer.Option(
            "--reread", help="Compare files that are there already by content, and not by size and time only."
        ),
    ] = False,
    delete_extra: Annotated[
        bool,
        typer.Option(
            "--delete-extra",
            help="Remove files from the target that the version does not have, once all of the version is there. Asks"
            " before that; without a terminal --yes is needed.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait_for_credentials: WaitForCredentials = None,
    same_destination: SameDestination = False,
) -> int:
    """Bring the files of a version back.

    All that the sources held at that version, whenever it was uploaded, each under its path below the source's root
    and with its time. A file appears when all of it is there and is what the journal says. Typed again, it goes on
    where it was. With --overwrite it names what else is in the target. Ends with 3 when files could not be brought
    back, or removed; they are named.
    """
    from chorus_upload.operations.download import DownloadRequest
    from chorus_upload.operations.download import download as run_download

    run = current(context)
    run.wait_for_credentials(wait_for_credentials)
    if to is not None and not to.strip():
        raise ConfigError("--to names no directory", hint="Name one, or leave --to out.")
    request = DownloadRequest(
        version=version,
        modalities=chosen_modalities(run.settings, modalities, emit=run.emit),
        patients=tuple(patients) if patients else None,
        to=None if to is None else Path(to),
        overwrite=overwrite,
        reread=reread,
        delete_extra=delete_extra,
        destination=chosen_destination(same=same_destination, new=False),
    )

    if delete_extra and not yes:
        told = "--delete-extra would remove what is in the target and not in the version"
        require_somebody(run, told, hint="'file download --delete-extra --yes' does it without a question")

    def agree(extra: ExtraFiles) -> bool:
        if yes:
            return True
        for path in extra.first:
            run.sink.log(path)
        return is_agreed(run, f"{files_text(extra.files)} in the target, which the version does not have. Remove them?")

    with run.session(context, read_only=True, recorded=True) as session:
        with stopped_by_signals() as stop:
            finished = run_download(session.journal, run.settings, request, emit=run.emit, stop=stop, agree=agree)
        run.emit(finished)
        is_whole = not finished.failed and not (delete_extra and (finished.extra is None or finished.extra.kept))
        code = session.exit_code = EXIT_OK if is_whole else EXIT_PARTIAL
    return code
