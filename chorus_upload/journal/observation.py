"""What a scan saw, streamed into temporary tables and compared with the journal by one query.

The life of an Observation::

    with Observation(journal, modalities) as seen:
        number = seen.directory(…); seen.files(number, entries); seen.unreadable(…)   # during the scan
        seen.compare()                                                                # NEW, SUSPECT, GONE
        for candidates in seen.candidates(): …; seen.apply(readings, …)               # one transaction each
        seen.retire_gone(…)

The tables are temporary: they live in files of SQLite's own and vanish with the connection, so memory stays
flat however large the tree is, and an interrupted update leaves nothing behind but what it applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from sqlalchemy import Connection, text

from chorus_upload.events import Tally
from chorus_upload.journal import versions
from chorus_upload.journal.apply import Applied, apply_readings
from chorus_upload.journal.diff import Candidate
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.who import Who
from chorus_upload.model import JournalingMode, Reading, Retirement

BUFFERED_ROWS = 20_000
PAGE = 5_000

_TABLES = (
    """CREATE TEMP TABLE observed_directory (
        id INTEGER PRIMARY KEY, modality_id INTEGER, path TEXT, patient TEXT, version TEXT, central TEXT,
        directory_id INTEGER)""",
    "CREATE TEMP TABLE observed (directory INTEGER, name TEXT, size INTEGER, mtime_us INTEGER)",
    "CREATE TEMP TABLE unreadable (modality_id INTEGER, directory TEXT, name TEXT)",
    "CREATE TEMP TABLE difference (id INTEGER PRIMARY KEY, observed INTEGER, file_id INTEGER)",
    """CREATE TEMP TABLE gone (
        file_id INTEGER PRIMARY KEY, modality_id INTEGER, size INTEGER, fingerprint BLOB, md5 BLOB)""",
)

_MAP_DIRECTORIES = """
    UPDATE observed_directory
    SET directory_id = (SELECT id FROM main.directory known WHERE known.path = observed_directory.path)
"""

# NEW has no active row; SUSPECT has one that differs in what can be seen without reading, or one whose time was
# too young to be trusted. All others are SAME, which needs no row.
_DIFFERENCE = """
    INSERT INTO difference (observed, file_id)
    SELECT o.rowid, f.id
    FROM observed o
    JOIN observed_directory d ON d.id = o.directory
    LEFT JOIN main.file f
        ON f.retired_by IS NULL AND f.directory_id = d.directory_id AND f.name = o.name
        AND f.modality_id = d.modality_id
    WHERE f.id IS NULL OR f.size <> o.size OR f.mtime_us <> o.mtime_us OR f.unsettled
"""

# GONE: active, not observed, and neither an unreadable file nor below an unreadable directory.
_GONE = """
    WITH protected (modality_id, directory_id) AS (
        SELECT u.modality_id, k.id FROM unreadable u
        JOIN main.directory k ON u.directory = '' OR k.path = u.directory
            OR substr(k.path, 1, length(u.directory) + 1) = u.directory || '/'
        WHERE u.name IS NULL
    )
    INSERT INTO gone (file_id, modality_id, size, fingerprint, md5)
    SELECT f.id, f.modality_id, f.size, f.fingerprint, f.md5
    FROM main.file f
    WHERE f.retired_by IS NULL
        AND f.modality_id IN (SELECT value FROM json_each(:modalities))
        AND NOT EXISTS (
            SELECT 1 FROM observed_directory d JOIN observed o ON o.directory = d.id
            WHERE d.directory_id = f.directory_id AND d.modality_id = f.modality_id AND o.name = f.name)
        AND (f.modality_id, f.directory_id) NOT IN (SELECT modality_id, directory_id FROM protected)
        AND NOT EXISTS (
            SELECT 1 FROM unreadable u JOIN main.directory k ON k.path = u.directory
            WHERE u.name = f.name AND k.id = f.directory_id AND u.modality_id = f.modality_id)
"""

_CANDIDATES = """
    SELECT x.id, d.modality_id, d.directory_id, d.path, o.name, o.size, o.mtime_us, d.patient, d.version,
        f.id, f.size, f.mtime_us, f.fingerprint, f.md5, coalesce(f.unsettled, 0),
        {may_be_renamed}, {needs_md5}
    FROM difference x
    JOIN observed o ON o.rowid = x.observed
    JOIN observed_directory d ON d.id = o.directory
    LEFT JOIN main.file f ON f.id = x.file_id
    WHERE x.id > :after ORDER BY x.id LIMIT :page
