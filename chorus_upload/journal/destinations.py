"""Destinations as the journal knows them: their names, the marks that directories carry, and what was sent there."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text, update

from chorus_upload.journal.journal import Journal
from chorus_upload.journal.schema import destination


class Destination(NamedTuple):
    """A place that files are sent to; `is_used` when the journal has deliveries there.

    A name that is not `exact` was given by an earlier release and does not say which service is meant. `mark` is what
    a directory carries in itself (see `storage.identity`).
    """

    id: int
    url: str
    exact: bool
    mark: str | None
    is_used: bool


class Sent(NamedTuple):
    """An object that the journal calls delivered, and its size."""

    key: str
    size: int


def known(journal: Journal) -> list[Destination]:
    """Return all destinations, the one with the latest submission first."""
    statement = text("""
        SELECT t.id, t.url, t.exact, t.mark, EXISTS (
            SELECT 1 FROM submission s JOIN delivery d ON d.submission_id = s.id WHERE s.destination_id = t.id
        )
        FROM destination t
        ORDER BY (SELECT max(s.begun_us) FROM submission s WHERE s.destination_id = t.id) DESC, t.id DESC
    """)
    with journal.transaction() as connection:
        rows = connection.execute(statement).all()
    return [Destination(row[0], row[1], bool(row[2]), row[3], bool(row[4])) for row in rows]


def count(journal: Journal, known_as: Destination) -> int:
    """Return how many deliveries to a destination are recorded."""
    with journal.transaction() as connection:
        statement = text("SELECT count(*) FROM delivery WHERE destination_id = :id")
        return int(connection.execute(statement, {"id": known_as.id}).scalar_one())


def rename(journal: Journal, known_as: Destination, url: str) -> None:
    """Give a destination this name, exactly; whatever is recorded for it stays recorded for it."""
    with journal.transaction() as connection:
        connection.execute(update(destination).where(destination.c.id == known_as.id).values(url=url, exact=1))


def add(journal: Journal, url: str) -> None:
    """Have a destination of this name."""
    with journal.transaction() as connection:
        connection.execute(text("INSERT OR IGNORE INTO destination (url) VALUES (:url)"), {"url": url})


def set_mark(journal: Journal, url: str, mark: str) -> None:
    """Record the mark of the directory `url`, which becomes a destination if it is none yet."""
    with journal.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO destination (url, mark) VALUES (:url, :mark) ON CONFLICT (url) DO UPDATE SET mark = :mark"
            ),
            {"url": url, "mark": mark},
        )


def sample(journal: Journal, url: str, *, size: int, active_only: bool = False) -> list[Sent]:
    """Return up to `size` deliveries to a destination: half of them the latest, the rest from all over."""
    statement = text("""
        WITH sent AS (
            SELECT d.key, f.size, row_number() OVER (ORDER BY d.delivered_us DESC, d.file_id DESC) AS place,
                count(*) OVER () AS number
            FROM delivery d JOIN file f ON f.id = d.file_id
            WHERE d.destination_id = (SELECT id FROM destination WHERE url = :url)
                AND (NOT :active_only OR f.retired_by IS NULL)
        )
        SELECT key, size FROM sent
        WHERE place <= :half OR place % max(number / :half, 1) = 0 ORDER BY place LIMIT :size
    """)
    with journal.transaction() as connection:
        chosen = {"url": url, "half": max(size // 2, 1), "size": size, "active_only": active_only}
        rows = connection.execute(statement, chosen).all()
    return [Sent(*row) for row in rows]
