"""The state of the sources at a version: which files there were, and where a destination has them.

A file belongs to it when it was introduced by that version or an earlier one, and not retired by that version or an
earlier one. (See `comparing` for what is retired and found again out of order: the row that was recorded last counts.)
The rows go into a temporary table, so memory stays flat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Self

from sqlalchemy import text

from chorus_upload.events import Tally
from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Retrieval

PAGE = 1_000

_TABLE = "CREATE TEMP TABLE state (id INTEGER PRIMARY KEY, file_id INTEGER)"
_DROP_TABLE = "DROP TABLE temp.state"

# Largest first, as files are sent: what takes longest does not come last.
_FILL = text("""
    WITH place AS (SELECT id AS version_id, row_number() OVER (ORDER BY id) AS number FROM version),
    asked AS (SELECT number FROM place WHERE version_id = :version),
    latest AS (
        SELECT max(f.id) AS id
        FROM asked a, file f
        JOIN place i ON i.version_id = f.introduced_by
        LEFT JOIN place r ON r.version_id = f.retired_by
        WHERE i.number <= a.number AND (r.number IS NULL OR r.number > a.number)
            AND f.modality_id IN (SELECT id FROM modality WHERE name IN (SELECT value FROM json_each(:modalities)))
            AND (:patients IS NULL OR f.patient IN (SELECT value FROM json_each(:patients)))
        GROUP BY f.directory_id, f.name, f.modality_id
    )
    INSERT INTO state (file_id) SELECT f.id FROM latest JOIN file f USING (id) ORDER BY f.size DESC, f.id
""")

_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"

_FILES = f"""
    SELECT s.id, m.name, {_PATH}, d.key, f.size, f.mtime_us, f.fingerprint, coalesce(d.md5, f.md5)
    FROM state s
    JOIN file f ON f.id = s.file_id
    JOIN modality m ON m.id = f.modality_id
    JOIN directory k ON k.id = f.directory_id
    LEFT JOIN delivery d ON d.file_id = f.id
        AND d.destination_id = (SELECT id FROM destination WHERE url = ?)
    WHERE s.id > ? ORDER BY s.id LIMIT ?
"""

# Where content is not known to be the same, it may be another.
_CLASHES = text(f"""
    SELECT {_PATH} AS path, group_concat(m.name, ' and ') AS modalities
    FROM state s
    JOIN file f ON f.id = s.file_id
    JOIN modality m ON m.id = f.modality_id
    JOIN directory k ON k.id = f.directory_id
    GROUP BY f.directory_id, f.name
    HAVING count(*) > 1
        AND (count(DISTINCT f.size) > 1 OR count(DISTINCT f.fingerprint) <> 1 OR count(f.fingerprint) < count(*))
    ORDER BY path LIMIT 1
""")


class State:
    """A context manager around the temporary table: the state at the version of id `version`.

    `patients` None means all files, those without a patient included.
    """

    def __init__(
        self, journal: Journal, *, version: int, modalities: Sequence[str], patients: Sequence[str] | None = None
    ) -> None:
        self._journal = journal
        self._parameters = {
            "version": version,
            "modalities": json.dumps(list(modalities)),
            "patients": None if patients is None else json.dumps(list(patients)),
        }

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(_TABLE)
            connection.execute(_FILL, self._parameters)
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(_DROP_TABLE)

    def tally(self) -> Tally:
        """How many files there were."""
        statement = "SELECT count(*), coalesce(sum(f.size), 0) FROM state s JOIN file f ON f.id = s.file_id"
        with self._journal.transaction() as connection:
            return Tally(*connection.exec_driver_sql(statement).one())

    def clash(self) -> tuple[str, str] | None:
        """A path that two modalities have with different content, and their names; None when there is none."""
        with self._journal.transaction() as connection:
            found = connection.execute(_CLASHES).first()
        return None if found is None else (found.path, found.modalities)

    def files(self, *, url: str) -> Iterator[Retrieval]:
        """Yield every file, largest first, as the destination `url` has it. Nothing is held between pages."""
        after = 0
        while True:
            with self._journal.transaction() as connection:
                page = driver(connection).execute(_FILES, (url, after, PAGE)).fetchall()
            if not page:
                return
            after = page[-1][0]
            yield from (Retrieval(*row[1:]) for row in page)
