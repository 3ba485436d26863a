"""`chorus-upload file verify`: hold the central store against the journal."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli.arguments import chosen_destination, chosen_modalities
from chorus_upload.cli.groups import examples
from chorus_upload.cli.interruption import interrupted_at_once
from chorus_upload.cli.invocation import Invocation, current
from chorus_upload.cli.options import Modalities, Patients, SameDestination, WaitForCredentials
from chorus_upload.cli.output_file import Force, is_table, require_replaceable
from chorus_upload.cli.reporting import COLUMNS, Note, report_to
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError
from chorus_upload.events import Emit, Event, FileVerified, Notice

if TYPE_CHECKING:
    from chorus_upload.operations.sampling import Sample


def add_to(group: typer.Typer) -> None:
    """Add the command to the group of file commands."""
    group.command(
        "verify",
        epilog=examples(
            ("Check the last version", "file verify"),
            ("Everything that was ever delivered", "file verify --all-versions"),
            ("An earlier one, OMOP only", "file verify --version 20260301120000 --modalities OMOP"),
            ("Read a hundredth of it back, chosen at random", "file verify --sample 1%"),
            ("Read all of it back, and keep a row for every file", "file verify --deep --report verified.csv"),
            ("For a program", "file verify --json > verified.jsonl"),
        ),
    )(verify)


def verify(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    *,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="V", help="The version to check. Default: the last that was delivered."),
    ] = None,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Check all that was ever delivered.")] = False,
    modalities: Modalities = None,
    patients: Patients = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every object back, and compare it by fingerprint and MD5.")
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            "--sample", metavar="PART", help="Read a random part back: a share like 1%, or a number of files like 100."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Choose the same part as the run that named this seed."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write a row for every file: CSV if the name ends in .csv, lines of JSON for .json and .jsonl.",
        ),
    ] = None,
    force: Force = False,
    wait_for_credentials: WaitForCredentials = None,
    same_destination: SameDestination = False,
) -> int:
    """Check the central store against the journal.

    Names what is missing, differs, or is not in the journal. The store's own listing says it; an object is read
    back when it was written again since its delivery, and with --deep or --sample. Nothing is changed. Ends with 3
    when anything is not as the journal says, or nothing was there to be checked.
    """
    from chorus_upload.operations.verify import VerifyRequest
    from chorus_upload.operations.verify import verify as run_verify

    part = _chosen_part(sample, seed)
    run = current(context)
    run.wait_for_credentials(wait_for_credentials)
    request = VerifyRequest(
        version=version,
        all_versions=all_versions,
        modalities=chosen_modalities(run.settings, modalities, emit=run.emit),
        patients=tuple(patients) if patients else None,
        deep=deep,
        sample=part,
        destination=chosen_destination(same=same_destination, new=False),
    )
    if report is not None:
        require_replaceable(run, report, option="--report", is_ours=is_table(*COLUMNS), force=force)
    with ExitStack() as opened:
        note = None if report is None else opened.enter_context(report_to(report))
        emit = _noting(run, note)
        with run.session(context, read_only=True, recorded=True) as session:
            with interrupted_at_once("nothing was changed; type the same command again to begin anew"):
                finished = run_verify(session.journal, run.settings, request, emit=emit)
            if report is not None:
                # Now it is complete, and appears: who reads the result finds it.
                opened.close()
                run.emit(Notice(f"a row for every file is in {report}"))
            run.emit(finished)
            code = session.exit_code = EXIT_OK if finished.is_good else EXIT_PARTIAL
    return code


def _chosen_part(sample: str | None, seed: int | None) -> Sample | None:
    from chorus_upload.operations.sampling import Sample

    if sample is not None:
        return Sample.parse(sample, seed=seed)
    if seed is not None:
        raise ConfigError("--seed chooses a sample", hint="Add --sample 1%, or however much it was.")
    return None


def _noting(run: Invocation, note: Note | None) -> Emit:
    """Show events, and note what they say of files; what a service said is shown without secrets."""

    def emit(event: Event) -> None:
        if isinstance(event, FileVerified):
            if event.detail:
                event = replace(event, detail=run.redact(event.detail))
            if note is not None:
                note(event)
        run.emit(event)

    return emit
