"""What differs between the states of the sources at two versions: the comparison behind `journal diff`.

A file belongs to the state of a version when it was introduced by that version or an earlier one, and not retired
by that version or an earlier one. (A version that was added to later, out of order, may leave two rows of one path
in a state: the one that was recorded last counts.) The pairs of rows that differ go into a temporary table, so
memory stays flat.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sqlalchemy import text

from chorus_upload.events import Tally
from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal


class Difference(StrEnum):
    """What became of a file between two states."""

    ADDED = "added"
    MODIFIED = "modified"
    """Its path holds other content."""
    RENAMED = "renamed"
    """Its content is under another path of the same modality, and not under the former one any more."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDifference:
    """One file that differs. What is RETIRED has no `size`, what is ADDED has no `former_size`.

    `version` is the one that introduced the content (of what is RETIRED: that which it had).
    """

    what: Difference
    modality: str
    path: str
    former_path: str | None
    patient: str | None
    version: str
    size: int | None
    former_size: int | None


_TABLES = (
    "CREATE TEMP TABLE place (version_id INTEGER PRIMARY KEY, number INTEGER)",
    "CREATE TEMP TABLE pair (earlier INTEGER, later INTEGER)",
)
_DROP_TABLES = ("DROP VIEW IF EXISTS temp.compared", "DROP TABLE temp.pair", "DROP TABLE temp.place")

_PLACES = "INSERT INTO place SELECT id, row_number() OVER (ORDER BY id) FROM version"

# Every path that has another row in the later state than in the earlier one, or a row in only one of them.
_PAIRS = text("""
    INSERT INTO pair
    SELECT max(f.id) FILTER (WHERE i.number <= :earlier AND (r.number IS NULL OR r.number > :earlier)) AS earlier,
        max(f.id) FILTER (WHERE i.number <= :later AND (r.number IS NULL OR r.number > :later)) AS later
    FROM file f
    JOIN place i ON i.version_id = f.introduced_by
    LEFT JOIN place r ON r.version_id = f.retired_by
    WHERE :modalities IS NULL OR f.modality_id IN (
        SELECT id FROM modality WHERE name IN (SELECT value FROM json_each(:modalities)))
    GROUP BY f.directory_id, f.name, f.modality_id
    HAVING earlier IS NOT later
""")

# What was retired and found again is the same file. Where a checksum is missing, nobody can say so.
_SAME_AFTER_ALL = """
    DELETE FROM pair WHERE rowid IN (
        SELECT p.rowid FROM pair p JOIN file e ON e.id = p.earlier JOIN file l ON l.id = p.later
        WHERE e.size = l.size AND coalesce(e.fingerprint = l.fingerprint, e.md5 = l.md5))
"""

# A file may have been renamed several times in between. UNION, and not UNION ALL: it ends where the names of a damaged
# journal lead in a circle.
_RENAMED = (
    "CREATE INDEX temp.pair_earlier ON pair (earlier)",
    "CREATE INDEX temp.pair_later ON pair (later)",
    """
    WITH RECURSIVE former (later, file_id) AS (
        SELECT p.later, f.renamed_from FROM pair p JOIN file f ON f.id = p.later
        WHERE p.earlier IS NULL AND f.renamed_from IS NOT NULL
        UNION
        SELECT o.later, f.renamed_from FROM former o JOIN file f ON f.id = o.file_id WHERE f.renamed_from IS NOT NULL
    )
    UPDATE pair SET earlier = o.file_id
    FROM former o JOIN pair gone ON gone.earlier = o.file_id AND gone.later IS NULL
    WHERE pair.later = o.later
    """,
    """
    DELETE FROM pair WHERE later IS NULL
        AND earlier IN (SELECT earlier FROM pair WHERE earlier IS NOT NULL AND later IS NOT NULL)
    """,
)

