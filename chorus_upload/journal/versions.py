"""Versions: the recorded states of the source trees, and what each holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, insert, select, text, update

from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.schema import version
from chorus_upload.journal.who import Who
from chorus_upload.model import JournalingMode, VersionSummary


@dataclass(frozen=True, slots=True)
class Version:
    """One row of the version table; open while `completed_us` is None, pruned when `pruned_us` is not None."""

    id: int
    label: str
    mode: JournalingMode
    begun_us: int
    completed_us: int | None
    pruned_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTotal:
    """Some rows of `journal list` together: `version` or `modality` None stands for all of them."""

    version: str | None
    modality: str | None
    persons: int
    files: int
    bytes: int
    active_files: int
    active_bytes: int
    pending_files: int
    pending_bytes: int


def _from_row(row: RowMapping) -> Version:
    return Version(
        id=row["id"],
        label=row["label"],
        mode=JournalingMode(row["mode"]),
        begun_us=row["begun_us"],
        completed_us=row["completed_us"],
        pruned_us=row["pruned_us"],
    )


def find(journal: Journal, label: str) -> Version | None:
    """The version of that label."""
    with journal.transaction() as connection:
        row = connection.execute(select(version).where(version.c.label == label)).mappings().one_or_none()
    return _from_row(row) if row else None


def ordered(journal: Journal) -> list[Version]:
    """All versions in the order in which they were begun, which is the order of states of the sources.

    That is the order of their ids: a clock may have been set back in between.
    """
    with journal.transaction() as connection:
        rows = connection.execute(select(version).order_by(version.c.id)).mappings()
        return [_from_row(row) for row in rows]


def last(journal: Journal) -> Version | None:
    """The version that was begun last, whatever its label: the only one that may be added to."""
    query = select(version).order_by(version.c.id.desc()).limit(1)
    with journal.transaction() as connection:
        row = connection.execute(query).mappings().one_or_none()
    return _from_row(row) if row else None


def reopen(journal: Journal, label: str, *, mode: JournalingMode, who: Who) -> int:
    """Open the version of that label, making it when it is new; gives its id."""
    with journal.transaction() as connection:
        version_id = ensure(connection, label, mode=mode, who=who)
        connection.execute(update(version).where(version.c.id == version_id).values(completed_us=None))
    return version_id


def ensure(connection: Connection, label: str, *, mode: JournalingMode, who: Who) -> int:
    """The id of the version of that label, made (and complete) when there is none."""
    found = connection.execute(select(version.c.id).where(version.c.label == label)).scalar_one_or_none()
    if found is not None:
        return int(found)
    begun = now_us()
    result = connection.execute(
        insert(version).values(
            label=label,
            mode=mode,
            begun_us=begun,
            completed_us=begun,
            host=who.host,
            user=who.user,
            tool_version=who.tool_version,
        )
    )
    return int((result.inserted_primary_key or (0,))[0])


def complete(journal: Journal, version_id: int) -> None:
    """Close a version: its update went through to the end."""
    with journal.transaction() as connection:
        connection.execute(update(version).where(version.c.id == version_id).values(completed_us=now_us()))


_SUMMARY = text("""
    SELECT v.label, v.mode, v.begun_us, v.completed_us, m.name AS modality,
           count(DISTINCT f.patient) AS persons,
           count(f.id) AS files,
           coalesce(sum(f.size), 0) AS bytes,
           count(f.id) FILTER (WHERE f.retired_by IS NULL) AS active_files,
           coalesce(sum(f.size) FILTER (WHERE f.retired_by IS NULL), 0) AS active_bytes,
           count(f.id) FILTER (WHERE f.retired_by IS NULL AND d.file_id IS NULL) AS pending_files,
           coalesce(sum(f.size) FILTER (WHERE f.retired_by IS NULL AND d.file_id IS NULL), 0) AS pending_bytes
    FROM version v
    LEFT JOIN file f ON f.introduced_by = v.id
    LEFT JOIN modality m ON m.id = f.modality_id
    LEFT JOIN delivery d ON d.file_id = f.id
        AND d.destination_id = (SELECT id FROM destination WHERE url = :destination)
    WHERE (:label IS NULL OR v.label = :label)
    GROUP BY v.id, m.id
    ORDER BY v.id, m.id
""")


def summaries(journal: Journal, *, destination: str, label: str | None = None) -> list[VersionSummary]:
    """What each version introduced, by modality, and how much of it `destination` has not yet got."""
    with journal.transaction() as connection:
        rows = connection.execute(_SUMMARY, {"destination": destination, "label": label}).all()
    return [
        VersionSummary(
            version=row.label,
            mode=JournalingMode(row.mode),
            begun_us=row.begun_us,
            completed_us=row.completed_us,
            modality=row.modality,
            persons=row.persons,
            files=row.files,
            bytes=row.bytes,
            active_files=row.active_files,
            active_bytes=row.active_bytes,
            pending_files=row.pending_files,
            pending_bytes=row.pending_bytes,
        )
        for row in rows
    ]


# One person may be in several modalities and versions, so persons cannot be added up.
_PERSONS = text("""
    WITH seen (version_id, modality_id, patient) AS MATERIALIZED (
        SELECT DISTINCT introduced_by, modality_id, patient FROM file
        WHERE (:label IS NULL OR introduced_by = (SELECT id FROM version WHERE label = :label))
            AND (:modalities IS NULL OR modality_id IN (
                SELECT id FROM modality WHERE name IN (SELECT value FROM json_each(:modalities))))
    )
    SELECT v.label, NULL, count(DISTINCT s.patient) FROM seen s JOIN version v ON v.id = s.version_id GROUP BY v.id
    UNION ALL
    SELECT NULL, m.name, count(DISTINCT s.patient) FROM seen s JOIN modality m ON m.id = s.modality_id GROUP BY m.id
    UNION ALL
    SELECT NULL, NULL, count(DISTINCT patient) FROM seen
""")


def persons(
    journal: Journal, *, label: str | None, modalities: Sequence[str] | None
) -> dict[tuple[str | None, str | None], int]:
    """How many persons files were taken down of: by version, by modality, and in all (None stands for all)."""
    parameters = {"label": label, "modalities": None if modalities is None else json.dumps(list(modalities))}
    with journal.transaction() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(_PERSONS, parameters)}
