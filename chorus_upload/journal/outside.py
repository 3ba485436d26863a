"""The number of files of each source that match no pattern, as the last update took it for intended."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert, select

from chorus_upload.journal.journal import Journal
from chorus_upload.journal.schema import outside_count


def known(journal: Journal) -> dict[str, int]:
    """Return the numbers by the root of the source."""
    with journal.transaction() as connection:
        rows = connection.execute(select(outside_count.c.root, outside_count.c.files))
        return {row.root: row.files for row in rows}


def record(journal: Journal, counts: Mapping[str, int]) -> None:
    """Remember these numbers; other sources keep theirs."""
    with journal.transaction() as connection:
        for root, files in counts.items():
            connection.execute(insert(outside_count).prefix_with("OR REPLACE").values(root=root, files=files))
