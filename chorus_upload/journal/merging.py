"""Takes deliveries over from a journal that went its own way.

A delivery is taken over if this journal has the same file: same modality, path and version, same size and
fingerprint (the same MD5 where either has no fingerprint). Nothing is invented: what has no such file is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from sqlalchemy import Connection, text

from chorus_upload.journal.journal import Journal


class Refusal(Enum):
    """Why a delivery was not taken over."""

    UNKNOWN_VERSION = "unknown-version"
    UNKNOWN_FILE = "unknown-file"
    UNKNOWN_CONTENT = "unknown-content"
    OTHER_CONTENT = "other-content"

    @property
    def text(self) -> str:
        """The reason in words; the version is in the key beside it."""
        return {
            Refusal.UNKNOWN_VERSION: "the present journal does not have its version",
            Refusal.UNKNOWN_FILE: "the present journal does not have this file in that version",
            Refusal.UNKNOWN_CONTENT: "the present journal has not read this file yet",
            Refusal.OTHER_CONTENT: "the present journal has other content for it",
        }[self]


@dataclass(frozen=True, slots=True)
class Refused:
    """A delivery that was not taken over."""

    key: str
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of the other journal's deliveries: taken over, known here before, refused."""

    taken: int
    known: int
    refused: tuple[Refused, ...]


_TABLES = ("places", "ours", "theirs", "matched")

# Places of our files, for the index: the table's own has the active ones only.
_OURS = """
    CREATE TEMP TABLE ours AS
    SELECT id, directory_id, name, introduced_by, modality_id, size, fingerprint, md5, retired_by IS NOT NULL AS retired
    FROM main.file
"""

# The other journal's destinations by the names that they have here. What an earlier release has named there was
# perhaps named exactly here since.
_PLACES = """
    CREATE TEMP TABLE places AS
    SELECT w.id, coalesce(
        (SELECT n.value ->> 1 FROM json_each(?) n WHERE n.value ->> 0 = w.url AND NOT w.exact), w.url
    ) AS url, w.exact, w.mark
    FROM other.destination w
"""

# Where the path names the version of the key, a delivery of the same path is the same whatever update recorded it.
# The other journal's deliveries, with its words for version, directory and so on as our numbers for them.
_THEIRS = """
    CREATE TEMP TABLE theirs AS
    SELECT d.*, u.url, f.name, f.size, f.fingerprint,
        substr(d.key, 1, instr(d.key, '/') - 1) <> v.label AND instr(
            k.path || '/' || f.name, substr(d.key, 1, instr(d.key, '/') - 1)) > 0 AS has_own_folder,
        ov.id AS our_version, om.id AS our_modality, ok.id AS our_directory
    FROM other.delivery d
    JOIN places u ON u.id = d.destination_id
    JOIN other.file f ON f.id = d.file_id
    JOIN other.version v ON v.id = f.introduced_by
    JOIN other.modality m ON m.id = f.modality_id
    JOIN other.directory k ON k.id = f.directory_id
    LEFT JOIN main.version ov ON ov.label = v.label
    LEFT JOIN main.modality om ON om.name = m.name
    LEFT JOIN main.directory ok ON ok.path = k.path
"""

_PLACE = (
    "o.directory_id = t.our_directory AND o.name = t.name"
    " AND (o.introduced_by = t.our_version OR t.has_own_folder)"
    " AND o.modality_id = t.our_modality"
)
_COMPARABLE = "(o.fingerprint IS NOT NULL AND t.fingerprint IS NOT NULL OR o.md5 IS NOT NULL)"
_SAME = (
    "o.size = t.size AND iif(o.fingerprint IS NOT NULL AND t.fingerprint IS NOT NULL,"
    " o.fingerprint = t.fingerprint, o.md5 IS NOT NULL AND o.md5 = t.md5)"
)

# A version that was amended may have had a content twice: the file that is active still is meant.
_MATCHED = f"""
    CREATE TEMP TABLE matched AS
    SELECT t.*, (SELECT o.id FROM ours o WHERE {_PLACE} AND {_SAME} ORDER BY o.retired, o.id LIMIT 1) AS our_file
    FROM theirs t
"""

