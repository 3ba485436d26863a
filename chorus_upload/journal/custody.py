"""Whose copy of the cloud journal this is: one row, which stays with the local file.

The life of a local journal: OUT while it is worked on, OFFERED before a copy is sent to the cloud, RETURNED once
the cloud has it, IN once the lock is gone. Each state is written down before the step that leads to the next,
so that whoever comes after a crash knows what may have happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from chorus_upload.journal.journal import Journal
from chorus_upload.journal.schema import command, custody
from chorus_upload.model import CustodyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """See the module. `implicit` says that one command took the journal for itself.

    `base_etag` is the cloud journal's that this file continues (None: there was none), `offered` the XXH3-128
    of the copy that was sent, while it is OFFERED.
    """

    cloud: str
    state: CustodyState
    lock_id: str | None
    base_etag: str | None
    offered: bytes | None = None
    implicit: bool
    since_us: int

    @property
    def is_in(self) -> bool:
        """Whether this is a mere copy of what the cloud has or had."""
        return self.state is CustodyState.IN


def read(journal: Journal) -> Custody | None:
    """The custody of this file; None for one that never came from a cloud."""
    with journal.transaction() as connection:
        row = connection.execute(select(custody)).one_or_none()
    if row is None:
        return None
    return Custody(
        cloud=row.cloud,
        state=CustodyState(row.state),
        lock_id=row.lock_id,
        base_etag=row.base_etag,
        offered=row.offered,
        implicit=bool(row.implicit),
        since_us=row.since_us,
    )


def write(journal: Journal, row: Custody) -> None:
    """Record this custody in place of what was recorded."""
    with journal.transaction() as connection:
        connection.execute(delete(custody))
        connection.execute(
            insert(custody).values(
                id=1,
                cloud=row.cloud,
                state=row.state,
                lock_id=row.lock_id,
                base_etag=row.base_etag,
                offered=row.offered,
                implicit=int(row.implicit),
                since_us=row.since_us,
            )
        )


def clear(journal: Journal) -> None:
    """Forget whose copy this is: from now on the file is nobody's, and nothing ever replaces it."""
    with journal.transaction() as connection:
        connection.execute(delete(custody))


@dataclass(frozen=True, slots=True)
class Trace:
    """The last command in a journal's history. No two journals of different pasts have it both."""

    begun_us: int
    name: str
    host: str


def trace(journal: Journal) -> Trace | None:
    """The last command that worked on this journal; None when none has."""
    columns = command.c
    newest = select(columns.begun_us, columns.command, columns.host).order_by(columns.id.desc()).limit(1)
    with journal.transaction() as connection:
        row = connection.execute(newest).one_or_none()
    return None if row is None else Trace(*row)


def continues(journal: Journal, earlier: Trace | None) -> bool:
    """Whether this journal has a history that goes on from there: then it has all that the other one had."""
    if earlier is None:
        return True
    columns = command.c
    same = select(columns.id).where(
        columns.begun_us == earlier.begun_us, columns.command == earlier.name, columns.host == earlier.host
    )
    with journal.transaction() as connection:
        return connection.execute(same.limit(1)).first() is not None
