"""The directories of sources on which something was mounted when they were last seen."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, insert, select

from chorus_upload.journal.journal import Journal
from chorus_upload.journal.schema import mount_point


def known(journal: Journal) -> set[str]:
    """Their absolute paths, as this machine writes them."""
    with journal.transaction() as connection:
        return set(connection.execute(select(mount_point.c.path)).scalars())


def record(journal: Journal, seen: Collection[str], *, forgotten: Collection[str]) -> None:
    """Remember those that were seen, and forget those that are to be none any more."""
    with journal.transaction() as connection:
        for path in forgotten:
            connection.execute(delete(mount_point).where(mount_point.c.path == path))
        for path in seen:
            connection.execute(insert(mount_point).prefix_with("OR IGNORE").values(path=path))