# `before` and `after` are the rows in the states that were asked for: in the order of time, or against it.
_COMPARED = """
    CREATE TEMP VIEW compared AS
    SELECT CASE
            WHEN b.id IS NULL THEN 'added'
            WHEN a.id IS NULL THEN 'retired'
            WHEN b.directory_id = a.directory_id AND b.name = a.name THEN 'modified'
            ELSE 'renamed'
        END AS what,
        coalesce(a.modality_id, b.modality_id) AS modality_id,
        coalesce(a.directory_id, b.directory_id) AS directory_id, coalesce(a.name, b.name) AS name,
        b.directory_id AS former_directory_id, b.name AS former_name,
        coalesce(a.patient, b.patient) AS patient, coalesce(a.introduced_by, b.introduced_by) AS version_id,
        a.size AS size, b.size AS former_size
    FROM temp.pair p
    LEFT JOIN main.file b ON b.id = p.{before}
    LEFT JOIN main.file a ON a.id = p.{after}
"""

_FILES = """
    SELECT c.what, m.name, iif(k.path = '', c.name, k.path || '/' || c.name) AS path,
        iif(c.what = 'renamed', iif(o.path = '', c.former_name, o.path || '/' || c.former_name), NULL),
        c.patient, v.label, c.size, c.former_size
    FROM compared c
    JOIN modality m ON m.id = c.modality_id
    JOIN directory k ON k.id = c.directory_id
    LEFT JOIN directory o ON o.id = c.former_directory_id
    JOIN version v ON v.id = c.version_id
    ORDER BY m.id, path
"""


class Comparison:
    """A context manager around the temporary tables: the way from one version to the other, by their ids.

    `modalities` None means all of them. Where `before` is the later version, the way back is told.
    """

    def __init__(self, journal: Journal, *, before: int, after: int, modalities: Sequence[str] | None = None) -> None:
        self._journal = journal
        self._before = before
        self._after = after
        self._modalities = None if modalities is None else json.dumps(list(modalities))

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            for statement in _TABLES:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(_PLACES)
            places = text("SELECT number FROM place WHERE version_id = :id")
            before, after = (
                connection.execute(places, {"id": version_id}).scalar_one()
                for version_id in (self._before, self._after)
            )
            earlier, later = sorted((before, after))
            connection.execute(_PAIRS, {"earlier": earlier, "later": later, "modalities": self._modalities})
            for statement in (_SAME_AFTER_ALL, *_RENAMED):
                connection.exec_driver_sql(statement)
            is_forward = before <= after
            connection.exec_driver_sql(
                _COMPARED.format(
                    before="earlier" if is_forward else "later", after="later" if is_forward else "earlier"
                )
            )
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            for statement in _DROP_TABLES:
                connection.exec_driver_sql(statement)

    def tallies(self) -> dict[str, dict[Difference, Tally]]:
        """How many files differ in which way, by modality; bytes are those of the state after (RETIRED: before)."""
        found: dict[str, dict[Difference, Tally]] = {}
        with self._journal.transaction() as connection:
            for modality, what, files, size in connection.exec_driver_sql(
                "SELECT m.name, c.what, count(*), sum(coalesce(c.size, c.former_size))"
                " FROM compared c JOIN modality m ON m.id = c.modality_id GROUP BY m.id, c.what ORDER BY m.id"
            ):
                found.setdefault(modality, {})[Difference(what)] = Tally(files, size)
        return found

    def files(self) -> Generator[FileDifference, None, None]:
        """Yield every file that differs, by modality and path. Close it before the journal."""
        with self._journal.transaction() as connection:
            # Below SQLAlchemy: there may be a million of them.
            for row in driver(connection).execute(_FILES):
                what, modality, path, former_path, patient, version, size, former_size = row
                yield FileDifference(
                    what=Difference(what),
                    modality=modality,
                    path=path,
                    former_path=former_path,
                    patient=patient,
                    version=version,
                    size=size,
                    former_size=former_size,
                )
