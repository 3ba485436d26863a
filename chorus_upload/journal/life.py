"""The life of one file: every state that the journal knows of it, under all its names, and what proves each delivery.

A file lives on when its content changes under its path, and when its content is found under another path. What
was added under the path after it had gone begins a life of its own, and is told as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text

from chorus_upload.journal.journal import Journal
from chorus_upload.model import Change, Evidence, Retirement

MANY = 1_000
"""So many names are looked at, at most, to find those that are like a wrong one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryProof:
    """That a state of a file is at a destination under a key, by whom it was sent, and what proves it."""

    destination: str
    key: str
    submission: str
    user: str
    host: str
    delivered_us: int
    evidence: Evidence
    md5: bytes
    etag: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """One content of a file under one path.

    `entered_us` and `retired_us` are when the versions were begun that introduced and retired it. `renamed_from`
    and `renamed_to` are its neighbours' paths, where the change was of the name only. `change` is recorded-again where
    that was told of (see `cli.render.lives`): the journal itself calls it modified.
    """

    path: str
    modality: str
    patient: str | None
    version: str
    entered_us: int
    change: Change | Literal["recorded-again"]
    renamed_from: str | None
    size: int
    mtime_us: int
    fingerprint: bytes | None
    md5: bytes | None
    retired_by: str | None
    retired_us: int | None
    retirement: Retirement | None
    renamed_to: str | None
    deliveries: tuple[DeliveryProof, ...]

    def has_content_of(self, other: FileState) -> bool:
        """Whether both are known to be the same content, by the strongest checksum that there is of both."""
        if self.fingerprint is not None and other.fingerprint is not None:
            return self.size == other.size and self.fingerprint == other.fingerprint
        return self.size == other.size and self.md5 is not None and self.md5 == other.md5


class _Row(NamedTuple):
    id: int
    directory_id: int
    name: str
    modality_id: int
    change: str
    renamed_from: int | None
    retirement: str | None


_ROW = "SELECT id, directory_id, name, modality_id, change, renamed_from, retirement FROM file"
_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"

_STATE = text(f"""
    WITH named (id, path) AS NOT MATERIALIZED (
        SELECT f.id, {_PATH} FROM file f JOIN directory k ON k.id = f.directory_id)
    SELECT n.path, m.name AS modality, f.patient, v.label AS version, v.begun_us AS entered_us, f.change,
        (SELECT path FROM named WHERE id = f.renamed_from) AS renamed_from,
        f.size, f.mtime_us, f.fingerprint, f.md5, w.label AS retired_by, w.begun_us AS retired_us, f.retirement,
        (SELECT path FROM named WHERE id = :successor) AS renamed_to
    FROM file f
    JOIN named n ON n.id = f.id
    JOIN modality m ON m.id = f.modality_id
    JOIN version v ON v.id = f.introduced_by
    LEFT JOIN version w ON w.id = f.retired_by
    WHERE f.id = :id
""")

_DELIVERIES = text("""
    SELECT t.url AS destination, d.key, s.label AS submission, s.user, s.host, d.delivered_us, d.evidence, d.md5, d.etag
    FROM delivery d
    JOIN destination t ON t.id = d.destination_id
    JOIN submission s ON s.id = d.submission_id
    WHERE d.file_id = :id ORDER BY d.delivered_us, t.url
""")


def modalities_with(journal: Journal, path: str) -> list[str]:
    """The modalities in which the path is, or once was, a file."""
    directory, _, name = path.rpartition("/")
    statement = text("""
        SELECT DISTINCT m.name FROM file f JOIN modality m ON m.id = f.modality_id
        WHERE f.name = :name AND f.directory_id = (SELECT id FROM directory WHERE path = :directory) ORDER BY m.id
    """)
    with journal.transaction() as connection:
        return list(connection.execute(statement, {"directory": directory, "name": name}).scalars())


def states(journal: Journal, path: str, *, modality: str) -> list[FileState]:
    """Every state of the files that are, or once were, called so; in the order in which they entered."""
    with journal.transaction() as connection:
        rows = _Lives(connection).through(path, modality=modality)
        successors = {row.renamed_from: row.id for row in rows if row.renamed_from is not None}
        return [_state(connection, row.id, successor=successors.get(row.id)) for row in sorted(rows)]


