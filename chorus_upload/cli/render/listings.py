"""The tables that a user asks for: versions and the history of commands."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chorus_upload.cli.render.formats import count, duration, local_time, size
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.model import CommandRecord, VersionSummary

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


def versions_report(summaries: Sequence[VersionSummary]) -> Report:
    """Describe the versions of a journal: the sizes are those of the active files and of those to upload."""
    if not summaries:
        return Report(heading="The journal holds no version yet.", next_step="journal update", data=True)
    rows = []
    previous = ""
    for summary in summaries:
        # The label stands once for all rows of its version.
        label = "" if summary.version == previous else summary.version
        previous = summary.version
        rows.append(Row((label, *_version_cells(summary)), "bad" if summary.completed_us is None else ""))
    open_versions = dict.fromkeys(summary.version for summary in summaries if summary.completed_us is None)
    return Report(
        table=Table(_VERSION_COLUMNS, tuple(rows)),
        warnings=tuple(
            f"Version {label} was interrupted: 'chorus-upload journal update --version {label}' goes on with it."
            for label in open_versions
        ),
        data=True,
    )


def _version_cells(summary: VersionSummary) -> tuple[str, ...]:
    return (
        summary.modality or "(no files)",
        count(summary.persons),
        count(summary.files),
        count(summary.active_files),
        size(summary.active_bytes),
        count(summary.pending_files),
        size(summary.pending_bytes),
    )


def _typed(arguments: str) -> str:
    """Return recorded arguments as they were typed, if they are recorded as JSON; the beginning of very many."""
    try:
        options = json.loads(arguments)
    except ValueError:
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
