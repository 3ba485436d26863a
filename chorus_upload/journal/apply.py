"""Turns readings into rows: the only place that inserts, retires and touches files during an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from chorus_upload.journal.diff import Candidate, Decision, decide, is_unsettled
from chorus_upload.model import Change, Reading, Retirement


class Applied(NamedTuple):
    """What became of one candidate; `change` is None when its row only got another time, or nothing at all."""

    modality_id: int
    size: int
    decision: Decision
    change: Change | None


def apply_readings(
    connection: Connection, readings: Sequence[tuple[Candidate, Reading]], *, introduced_by: Callable[[str | None], int]
) -> list[Applied]:
    """Record readings inside the caller's transaction; the table `gone` must exist (see `observation`).

    `introduced_by` gives the id of the version that a file enters with, from the version in its path, if any.
    """
    applied: list[Applied] = []
    retired: list[tuple[int, str, int]] = []
    kept: list[tuple[int, bytes | None, bytes | None, int, int | None]] = []
    entered: list[tuple[int | str | bytes | None, ...]] = []
    for candidate, reading in readings:
        decision = decide(candidate, reading)
        change: Change | None = None
        # Content that was not read cannot have been read too early.
        unsettled = int(reading.fingerprint is not None and is_unsettled(reading.mtime_us, read_us=reading.read_us))
        if decision in (Decision.TOUCH, Decision.SETTLE):
            kept.append((reading.mtime_us, reading.fingerprint, reading.md5, unsettled, candidate.file_id))
        else:
            version_id = introduced_by(candidate.version)
            change, renamed_from = Change.MODIFIED, None
            if decision is Decision.ADD:
                renamed_from = _take_renamed(connection, candidate, reading)
                change = Change.ADDED if renamed_from is None else Change.RENAMED
            retired_id = candidate.file_id if decision is Decision.MODIFY else renamed_from
            if retired_id is not None:
                reason = Retirement.MODIFIED if decision is Decision.MODIFY else Retirement.RENAMED
                retired.append((version_id, reason.value, retired_id))
            entered.append(
                (
                    candidate.modality_id,
                    candidate.directory_id,
                    candidate.name,
                    candidate.patient,
                    reading.size,
                    reading.mtime_us,
                    reading.fingerprint,
                    reading.md5,
                    unsettled,
                    change.value,
                    version_id,
                    renamed_from,
                )
            )
        applied.append(Applied(candidate.modality_id, reading.size, decision, change))
    # The old row must have left before the new one enters: a path has one active row.
    _execute_many(connection, "UPDATE main.file SET retired_by = ?, retirement = ? WHERE id = ?", retired)
    _execute_many(
        connection,
        "UPDATE main.file SET mtime_us = ?, fingerprint = coalesce(?, fingerprint), md5 = coalesce(?, md5),"
        " unsettled = ? WHERE id = ?",
        kept,
    )
    _execute_many(
        connection,
        "INSERT INTO main.file (modality_id, directory_id, name, patient, size, mtime_us, fingerprint, md5,"
        " unsettled, change, introduced_by, renamed_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        entered,
    )
    return applied


def _take_renamed(connection: Connection, candidate: Candidate, reading: Reading) -> int | None:
    """The id of a file that is gone and had this content, taken off the list of those that are gone."""
    if not candidate.may_be_renamed or (reading.fingerprint is None and reading.md5 is None):
        return None
    # Equal content under several old names: the first is as good as any.
    found = connection.exec_driver_sql(
        "SELECT file_id FROM gone WHERE modality_id = ? AND size = ?"
        " AND (fingerprint = ? OR fingerprint IS NULL AND md5 = ?) ORDER BY file_id LIMIT 1",
        (candidate.modality_id, reading.size, reading.fingerprint, reading.md5),
    ).scalar_one_or_none()
    if found is None:
        return None
    connection.exec_driver_sql("DELETE FROM gone WHERE file_id = ?", (found,))
    return int(found)


def _execute_many(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        connection.exec_driver_sql(statement, list(rows))
