"""The tables that a user asks for: versions, what differs between them, the history, what a check or a prune found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chorus_upload.cli.render.formats import count, counted, duration, local_time, size
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.cli.render.text import printable
from chorus_upload.model import CommandRecord, VersionSummary

if TYPE_CHECKING:
    from chorus_upload.operations.checking_journal import CheckFinished, Finding
    from chorus_upload.operations.insight import FileDifference, ModalityDifference, VersionTotal
    from chorus_upload.operations.prune import PruneFinished

_VERSION_COLUMNS = (
    Column("Version"),
    Column("Modality"),
    Column("Persons", numeric=True),
    Column("Files", numeric=True),
    Column("Active", numeric=True),
    Column("Size", numeric=True),
    Column("To upload", numeric=True),
    Column("Size", numeric=True),
)

_HISTORY_COLUMNS = (
    Column("When"),
    Column("Command"),
    Column("Arguments"),
    Column("Took", numeric=True),
    Column("Exit", numeric=True),
    Column("By"),
)


_LONGEST_ARGUMENTS = 100


def versions_report(
    summaries: Sequence[VersionSummary],
    totals: Sequence[VersionTotal] = (),
    *,
    pruned: str | None = None,
    with_empty: bool = False,
) -> Report:
    """Describe the versions of a journal: the sizes are those of the active files and of those to upload.

    `pruned` is the last version whose detail was dropped. Complete versions without a file, which updates leave that
    found nothing new, are only counted, unless `with_empty`.
    """
    if not summaries:
        return Report(heading="The journal holds no version yet.", next_step="journal update", data=True)
    shown = [each for each in summaries if with_empty or each.modality is not None or each.completed_us is None]
    empty = len(summaries) - len(shown)
    summaries = shown
    rows: list[Row] = []
    of_version = {total.version: total for total in totals if total.version is not None}
    for index, summary in enumerate(summaries):
        # The label stands once for all rows of its version.
        is_first = index == 0 or summaries[index - 1].version != summary.version
        is_last = index + 1 == len(summaries) or summaries[index + 1].version != summary.version
        label = summary.version if is_first else ""
        cells = (label, summary.modality or "(no files)", *_version_cells(summary))
        rows.append(Row(cells, "bad" if summary.completed_us is None else ""))
        if is_last and summary.version in of_version:
            rows.append(Row(("", "All", *_version_cells(of_version[summary.version])), "total"))
    of_all = [total for total in totals if total.version is None]
    for index, total in enumerate(of_all):
        label = "All versions" if index == 0 else ""
        rows.append(Row((label, total.modality or "All", *_version_cells(total)), "total"))
    open_versions = dict.fromkeys(summary.version for summary in summaries if summary.completed_us is None)
    remarks = []
    if empty:
        remarks.append(f"{counted(empty, 'version')} without files of their own: --all shows them.")
    if pruned is not None:
        remarks.append(f"Up to version {pruned}, what came and went undelivered was dropped by 'journal prune'.")
    return Report(
        table=Table(_VERSION_COLUMNS, tuple(rows)),
        remarks=tuple(remarks),
        warnings=tuple(
            f"Version {label} was interrupted: 'chorus-upload journal update --version {label}' goes on with it."
            for label in open_versions
        ),
        data=True,
    )


def _version_cells(row: VersionSummary | VersionTotal) -> tuple[str, ...]:
    return (
        count(row.persons),
        count(row.files),
        count(row.active_files),
        size(row.active_bytes),
        count(row.pending_files),
        size(row.pending_bytes),
    )


def _typed(arguments: str) -> str:
    """Return recorded arguments as they were typed, if they are recorded as JSON; the beginning of very many."""
    try:
        options = json.loads(arguments)
    except (ValueError, RecursionError):
        options = None
    if isinstance(options, dict):
        arguments = " ".join(f"--{name}" if value == "true" else f"--{name} {value}" for name, value in options.items())
    return arguments if len(arguments) <= _LONGEST_ARGUMENTS else f"{arguments[:_LONGEST_ARGUMENTS]} ..."


def history_report(records: Sequence[CommandRecord]) -> Report:
    """Describe earlier commands, oldest first."""
    if not records:
        return Report(heading="No command has been recorded yet.", data=True)
    rows = tuple(
        Row(
            (
                local_time(record.begun_us),
                record.command,
                _typed(record.arguments),
                "" if record.seconds is None else duration(record.seconds),
                "" if record.exit_code is None else str(record.exit_code),
                f"{record.user}@{record.host}",
            ),
            "bad" if record.exit_code else "",
        )
        for record in records
    )
    return Report(table=Table(_HISTORY_COLUMNS, rows), data=True)


def difference_line(file: FileDifference) -> str:
    """Return e.g. `modified  Images  1001/Images/scan.dcm`, safe for any screen."""
    name = printable(file.path)
    if file.former_path is not None:
        name = f"{printable(file.former_path)}  ->  {name}"
    return f"{file.what:<8}  {file.modality}  {name}"


def differences_report(rows: Sequence[ModalityDifference], *, before: str, after: str) -> Report:
    """Describe what differs between two versions."""
    if not rows:
        return Report(heading=f"From version {before} to {after}, nothing differs.", data=True)
    lines = [line for row in rows for line in _difference_rows(row)]
    columns = (Column("Modality"), Column("What"), Column("Files", numeric=True), Column("Size", numeric=True))
    return Report(heading=f"From version {before} to {after}", table=Table(columns, tuple(lines)), data=True)


def _difference_rows(row: ModalityDifference) -> Iterator[Row]:
    """One line for each way to differ; the name of the modality stands in the first."""
    name = row.modality or "All"
    tallies = {"added": row.added, "modified": row.modified, "renamed": row.renamed, "retired": row.retired}
    for what, tally in tallies.items():
        if tally.files:
            cells = (name, what, count(tally.files), size(tally.bytes))
            yield Row(cells, "total" if row.modality is None else "")
            name = ""


def check_report(findings: Sequence[Finding], result: CheckFinished) -> Report:
    """Describe what a check of the journal has found: what is broken first."""
    ordered = sorted(findings, key=lambda finding: not finding.is_broken)
    rows = tuple(Row((each.rule, each.detail), "bad" if each.is_broken else "") for each in ordered)
    held = result.contents
    return Report(
        heading="The journal is not sound."
        if held is None
        else f"The journal is sound: {counted(held.versions, 'version')}, {counted(held.files, 'state')} of files,"
        f" {count(held.deliveries)} {'delivery' if held.deliveries == 1 else 'deliveries'}.",
        table=Table((Column("Found"), Column("What it says")), rows) if rows else None,
        remarks=("docs/recovery.md says how to go on.",) if result.broken else (),
        warnings=(f"{counted(result.broken, 'finding')} that must not be.",) if result.broken else (),
        data=True,
    )


def prune_report(result: PruneFinished) -> Report:
    """Describe what a prune dropped, or would drop."""
    dropped = result.dropped
    remarks = [f"No further: {result.stopped_by}."] if result.stopped_by else []
    if dropped.is_nothing:
        return Report(heading="There is nothing to drop.", remarks=tuple(remarks), data=True)
    first, last = result.versions[0], result.versions[-1]
    which = f"version {first}" if first == last else f"the versions {first} to {last}"
    rows = (
        Row(("states of files, never delivered", count(dropped.files.files), size(dropped.files.bytes))),
        Row(("records of scans", count(dropped.scans), "")),
        Row(("directories without files", count(dropped.directories), "")),
    )
    return Report(
        heading=f"{'Would be dropped' if result.dry_run else 'Dropped'} of {which}",
        table=Table((Column("What"), Column("Number", numeric=True), Column("Size", numeric=True)), rows),
        remarks=("Every delivery keeps its proof.", *remarks),
        data=True,
    )
