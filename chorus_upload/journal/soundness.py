"""Whether a database is one that this program has made: what comes from elsewhere may have been made by anybody.

A trigger, a view in the place of a table or a column that computes itself would work for whoever wrote it, and a text
where a number belongs would end a command in the middle. Neither is ever met in a journal of ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import BLOB, CheckConstraint, Column, Float, Integer, Table, Text
from sqlalchemy.types import TypeEngine

from chorus_upload.journal.schema import metadata

_LONGEST_TEXT = 1 << 24
_MOST_SECONDS = 1e12

_STRANGE = """
    SELECT type, name FROM sqlite_master
    WHERE type NOT IN ('table', 'index') OR (type = 'table' AND sql NOT LIKE 'CREATE TABLE%')
    LIMIT 1
"""
_KINDS: tuple[tuple[type[TypeEngine[Any]], tuple[str, ...]], ...] = (
    (Float, ("real", "integer")),
    (Integer, ("integer",)),
    (BLOB, ("blob",)),
    (Text, ("text",)),
)


def strange_kind(database: sqlite3.Connection) -> str | None:
    """Name something in the schema that is neither a table nor an index; None when there is nothing."""
    for kind, name in database.execute(_STRANGE):
        return f"it has a {kind} {name}"
    return None


def strange_object(database: sqlite3.Connection) -> str | None:
    """What is in the schema, or missing there, as in no journal of ours; None when nothing is."""
    if strange := strange_kind(database):
        return strange
    for table in metadata.tables.values():
        found = {name: hidden for _, name, *_, hidden in database.execute(f"PRAGMA table_xinfo('{table.name}')")}
        if found != dict.fromkeys(table.columns.keys(), 0):
            return f"its table {table.name} has other columns"
    return None


def strange_value(database: sqlite3.Connection) -> str | None:
    """What is in the tables as in no journal of ours; None when nothing is. Reads all of it."""
    for table in metadata.tables.values():
        rules = " AND ".join(_rules_of(table))
        ((is_broken,),) = database.execute(f"SELECT EXISTS (SELECT 1 FROM main.{table.name} WHERE NOT ({rules}))")
        if is_broken:
            return f"its table {table.name} holds what no chorus-upload has written"
    return None


def _rules_of(table: Table) -> Iterator[str]:
    """What holds for every row, as expressions that are never NULL."""
    for column in table.columns:
        # Each row of millions is asked, and of a list of kinds SQLite makes more work.
        name = f'"{column.name}"'
        is_right = " OR ".join(f"typeof({name}) = '{kind}'" for kind in _kinds_of(column))
        yield f"({name} IS NULL OR {is_right})" if column.nullable else f"({is_right})"
        if isinstance(column.type, Float):
            yield f"coalesce(abs({name}) < {_MOST_SECONDS}, 1)"
        if isinstance(column.type, Text):
            yield f"coalesce(length({name}) < {_LONGEST_TEXT}, 1)"
    for check in table.constraints:
        if isinstance(check, CheckConstraint):
            yield f"coalesce({check.sqltext}, 1)"


def _kinds_of(column: Column[object]) -> tuple[str, ...]:
    return next(kinds for kind, kinds in _KINDS if isinstance(column.type, kind))
