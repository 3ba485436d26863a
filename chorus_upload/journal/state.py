"""The state of the sources at a version: which files there were, and where a destination has them.

A file belongs to it when it was introduced by that version or an earlier one, and not retired by that version or an
earlier one. (See `comparing` for what is retired and found again out of order: the row that was recorded last counts.)
The rows go into a temporary table, so memory stays flat.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Self

from sqlalchemy import text

from chorus_upload.events import Tally
from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Retrieval

PAGE = 1_000

_TABLE = "CREATE TEMP TABLE state (id INTEGER PRIMARY KEY, file_id INTEGER)"

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
            AND (:modalities IS NULL OR f.modality_id IN (
                SELECT id FROM modality WHERE name IN (SELECT value FROM json_each(:modalities))))
            AND (:patients IS NULL OR f.patient IN (SELECT value FROM json_each(:patients)))
        GROUP BY f.directory_id, f.name, f.modality_id
    )
    INSERT INTO state (file_id) SELECT f.id FROM latest JOIN file f USING (id) ORDER BY f.size DESC, f.id
""")

_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"

_HELD = "FROM state s JOIN file f ON f.id = s.file_id JOIN directory k ON k.id = f.directory_id"
_NOT_HELD = """
    SELECT j.key FROM json_each(?) j WHERE NOT EXISTS (SELECT 1 FROM held h WHERE h.path = j.value) ORDER BY j.key
"""

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

    `modalities` None means all, `patients` None all files, those without a patient included.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        version: int,
        modalities: Sequence[str] | None = None,
        patients: Sequence[str] | None = None,
    ) -> None:
        self._journal = journal
        self._is_folded = False
        self._parameters = {
            "version": version,
            "modalities": None if modalities is None else json.dumps(list(modalities)),
            "patients": None if patients is None else json.dumps(list(patients)),
        }

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(_TABLE)
            connection.execute(_FILL, self._parameters)
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            for table in ("state", "held", "alike"):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS temp.{table}")

    def tally(self) -> Tally:
        """How many files there were."""
        statement = "SELECT count(*), coalesce(sum(f.size), 0) FROM state s JOIN file f ON f.id = s.file_id"
        with self._journal.transaction() as connection:
            return Tally(*connection.exec_driver_sql(statement).one())

    def without(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield those of the paths that no file of the state has, a page at a time."""
        with self._journal.transaction() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS temp.held")
            connection.exec_driver_sql(f"CREATE TEMP TABLE held AS SELECT DISTINCT {_PATH} AS path {_HELD}")
            connection.exec_driver_sql("CREATE UNIQUE INDEX temp.held_path ON held (path)")
        rest = iter(paths)
        while page := list(islice(rest, PAGE)):
            with self._journal.transaction() as connection:
                # By number: a name on a disk need not be text that SQLite would give back.
                found = connection.exec_driver_sql(_NOT_HELD, (json.dumps(page),)).scalars().all()
            yield from (page[number] for number in found)

    def alike(self, path: str) -> list[str]:
        """The paths of the state that are this one but for case and Unicode form; after `without`."""
        wanted = _folded(path)
        if not wanted.isascii() and wanted != wanted.encode(errors="replace").decode():
            return []
        with self._journal.transaction() as connection:
            if not self._is_folded:
                driver(connection).create_function("folded", 1, _folded, deterministic=True)
                connection.exec_driver_sql("CREATE TEMP TABLE alike AS SELECT folded(path) AS folded, path FROM held")
                connection.exec_driver_sql("CREATE INDEX temp.alike_folded ON alike (folded)")
                self._is_folded = True
            found = connection.exec_driver_sql("SELECT path FROM alike WHERE folded = ?", (wanted,))
            return [str(each) for each in found.scalars()]

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


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
