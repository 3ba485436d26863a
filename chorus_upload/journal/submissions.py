"""Submissions: one run of `file upload` after another, each to one destination.

A submission that was interrupted stays open, and the next upload to the same destination goes on with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, text, update

from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.schema import destination, submission
from chorus_upload.journal.who import Who


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission to one destination; open until its upload has run to its end, which `resumed` ones had not."""

    id: int
    label: str
    destination_id: int
    begun_us: int
    resumed: bool = False


def begin(journal: Journal, *, url: str, label: str, who: Who, resume: bool = True) -> Submission:
    """Go on (`resume`) with the submission to this destination that was interrupted, or begin one of that label.

    A label that is taken (two submissions in one second) gets a number behind it.
    """
    with journal.transaction() as connection:
        to = _ensure_destination(connection, url)
        columns = submission.c
        unfinished = connection.execute(
            select(columns.id, columns.label, columns.begun_us)
            .where(columns.destination_id == to, columns.completed_us.is_(None))
            .order_by(columns.id.desc())
            .limit(1)
        ).one_or_none()
        if unfinished and resume:
            return Submission(
                id=unfinished[0], label=unfinished[1], destination_id=to, begun_us=unfinished[2], resumed=True
            )
        taken = set(connection.execute(select(columns.label)).scalars())
        free = next(name for name in (label, *(f"{label}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
        begun = now_us()
        result = connection.execute(
            insert(submission).values(
                label=free,
                destination_id=to,
                begun_us=begun,
                host=who.host,
                user=who.user,
                tool_version=who.tool_version,
            )
        )
        new_id = int((result.inserted_primary_key or (0,))[0])
    return Submission(id=new_id, label=free, destination_id=to, begun_us=begun)


def _ensure_destination(connection: Connection, url: str) -> int:
    connection.execute(insert(destination).prefix_with("OR IGNORE").values(url=url))
    return int(connection.execute(select(destination.c.id).where(destination.c.url == url)).scalar_one())


def folders_written(journal: Journal, submission_: Submission) -> list[str]:
    """Return the version folders that a submission wrote to: called after a version, or after that in a path."""
    statement = text("""
        SELECT DISTINCT substr(d.key, 1, instr(d.key, '/') - 1) AS folder FROM delivery d
        WHERE d.submission_id = :submission ORDER BY folder
    """)
    with journal.transaction() as connection:
        return list(connection.execute(statement, {"submission": submission_.id}).scalars())


def complete(journal: Journal, submission_: Submission) -> None:
    """Close a submission: its upload ran to its end. One that delivered nothing leaves no trace."""
    with journal.transaction() as connection:
        connection.execute(update(submission).where(submission.c.id == submission_.id).values(completed_us=now_us()))
        connection.execute(
            text(
                "DELETE FROM submission WHERE id = :submission"
                " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.submission_id = :submission)"
            ),
            {"submission": submission_.id},
        )
