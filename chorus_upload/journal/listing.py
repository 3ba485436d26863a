"""A listing of the central store beside what the journal calls delivered: the comparison behind `file verify`.

The listing is streamed into a temporary table and compared by one query, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

from sqlalchemy import text

from chorus_upload.journal.deliveries import SELECTED, STANDING, Selection, destination_id
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Evidence

BUFFERED_ROWS = 5_000
PAGE = 2_000


class ListedObject(NamedTuple):
    """What a listing says of one object. Whoever wrote the MD5: in a listing it is a claim."""

    key: str
    size: int
    etag: str
    md5: bytes | None


class Compared(NamedTuple):
    """A delivered file beside its object; what is `listed` is None when the object is missing.

    `version` is that which introduced the file, `retired_by` that in which it ceased to be active.
    """

    path: str
    modality: str
    version: str
    key: str
    size: int
    md5: bytes
    fingerprint: bytes | None
    evidence: Evidence
    etag: str | None
    delivered_us: int
    submission: str
    retired_by: str | None
    listed_size: int | None
    listed_etag: str | None
    listed_md5: bytes | None

    @property
    def is_as_proven(self) -> bool:
        """Whether the object was not written again since it was proven: then the proof still holds."""
        return self.etag is not None and self.etag == self.listed_etag and self.size == self.listed_size


_COMPARED = text(f"""
    SELECT d.file_id, CASE k.path WHEN '' THEN f.name ELSE k.path || '/' || f.name END, m.name, v.label, d.key, f.size,
        d.md5, f.fingerprint, d.evidence, d.etag, d.delivered_us, s.label, w.label, l.size, l.etag, l.md5
    FROM delivery d
    JOIN file f ON f.id = d.file_id
    JOIN directory k ON k.id = f.directory_id
    JOIN modality m ON m.id = f.modality_id
    JOIN version v ON v.id = f.introduced_by
    JOIN submission s ON s.id = d.submission_id
    LEFT JOIN version w ON w.id = f.retired_by
    LEFT JOIN listed l ON l.key = d.key
    WHERE d.destination_id = :destination AND {SELECTED} AND {STANDING} AND (d.key, d.file_id) > (:key, :id)
    ORDER BY d.key, d.file_id LIMIT :page
""")

_UNKNOWN = text("""
    SELECT l.key, l.size FROM listed l
    WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.destination_id = :destination AND d.key = l.key)
        AND l.key > :key
    ORDER BY l.key LIMIT :page
""")


class Listing:
    """A context manager around the temporary table; add every object, then compare."""

    def __init__(self, journal: Journal, *, url: str) -> None:
        self._journal = journal
        self._destination = destination_id(journal, url)
        self._rows: list[ListedObject] = []
        self.objects = 0

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(
                "CREATE TEMP TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, md5 BLOB) WITHOUT ROWID"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            connection.exec_driver_sql("DROP TABLE temp.listed")

    def add(self, listed: ListedObject) -> None:
        """Take one object of the listing."""
        self.objects += 1
        self._rows.append(listed)
        if len(self._rows) >= BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            with self._journal.transaction() as connection:
                # An object that moves while it is listed may come twice.
                connection.exec_driver_sql(
                    "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", [tuple(row) for row in self._rows]
                )
        self._rows.clear()

    def compared(self, selection: Selection) -> Iterator[Compared]:
        """Yield every delivered file of the selection beside its object, ordered by key.

        A retired one is left out when a later delivery took its key.
        """
        self._flush()
        parameters = selection.parameters(self._destination) | {"key": "", "id": 0, "page": PAGE}
        while True:
            with self._journal.transaction() as connection:
                rows = connection.execute(_COMPARED, parameters).all()
            for row in rows:
                compared = Compared(*row[1:])
                yield compared._replace(evidence=Evidence(compared.evidence))
            if len(rows) < PAGE:
                return
            parameters |= {"key": rows[-1].key, "id": rows[-1].file_id}

    def unknown(self) -> Iterator[tuple[str, int]]:
        """Yield key and size of every listed object that no delivery of the journal explains."""
        self._flush()
        parameters: dict[str, object] = {"destination": self._destination, "key": "", "page": PAGE}
        while True:
            with self._journal.transaction() as connection:
                rows = connection.execute(_UNKNOWN, parameters).all()
            yield from ((row.key, row.size) for row in rows)
            if len(rows) < PAGE:
                return
            parameters["key"] = rows[-1].key
