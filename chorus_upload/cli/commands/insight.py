"""`chorus-upload journal diff|show|check|prune`: what the journal knows, whether it is sound, and making it smaller."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli import listing
from chorus_upload.cli.arguments import chosen_modalities
from chorus_upload.cli.asking import require_agreement, require_somebody
from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import Invocation, current
from chorus_upload.cli.options import LARGEST, Modalities, regular
from chorus_upload.cli.output_file import Force, is_table, require_replaceable
from chorus_upload.cli.render.listings import check_report, difference_line, differences_report, prune_report
from chorus_upload.cli.render.lives import life_report, told
from chorus_upload.cli.render.records import csv_line, fields_of, json_line
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Report
from chorus_upload.errors import EXIT_OK, ChorusError, ConfigError, JournalError, StorageError
from chorus_upload.events import Notice

if TYPE_CHECKING:
    from chorus_upload.operations.custody import JournalSession
    from chorus_upload.operations.insight import Comparison
    from chorus_upload.operations.prune import PruneFinished

GivenJournal = Annotated[
    Path | None,
    typer.Option(
        "--local-journal",
        metavar="FILE",
        callback=regular,
        help="Read this journal. Default: the checked-out one, else that of the cloud.",
    ),
]


def reading(run: Invocation, context: typer.Context, given: Path | None) -> AbstractContextManager[JournalSession]:
    """Read a journal that the user named, without the cloud; else the one that the configuration names.

    What it holds is best shown before it is closed: of what cannot be shown, it then says whether it is damaged.
    """
    return run.session(context, local_journal=given, local_only=given is not None, read_only=True)


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group of journal commands."""
    group.command(
        "diff",
        epilog=examples(
            ("What came, changed and went between two versions", "journal diff 20260301120000 20260901120000"),
            ("Which files, one a line", "journal diff 20260301120000 20260901120000 --names"),
            (
                "Into a table, images only",
                "journal diff 20260301120000 20260901120000 --modalities Images --output-file images.csv",
            ),
            ("For a program", "journal diff 20260301120000 20260901120000 --names --json"),
        ),
    )(diff)
    group.command(
        "show",
        epilog=examples(
            ("When did it enter and change, and what proves its deliveries?", "journal show 1001/Images/scan.dcm"),
            ("Where several modalities have it", "journal show 1001/notes.txt --modality OMOP"),
            ("For a program", "journal show 1001/Images/scan.dcm --json"),
        ),
    )(show)
    group.command(
        "check",
        epilog=examples(
            ("Is the journal sound, and is it the one that the cloud expects?", "journal check"),
            ("Is a copy from a version's folder sound?", "journal check --local-journal copy.db"),
        ),
    )(check)
    group.command(
        "prune",
        epilog=examples(
            ("What would be dropped if the last four versions were kept?", "journal prune --keep 4 --dry-run"),
            ("Drop it, after a question", "journal prune --keep 4"),
            ("Everything older than a day, or than a version", "journal prune --older-than 2025-01-01"),
            ("", "journal prune --older-than 20260301120000"),
            ("Without the question, in a script", "journal prune --keep 4 --yes"),
        ),
    )(prune)


def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="V1", help="The label of a version.")],
    after: Annotated[str, typer.Argument(metavar="V2", help="The label of another; it may be the earlier one.")],
    *,
    modalities: Modalities = None,
    names: Annotated[bool, typer.Option("--names", help="Name the files, too.")] = False,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output-file",
            metavar="FILE",
            help="Write a row for every file: CSV if the name ends in .csv, lines of JSON for .json and .jsonl.",
        ),
    ] = None,
    force: Force = False,
    local_journal: GivenJournal = None,
) -> int:
    """Tell what differs between two versions.

    What was added, modified, renamed and retired on the way from V1 to V2, as the sources stood at the end of each.
    A file that only got another time does not differ.
    """
    from chorus_upload.operations.insight import DiffFinished, FileDifference, compared_versions, differences

    run = current(context)
    chosen = chosen_modalities(run.settings, modalities, emit=run.emit)
    if output_file is not None:
        _require_format(output_file)
        is_ours = is_table(*(field.name for field in fields(FileDifference)))
        require_replaceable(run, output_file, option="--output-file", is_ours=is_ours, force=force)
    with (
        reading(run, context, local_journal) as session,
        compared_versions(
            session.journal, run.settings, before=before, after=after, modalities=chosen, emit=run.emit
        ) as comparison,
    ):
        if output_file is not None:
            _write_table(comparison, output_file)
        if names and not _write_names(run, comparison):
            return EXIT_OK
        rows = differences(comparison)
        run.sink.result("difference", rows, lambda: differences_report(rows, before=before, after=after))
    files = sum(row.files for row in rows if row.modality is not None)
    run.sink.result("diff-finished", [DiffFinished(before=before, after=after, files=files)], Report)
    if output_file is not None:
        run.emit(Notice(f"A row for every file is in {output_file}"))
    return EXIT_OK