class _Lives:
    """Follows files through their names. A path has no index of its own: what was looked up is kept."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._namesakes: dict[tuple[int, int, str], list[_Row]] = {}

    def through(self, path: str, *, modality: str) -> set[_Row]:
        """The rows of all lives that lead through this path."""
        directory, _, name = path.rpartition("/")
        waiting = self._rows(
            "WHERE name = ? AND directory_id = (SELECT id FROM directory WHERE path = ?)"
            " AND modality_id = (SELECT id FROM modality WHERE name = ?) ORDER BY id",
            (name, directory, modality),
        )
        if waiting:
            self._namesakes[_place(waiting[0])] = list(waiting)
        found = set(waiting)
        while waiting:
            row = waiting.pop()
            new = {other for other in (self._before(row), self._after(row)) if other is not None} - found
            found |= new
            waiting += new
        return found

    def _before(self, row: _Row) -> _Row | None:
        if row.change == Change.RENAMED:
            return self._rows("WHERE id = ?", (row.renamed_from,))[0]
        if row.change == Change.MODIFIED:
            return next((each for each in reversed(self._all_of(row)) if each.id < row.id), None)
        return None

    def _after(self, row: _Row) -> _Row | None:
        if row.retirement == Retirement.RENAMED:
            return next(iter(self._rows("WHERE renamed_from = ?", (row.id,))), None)
        if row.retirement == Retirement.MODIFIED:
            return next((each for each in self._all_of(row) if each.id > row.id), None)
        return None

    def _all_of(self, row: _Row) -> list[_Row]:
        """All rows of the same path, oldest first."""
        place = _place(row)
        if place not in self._namesakes:
            where = "WHERE modality_id = ? AND directory_id = ? AND name = ? ORDER BY id"
            self._namesakes[place] = self._rows(where, place)
        return self._namesakes[place]

    def _rows(self, where: str, parameters: tuple[object, ...]) -> list[_Row]:
        return [_Row(*row) for row in self._connection.exec_driver_sql(f"{_ROW} {where}", parameters)]


def _place(row: _Row) -> tuple[int, int, str]:
    return row.modality_id, row.directory_id, row.name


def _state(connection: Connection, file_id: int, *, successor: int | None) -> FileState:
    found = connection.execute(_STATE, {"id": file_id, "successor": successor}).one()
    return FileState(
        path=found.path,
        modality=found.modality,
        patient=found.patient,
        version=found.version,
        entered_us=found.entered_us,
        change=Change(found.change),
        renamed_from=found.renamed_from,
        size=found.size,
        mtime_us=found.mtime_us,
        fingerprint=found.fingerprint,
        md5=found.md5,
        retired_by=found.retired_by,
        retired_us=found.retired_us,
        retirement=None if found.retirement is None else Retirement(found.retirement),
        renamed_to=found.renamed_to,
        deliveries=tuple(
            DeliveryProof(
                destination=proof.destination,
                key=proof.key,
                submission=proof.submission,
                user=proof.user,
                host=proof.host,
                delivered_us=proof.delivered_us,
                evidence=Evidence(proof.evidence),
                md5=proof.md5,
                etag=proof.etag,
            )
            for proof in connection.execute(_DELIVERIES, {"id": file_id})
        ),
    )


def names_like(journal: Journal, path: str) -> list[str]:
    """Up to three paths of the journal that are like a wrong one: of its directory, or with its name."""
    directory, _, name = path.rpartition("/")
    beside = text(f"""
        SELECT {_PATH} FROM file f JOIN directory k ON k.id = f.directory_id
        WHERE f.retired_by IS NULL AND k.path = :directory LIMIT :many
    """)
    elsewhere = text(f"""
        SELECT {_PATH} FROM file f JOIN directory k ON k.id = f.directory_id
        WHERE f.name = :name COLLATE NOCASE LIMIT :many
    """)
    parameters = {"directory": directory, "name": name, "many": MANY}
    with journal.transaction() as connection:
        known = {each for query in (beside, elsewhere) for each in connection.execute(query, parameters).scalars()}
    return get_close_matches(path, sorted(known), n=3)
