"""The history of commands. Whoever records one has removed credentials from its arguments."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.schema import command
from chorus_upload.journal.who import Who
from chorus_upload.model import CommandRecord


def begin(journal: Journal, *, name: str, arguments: str, who: Who, begun_us: int | None = None) -> int:
    """Record that a command started, now if no other time is given; return its id for `end`."""
    with journal.transaction() as connection:
        result = connection.execute(
            insert(command).values(
                begun_us=now_us() if begun_us is None else begun_us,
                command=name,
                arguments=arguments,
                host=who.host,
                user=who.user,
                tool_version=who.tool_version,
            )
        )
        key = result.inserted_primary_key
    return int(key[0]) if key else 0


def end(journal: Journal, command_id: int, *, seconds: float, exit_code: int) -> None:
    """Record how long a command took and what it answered."""
    with journal.transaction() as connection:
        connection.execute(
            update(command).where(command.c.id == command_id).values(seconds=seconds, exit_code=exit_code)
        )


def history(journal: Journal) -> list[CommandRecord]:
    """Every recorded command, oldest first."""
    columns = command.c
    query = select(
        columns.begun_us,
        columns.command,
        columns.arguments,
        columns.host,
        columns.user,
        columns.tool_version,
        columns.seconds,
        columns.exit_code,
    ).order_by(columns.id)
    with journal.transaction() as connection:
        return [CommandRecord(*row) for row in connection.execute(query)]