def _require_format(path: Path) -> None:
    if path.suffix.lower() not in (".csv", ".json", ".jsonl"):
        raise ConfigError(
            f"--output-file {path}: the name says no format", hint="It has to end in .csv, .json or .jsonl."
        )


def _write_table(comparison: Comparison, path: Path) -> None:
    """Write a row for every file; the table appears under its name only when it is complete."""
    from chorus_upload.operations.insight import FileDifference

    columns = [field.name for field in fields(FileDifference)]
    is_csv = path.suffix.lower() == ".csv"
    try:
        with listing.to_file(path) as write, closing(comparison.files()) as found:
            if is_csv:
                write(csv_line(columns))
            for each in found:
                row = fields_of(each)
                write(csv_line(row.values()) if is_csv else json_line("file-difference", row).encode() + b"\n")
    except OSError as error:
        raise ChorusError(f"cannot write {path}: {error.strerror or error}") from error


def _write_names(run: Invocation, comparison: Comparison) -> bool:
    """Write a line for every file; False when nobody reads any more."""
    run.sink.pause()
    out = Stream(sys.stdout)
    with closing(comparison.files()) as found:
        for each in found:
            out.write(
                (json_line("file-difference", fields_of(each)) if run.options.json else difference_line(each)) + "\n"
            )
            if out.gone:
                return False
    out.flush()
    return True


def show(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A file, by its path below the source's root as 'file list' prints it, or a former one.",
        ),
    ],
    *,
    modality: Annotated[
        str | None, typer.Option("--modality", metavar="M", help="The modality, where several have such a file.")
    ] = None,
    local_journal: GivenJournal = None,
) -> int:
    """Show the life of one file.

    When it entered, changed, was renamed or retired, and its deliveries: where to, under which key, by whom, and what
    proves them.
    """
    from chorus_upload.operations.insight import file_life

    run = current(context)
    with reading(run, context, local_journal) as session:
        life = file_life(session.journal, run.settings, path=path, modality=modality)
        run.sink.result("file-state", told(life.states), lambda: life_report(life))
    return EXIT_OK


def check(context: typer.Context, *, local_journal: GivenJournal = None) -> int:
    """Check whether the journal is sound.

    The file itself, the rules that hold in every journal, and whether the cloud has the lock and the journal that
    belong to it. Nothing is changed. Ends with 14 when something is broken.
    """
    from chorus_upload.operations.checking_journal import check_cloud, check_journal, finished

    run = current(context)
    trouble: StorageError | None = None
    if local_journal is None and run.settings.journal.local_path.exists():
        # Whoever only reads takes the cloud's if this one cannot be opened. Here it would be missed.
        with run.session(context, local_only=True, read_only=True):
            pass
    with reading(run, context, local_journal) as session:
        journal = session.journal
        findings = list(check_journal(journal))
        try:
            findings += check_cloud(journal, run.settings, given=local_journal is not None)
        except StorageError as error:
            # What was found until here is worth as much without the cloud.
            trouble = error
        result = finished(journal, findings)
    run.sink.result("finding", findings, Report)
    run.sink.result("check-finished", [result], lambda: check_report(findings, result))
    if result.broken:
        return JournalError.exit_code
    if trouble is not None:
        raise trouble
    return EXIT_OK


def prune(
    context: typer.Context,
    *,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, max=LARGEST, help="Keep the last N versions as they are."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="DAY|V", help="Keep what is younger: YYYY-MM-DD, or a version."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be dropped, drop nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Drop the detail of old versions.

    What came and went in them without ever being delivered. Every delivery keeps its proof. Only the first versions
    are pruned, up to one that is not finished or not delivered. They cannot be compared any more.
    """
    from chorus_upload.operations.prune import PruneRequest
    from chorus_upload.operations.prune import prune as run_prune

    run = current(context)
    request = PruneRequest(keep=keep, older_than=older_than)
    if dry_run or not yes:
        with run.session(context, read_only=True) as session:
            foreseen = run_prune(session.journal, run.settings, request, dry_run=True)
        if dry_run or foreseen.dropped.is_nothing:
            _tell_pruned(run, foreseen)
            return EXIT_OK
        require_somebody(
            run,
            "old versions would lose their detail permanently",
            hint="'journal prune --yes' does it without a question",
        )
        _tell_pruned(run, foreseen)
        require_agreement(run, "Drop it?")
    with run.session(context) as session:
        done = run_prune(session.journal, run.settings, request, dry_run=False)
    _tell_pruned(run, done)
    return EXIT_OK


def _tell_pruned(run: Invocation, result: PruneFinished) -> None:
    run.sink.result("prune-finished", [result], lambda: prune_report(result))