"""
# Files of which several have one central key: the one that is journaled already comes first, then by path.
_SAME_KEY = """
    WITH keyed (row, modality_id, version, key, directory, name, size, known) AS (
        SELECT o.rowid, d.modality_id, coalesce(d.version, ''), d.central || o.name, d.path, o.name, o.size,
            EXISTS (SELECT 1 FROM main.file f WHERE f.retired_by IS NULL AND f.directory_id = d.directory_id
                AND f.name = o.name AND f.modality_id = d.modality_id)
        FROM observed_directory d JOIN observed o ON o.directory = d.id
        WHERE (d.central, coalesce(d.version, '')) IN (
            SELECT central, coalesce(version, '') FROM observed_directory WHERE central IS NOT NULL
            GROUP BY 1, 2 HAVING count(*) > 1)
    ), counted AS (SELECT *, count(*) OVER (PARTITION BY version, key) AS sharing FROM keyed)
    SELECT row, modality_id, version, key, directory, name, size FROM counted
    WHERE sharing > 1 ORDER BY version, key, known DESC, directory
"""


_COUNT_ACTIVE = "SELECT modality_id, count(*), sum(size) FROM main.file WHERE retired_by IS NULL GROUP BY 1"
_COUNT_GONE = "SELECT modality_id, count(*), sum(size) FROM gone GROUP BY 1"


class SameKey(NamedTuple):
    """A file left out of the observation because `kept` has the same central key."""

    modality: str
    path: str
    kept: str


class Observation:
    """One scan of one or more sources, for the modalities that take part in it (by name, with their ids)."""

    def __init__(self, journal: Journal, modalities: Mapping[str, int]) -> None:
        self._journal = journal
        self.modalities = modalities
        self._names = {key: name for name, key in modalities.items()}
        self._directories: list[tuple[int, int, str, str | None, str | None, str | None]] = []
        self._files: list[tuple[int, str, int, int]] = []
        self._directory_count = 0
        self._path_versions: dict[str, int] = {}
        self.seen = dict.fromkeys(modalities, Tally())
        self.active = dict.fromkeys(modalities, Tally())
        self.gone = dict.fromkeys(modalities, Tally())
        self.work = Tally()

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            for statement in _TABLES:
                connection.exec_driver_sql(statement)
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            for table in ("observed_directory", "observed", "unreadable", "difference", "gone"):
                connection.exec_driver_sql(f"DROP TABLE temp.{table}")

    def directory(
        self, modality: str, path: str, *, patient: str | None, version: str | None, central: str | None
    ) -> int:
        """Announce a directory with files of a modality; gives the number to announce its files under.

        `central` is the part of the central key between the version and the name, when it is the same for
        all files of the directory; it serves to find files that would collide.
        """
        self._directory_count += 1
        number = self._directory_count
        self._directories.append((number, self.modalities[modality], path, patient, version, central))
        return number

    def files(self, modality: str, number: int, entries: Sequence[tuple[str, int, int]]) -> None:
        """Announce files (name, size, mtime_us) of the directory of that number."""
        self._files.extend([(number, *entry) for entry in entries])
        self.seen[modality] += Tally(len(entries), sum([entry[1] for entry in entries]))
        if len(self._files) >= BUFFERED_ROWS:
            self._flush()

    def unreadable(self, modality: str, directory: str, name: str | None = None) -> None:
        """Protect a directory with all below it, or one file of it, from being taken for deleted."""
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(
                "INSERT INTO unreadable VALUES (?, ?, ?)", (self.modalities[modality], directory, name)
            )

    def _flush(self) -> None:
        with self._journal.transaction() as connection:
            if self._directories:
                connection.exec_driver_sql(
                    "INSERT INTO observed_directory (id, modality_id, path, patient, version, central)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    self._directories,
                )
            if self._files:
                connection.exec_driver_sql("INSERT INTO observed VALUES (?, ?, ?, ?)", self._files)
        self._directories.clear()
        self._files.clear()

    def compare(self, *, complete: bool) -> list[SameKey]:
        """Compare what was seen with the journal; `complete` says that what was not seen is gone.

        Fills `active`, `gone` (by modality) and `work`; gives the files that were left out because another
        one has their key.
        """
        self._flush()
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(_MAP_DIRECTORIES)
            connection.exec_driver_sql("CREATE INDEX temp.observed_central ON observed_directory (central, version)")
            left_out = self._leave_out_same_keys(connection)
            connection.exec_driver_sql(_DIFFERENCE)
            files, size, new = connection.exec_driver_sql(
                "SELECT count(*), coalesce(sum(o.size), 0), count(*) FILTER (WHERE x.file_id IS NULL)"
                " FROM difference x JOIN observed o ON o.rowid = x.observed"
            ).one()
            self.work = Tally(files, size)
            self._tally(self.active, connection, _COUNT_ACTIVE)
            matched = sum(tally.files for tally in self.seen.values()) - new
            if complete and matched < sum(tally.files for tally in self.active.values()):
                connection.exec_driver_sql("CREATE INDEX temp.observed_name ON observed (directory, name)")
                connection.exec_driver_sql(
                    "CREATE INDEX temp.observed_directory_id ON observed_directory (directory_id, modality_id)"
                )
                modalities = json.dumps(list(self.modalities.values()))
                connection.execute(text(_GONE), {"modalities": modalities})
                connection.exec_driver_sql("CREATE INDEX temp.gone_size ON gone (modality_id, size)")
                self._tally(self.gone, connection, _COUNT_GONE)
        return left_out

    def _tally(self, tallies: dict[str, Tally], connection: Connection, statement: str) -> None:
        for modality_id, files, size in connection.exec_driver_sql(statement):
            if modality_id in self._names:
                tallies[self._names[modality_id]] = Tally(files, size)

    def _leave_out_same_keys(self, connection: Connection) -> list[SameKey]:
        left_out: list[SameKey] = []
        kept: tuple[str | None, str] | None = None
        kept_path = ""
        for row, modality_id, version, key, directory, name, size in connection.exec_driver_sql(_SAME_KEY).all():
            path = f"{directory}/{name}" if directory else name
            if (version, key) != kept:
                kept, kept_path = (version, key), path
                continue
            connection.exec_driver_sql("DELETE FROM observed WHERE rowid = ?", (row,))
            connection.exec_driver_sql("INSERT INTO unreadable VALUES (?, ?, ?)", (modality_id, directory, name))
            modality = self._names[modality_id]
            self.seen[modality] += Tally(-1, -size)
            left_out.append(SameKey(modality, path, kept_path))
        return left_out

    def candidates(self) -> Iterator[list[Candidate]]:
        """Yield what is NEW or SUSPECT in pages, in the order in which it was seen."""
        any_gone = any(tally.files for tally in self.gone.values())
        same_size = "EXISTS (SELECT 1 FROM gone g WHERE g.modality_id = d.modality_id AND g.size = o.size {})"
        statement = _CANDIDATES.format(
            may_be_renamed=same_size.format("") if any_gone else "0",
            needs_md5=same_size.format("AND g.fingerprint IS NULL AND g.md5 NOT NULL") if any_gone else "0",
        )
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO main.directory (path) SELECT path FROM observed_directory"
                " WHERE directory_id IS NULL"
            )
            connection.exec_driver_sql(_MAP_DIRECTORIES)
        after = 0
        while True:
            with self._journal.transaction() as connection:
                rows = connection.exec_driver_sql(statement, {"after": after, "page": PAGE}).all()
            page = [Candidate._make(row) for row in rows]
            if not page:
                return
            yield page
            after = page[-1].id

    def apply(
        self, readings: Sequence[tuple[Candidate, Reading]], *, version_id: int, mode: JournalingMode
    ) -> list[Applied]:
        """Record what was read of these candidates, in one transaction.

        A file belongs to the version in its path, if its pattern has one, else to `version_id`.
        """
        with self._journal.transaction() as connection:

            def introduced_by(label: str | None) -> int:
                if label is None:
                    return version_id
                if label not in self._path_versions:
                    self._path_versions[label] = versions.ensure(connection, label, mode=mode, who=Who.here())
                return self._path_versions[label]

            return apply_readings(connection, readings, introduced_by=introduced_by)

    def retire_gone(self, version_id: int) -> dict[str, Tally]:
        """Retire what is gone and was not found again under another name; gives what was retired."""
        retired = dict.fromkeys(self.modalities, Tally())
        with self._journal.transaction() as connection:
            self._tally(retired, connection, _COUNT_GONE)
            connection.exec_driver_sql(
                "UPDATE main.file SET retired_by = ?, retirement = ? WHERE id IN (SELECT file_id FROM gone)",
                (version_id, Retirement.GONE.value),
            )
        return retired