_REFUSED = f"""
    SELECT t.key, CASE
        WHEN t.our_version IS NULL AND NOT t.has_own_folder THEN 'unknown-version'
        WHEN NOT EXISTS (SELECT 1 FROM ours o WHERE {_PLACE}) THEN 'unknown-file'
        WHEN EXISTS (SELECT 1 FROM ours o WHERE {_PLACE} AND o.size = t.size AND NOT {_COMPARABLE})
            THEN 'unknown-content'
        ELSE 'other-content' END
    FROM matched t WHERE t.our_file IS NULL ORDER BY t.key, t.file_id
"""

_NEW = """
    FROM matched t
    WHERE t.our_file IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM main.delivery d JOIN main.destination u ON u.id = d.destination_id
        WHERE d.file_id = t.our_file AND u.url = t.url)
"""

# By whom and when it was begun is what a submission is; its label may have had to change.
_SAME_SUBMISSION = (
    "s.begun_us = o.begun_us AND s.host = o.host AND s.user = o.user AND s.destination_id ="
    " (SELECT u.id FROM main.destination u JOIN places w ON w.url = u.url WHERE w.id = o.destination_id)"
)


def take_over(journal: Journal, other: Journal, *, renamed: Mapping[str, str] = MappingProxyType({})) -> Merged:
    """Record in `journal`, in one transaction, what only `other` knows to be delivered. May be repeated.

    `renamed` has the present names of destinations by those that earlier releases gave them.
    """
    with journal.beside(other.path), journal.transaction() as connection:
        for name in _TABLES:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS temp.{name}")
        connection.exec_driver_sql(_PLACES, (json.dumps(list(renamed.items())),))
        connection.exec_driver_sql(_OURS)
        connection.exec_driver_sql("CREATE INDEX temp.ours_place ON ours (directory_id, name)")
        connection.exec_driver_sql(_THEIRS)
        connection.exec_driver_sql(_MATCHED)
        connection.exec_driver_sql(
            "INSERT OR IGNORE INTO main.destination (url, exact, mark)"
            f" SELECT p.url, p.exact, p.mark FROM places p WHERE p.url IN (SELECT t.url {_NEW})"
        )
        _take_submissions(connection)
        deliveries = connection.execute(text("SELECT count(*) FROM matched")).scalar_one()
        taken = connection.execute(
            text(f"""
                INSERT INTO main.delivery
                    (file_id, destination_id, submission_id, key, md5, evidence, etag, delivered_us, seconds)
                SELECT t.our_file, u.id, s.id, t.key, t.md5, t.evidence, t.etag, t.delivered_us, t.seconds
                FROM matched t
                JOIN main.destination u ON u.url = t.url
                JOIN other.submission o ON o.id = t.submission_id
                JOIN main.submission s ON {_SAME_SUBMISSION}
                WHERE t.our_file IS NOT NULL
                ON CONFLICT DO NOTHING
            """)
        ).rowcount
        # What was sent has an MD5, as if it had been recorded here.
        connection.exec_driver_sql(
            "UPDATE main.file SET md5 = t.md5 FROM matched t WHERE t.our_file = file.id AND file.md5 IS NULL"
        )
        refused = tuple(Refused(key, Refusal(reason)) for key, reason in connection.execute(text(_REFUSED)))
        for name in _TABLES:
            connection.exec_driver_sql(f"DROP TABLE temp.{name}")
    return Merged(taken=taken, known=deliveries - taken - len(refused), refused=refused)


def _take_submissions(connection: Connection) -> None:
    """Have the submissions of the deliveries that are taken over; a label that another has gets a number."""
    wanted = connection.execute(
        text(f"""
            SELECT o.label, u.id AS destination_id, o.begun_us, o.completed_us, o.host, o.user, o.tool_version
            FROM other.submission o
            JOIN places w ON w.id = o.destination_id
            JOIN main.destination u ON u.url = w.url
            WHERE o.id IN (SELECT t.submission_id {_NEW})
                AND NOT EXISTS (SELECT 1 FROM main.submission s WHERE {_SAME_SUBMISSION})
            ORDER BY o.id
        """)
    ).all()
    for row in wanted:
        taken = set(connection.execute(text("SELECT label FROM main.submission")).scalars())
        numbered = (f"{row.label}-{number}" for number in range(2, len(taken) + 3))
        free = next(label for label in (row.label, *numbered) if label not in taken)
        connection.execute(
            text(
                "INSERT INTO main.submission (label, destination_id, begun_us, completed_us, host, user, tool_version)"
                " VALUES (:label, :destination_id, :begun_us, :completed_us, :host, :user, :tool_version)"
            ),
            {**row._mapping, "label": free},
        )
