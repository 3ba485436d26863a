"""What of an observation is doubtful: files that are gone and may only be elsewhere, versions that cannot be ones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from chorus_upload.events import Tally
from chorus_upload.journal import diff

Refuse = Callable[[str, Collection[str]], str | None]
"""Gives the reason why a version cannot have a label beside those others."""


class SameKey(NamedTuple):
    """A file left out of the observation because `kept` has the same central key.

    With `only_alike` it is not left out: the keys differ in case or in the form of their Unicode. Of two directories
    only the first such files are named.
    """

    modality: str
    path: str
    kept: str
    only_alike: bool = False


class VersionLeftOut(NamedTuple):
    """A directory left out of the observation because the version in its path cannot be one."""

    modality: str
    directory: str
    reason: str
    files: int
    bytes: int


class MovedOutside(NamedTuple):
    """So many GONE files of a directory are now under names that no pattern matches; one of those is `example`."""

    modality: str
    directory: str
    files: int
    example: str


def leave_out_versions(
    connection: Connection, refuse: Refuse, labels: Collection[str], names: Mapping[int, str]
) -> list[VersionLeftOut]:
    """Take the directories of versions that are refused out of what was observed, and protect what is below them.

    `labels` are those of updates: what the journal has no files of yet has to go beside them, too.
    """
    refused: dict[str, str] = {}
    kept: defaultdict[str, list[str]] = defaultdict(list)
    # Only those that differ in case alone exclude each other.
    of_updates = defaultdict[str, list[str]](list)
    for label in labels:
        of_updates[label.casefold()].append(label)
    for label, is_known in connection.exec_driver_sql(diff.VERSIONS_IN_PATHS).all():
        alike = kept[label.casefold()]
        if (reason := refuse(label, alike if is_known else [*alike, *of_updates[label.casefold()]])) is None:
            alike.append(label)
        else:
            refused[label] = reason
    if not refused:
        return []
    rows = connection.exec_driver_sql(diff.DIRECTORIES_OF_VERSIONS, (json.dumps(list(refused)),)).all()
    connection.exec_driver_sql(
        "DELETE FROM observed WHERE directory IN (SELECT value FROM json_each(?))",
        (json.dumps([row.id for row in rows]),),
    )
    connection.exec_driver_sql(
        "INSERT INTO unreadable VALUES (?, ?, NULL)", [(row.modality_id, row.path) for row in rows]
    )
    return [VersionLeftOut(names[row.modality_id], row.path, refused[row.version], *row[-2:]) for row in rows]


def moved_outside(connection: Connection, names: Mapping[int, str]) -> list[MovedOutside]:
    """Return what of GONE is now under names that no pattern matches, and keep it for `hold`."""
    connection.exec_driver_sql("DELETE FROM moved_outside")
    connection.exec_driver_sql(diff.MOVED_OUTSIDE)
    found = connection.exec_driver_sql(diff.COUNT_MOVED_OUTSIDE).all()
    return [MovedOutside(names[row[0]], *row[1:]) for row in found]


def hold(
    connection: Connection, which: str, parameters: Mapping[str, str], names: Mapping[int, str]
) -> tuple[dict[str, Tally], bool]:
    """Take some of GONE off the list; gives how much that was, by modality, and whether any is left."""
    connection.exec_driver_sql("CREATE TEMP TABLE held (file_id INTEGER PRIMARY KEY)")
    connection.execute(text(f"INSERT INTO held {which}"), parameters)
    counted = connection.exec_driver_sql(diff.COUNT_HELD).all()
    connection.exec_driver_sql("DELETE FROM gone WHERE file_id IN (SELECT file_id FROM held)")
    connection.exec_driver_sql("DROP TABLE held")
    is_any_left = bool(connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM gone)").scalar())
    return {names[row[0]]: Tally(row[1], row[2]) for row in counted if row[0] in names}, is_any_left
