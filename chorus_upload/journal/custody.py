"""Whose copy of the cloud journal this is: one row, which travels with the local file.

While `lock_id` is set the journal is checked out: the cloud has a lock of that id, and this file may have
what the cloud has not. When it is None the file is a copy of what was checked in, and may be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.schema import custody


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """See the module. `base_etag` is the cloud journal's at check-out (None: there was none), after a
    check-in the new one's; `implicit` says that one command took it for itself."""

    cloud: str
    lock_id: str | None
    lock_etag: str | None
    base_etag: str | None
    implicit: bool
    since_us: int

    @property
    def checked_out(self) -> bool:
        return self.lock_id is not None


def read(journal: Journal) -> Custody | None:
    """The custody of this file; None for one that never came from a cloud."""
    columns = custody.c
    query = select(
        columns.cloud, columns.lock_id, columns.lock_etag, columns.base_etag, columns.implicit, columns.since_us
    )
    with journal.transaction() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Custody(
        cloud=row.cloud,
        lock_id=row.lock_id,
        lock_etag=row.lock_etag,
        base_etag=row.base_etag,
        implicit=bool(row.implicit),
        since_us=row.since_us,
    )


def checked_out(
    journal: Journal, *, cloud: str, lock_id: str, lock_etag: str, base_etag: str | None, implicit: bool
) -> None:
    """Record that this file is the cloud journal's continuation, under the lock of that id."""
    write(
        journal,
        Custody(
            cloud=cloud,
            lock_id=lock_id,
            lock_etag=lock_etag,
            base_etag=base_etag,
            implicit=implicit,
            since_us=now_us(),
        ),
    )


def checked_in(journal: Journal, *, cloud: str, etag: str | None) -> None:
    """Record that the cloud holds what this file holds, under that etag."""
    write(
        journal,
        Custody(cloud=cloud, lock_id=None, lock_etag=None, base_etag=etag, implicit=False, since_us=now_us()),
    )


def write(journal: Journal, row: Custody) -> None:
    """Record this custody in place of what was recorded."""
    with journal.transaction() as connection:
        connection.execute(delete(custody))
        connection.execute(
            insert(custody).values(
                id=1,
                cloud=row.cloud,
                lock_id=row.lock_id,
                lock_etag=row.lock_etag,
                base_etag=row.base_etag,
                implicit=int(row.implicit),
                since_us=row.since_us,
            )
        )
