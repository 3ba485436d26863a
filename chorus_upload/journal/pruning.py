"""What `journal prune` drops: what came and went in old versions without ever being delivered.

None of it is needed any more: an update compares with active files, an upload sends active files, a verification
holds deliveries against the store, and a delivery needs its file, which therefore stays. What is lost is the answer
to the question what the sources held at one of those versions; so they are marked as pruned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from chorus_upload.events import Tally
from chorus_upload.journal.journal import Journal, now_us


@dataclass(frozen=True, slots=True)
class Dropped:
    """How much is dropped, or would be: states of files that were never delivered, records of scans, directories."""

    files: Tally
    scans: int
    directories: int

    @property
    def is_nothing(self) -> bool:
        return not (self.files.files or self.scans or self.directories)


_PENDING = text("""
    SELECT f.introduced_by, count(*) FROM file f
    WHERE f.retired_by IS NULL AND NOT EXISTS (
        SELECT 1 FROM delivery d JOIN destination t ON t.id = d.destination_id
        WHERE d.file_id = f.id AND t.url = :url)
    GROUP BY f.introduced_by
""")

_DROP = "CREATE TEMP TABLE dropped_file (id INTEGER PRIMARY KEY, size INTEGER)"

# What the first kept version retired is in the state of no kept one.
_FILES = text("""
    INSERT INTO dropped_file
    SELECT f.id, f.size FROM file f
    WHERE f.introduced_by IN (SELECT value FROM json_each(:versions))
        AND (f.retired_by IN (SELECT value FROM json_each(:versions)) OR f.retired_by = :first_kept)
        AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.file_id = f.id)
""")

# A file that stays keeps its former names.
_FORMER_NAMES = """
    WITH RECURSIVE former (id) AS (
        SELECT renamed_from FROM file
        WHERE renamed_from IS NOT NULL AND id NOT IN (SELECT id FROM dropped_file)
        UNION
        SELECT f.renamed_from FROM former o JOIN file f ON f.id = o.id WHERE f.renamed_from IS NOT NULL
    )
    DELETE FROM dropped_file WHERE id IN (SELECT id FROM former)
"""

# The last record of each modality stays: it says when that was last looked at.
_SCANS = """
    FROM scan WHERE version_id IN (SELECT value FROM json_each(:versions))
        AND id NOT IN (SELECT max(id) FROM scan GROUP BY modality_id)
"""

_DIRECTORIES = """
    FROM directory WHERE id NOT IN (
        SELECT directory_id FROM file WHERE id NOT IN (SELECT id FROM dropped_file))
"""

# Only while rows are removed: for each of them SQLite looks for others that refer to it.
_INDEXES = (
    "CREATE INDEX pruning_renamed_from ON file (renamed_from) WHERE renamed_from IS NOT NULL",
    "CREATE INDEX pruning_directory ON file (directory_id)",
)
_DROP_INDEXES = ("DROP INDEX pruning_renamed_from", "DROP INDEX pruning_directory")


_MARK = "UPDATE version SET pruned_us = :now WHERE id IN (SELECT value FROM json_each(:versions))"


def pending(journal: Journal, *, url: str) -> dict[int, int]:
    """How many files the destination has not got, by the version (id) that introduced them."""
    with journal.transaction() as connection:
        return {row[0]: row[1] for row in connection.execute(_PENDING, {"url": url})}


def foresee(journal: Journal, version_ids: Sequence[int], *, first_kept: int) -> Dropped:
    """What `drop` would drop. Changes nothing."""
    with journal.transaction() as connection:
        return _choose(connection, version_ids, first_kept)


def drop(journal: Journal, version_ids: Sequence[int], *, first_kept: int) -> Dropped:
    """Drop the detail of these versions and mark them as pruned, in one transaction.

    They have to be all those before `first_kept`: then no state of that one, or of a later one, loses anything.
    """
    parameters = {"versions": json.dumps(list(version_ids)), "now": now_us()}
    with journal.transaction() as connection:
        dropped = _choose(connection, version_ids, first_kept)
        for statement in _INDEXES:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("DELETE FROM archive_crc32 WHERE file_id IN (SELECT id FROM dropped_file)")
        connection.exec_driver_sql("DELETE FROM file WHERE id IN (SELECT id FROM dropped_file)")
        connection.execute(text(f"DELETE {_SCANS}"), parameters)
        connection.exec_driver_sql(f"DELETE {_DIRECTORIES}")
        for statement in _DROP_INDEXES:
            connection.exec_driver_sql(statement)
        if dropped.files.files:
            connection.execute(text(_MARK), parameters)
    return dropped


def _choose(connection: Connection, version_ids: Sequence[int], first_kept: int) -> Dropped:
    """Put the files that are to be dropped into a temporary table, and count all."""
    parameters = {"versions": json.dumps(list(version_ids)), "first_kept": first_kept}
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.dropped_file")
    connection.exec_driver_sql(_DROP)
    connection.execute(_FILES, parameters)
    connection.exec_driver_sql(_FORMER_NAMES)
    files, size = connection.exec_driver_sql("SELECT count(*), coalesce(sum(size), 0) FROM dropped_file").one()
    scans = connection.execute(text(f"SELECT count(*) {_SCANS}"), parameters).scalar_one()
    directories = connection.exec_driver_sql(f"SELECT count(*) {_DIRECTORIES}").scalar_one()
    return Dropped(Tally(files, size), scans, directories)
