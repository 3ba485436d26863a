"""Reads the journals of the older tool of the same name: two generations of tables, one kind of row.

`v1` has everything in the table `journal`; `v2` has `journal_v2`, with paths, modalities, versions and uploads
looked up in tables of their own, and no STATE. A row is active while TIME_INVALID_us is NULL, and uploaded when it
has the date of an upload. Nothing here writes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from chorus_upload.errors import JournalError
from chorus_upload.journal.database import DAMAGED_HINT, damage_of, harden, journal_errors
from chorus_upload.journal.legacy_rows import OldRow, Unusable, can_be_folder, plain_path, problem_of


class Generation(StrEnum):
    """Which tables a journal of the older tool has."""

    V1 = "v1"
    V2 = "v2"


class OldVersion(NamedTuple):
    """A version, with the times of its first and its last row; None for a version without rows."""

    label: str
    first_us: int | None
    last_us: int | None


class OldUpload(NamedTuple):
    """An upload, with the time of the latest row that it sent."""

    label: str
    latest_us: int


class OldCommand(NamedTuple):
    """A line of the history, as it is stored."""

    id: int
    when: object
    common: object
    command: object
    parameters: object
    sources: object
    destination: object
    duration: object


_ROWS = {
    Generation.V1: """
        SELECT rowid AS id, nullif(MODALITY, '') AS modality, FILEPATH AS path, PERSON_ID AS person,
            SRC_MODTIME_us AS mtime_us, SIZE AS size, lower(nullif(MD5, '')) AS md5, TIME_VALID_us AS valid_us,
            TIME_INVALID_us AS invalid_us, nullif(UPLOAD_DTSTR, '') AS upload, nullif(VERSION, '') AS version,
            STATE AS state,
            iif(coalesce(UPLOAD_DURATION, VERIFY_DURATION) IS NULL, NULL, coalesce(MD5_DURATION, 0.0)
                + coalesce(UPLOAD_DURATION, 0.0) + coalesce(VERIFY_DURATION, 0.0)) AS seconds,
            0 AS upload_is_lost
        FROM journal
    """,
    # The foreign keys of v2 were never enforced: what a row refers to may be missing.
    Generation.V2: """
        SELECT j.rowid AS id, nullif(m.MODALITY, '') AS modality,
            iif(s.SRC_PATH IN ('', '.'), '', s.SRC_PATH || '/') || j.FILENAME AS path, j.PERSON_ID AS person,
            j.SRC_MODTIME_us AS mtime_us, j.SIZE AS size, lower(nullif(j.MD5, '')) AS md5,
            j.TIME_VALID_us AS valid_us, j.TIME_INVALID_us AS invalid_us, nullif(u.UPLOAD_DT, '') AS upload,
            nullif(v.VERSION, '') AS version, NULL AS state, NULL AS seconds,
            j.UPLOAD_DT_ID IS NOT NULL AND u.id IS NULL AS upload_is_lost
        FROM journal_v2 j
        LEFT JOIN srcpaths s ON s.id = j.SRC_PATH_ID
        LEFT JOIN modalities m ON m.id = j.MODALITY_ID
        LEFT JOIN uploads u ON u.id = j.UPLOAD_DT_ID
        LEFT JOIN versions v ON v.id = j.VERSION_ID
    """,
}
# Most paths are plain, and asking costs time.
_IS_ODD = "(typeof(path) = 'text' AND (instr(path, '//') OR instr('/' || path, '/./')))"
_PLAIN_ROWS = f"""
    SELECT id, modality, iif({_IS_ODD}, plain_path(path), path) AS path, person, mtime_us, size, md5, valid_us,
        invalid_us, upload, version, state, seconds, upload_is_lost
    FROM written_row
"""
_TABLE = {Generation.V1: "journal", Generation.V2: "journal_v2"}
_HISTORY = {Generation.V1: "command_history", Generation.V2: "command_history_v2"}
_MODALITIES = {
    Generation.V1: "SELECT MODALITY FROM journal GROUP BY MODALITY ORDER BY min(rowid)",
    Generation.V2: "SELECT MODALITY FROM modalities ORDER BY id",
}
_VERSIONS = {
    Generation.V1: "SELECT VERSION AS label FROM journal GROUP BY VERSION ORDER BY min(rowid)",
    Generation.V2: "SELECT VERSION AS label FROM versions ORDER BY id",
}


def generation_of(path: Path) -> Generation | None:
    """Which journal of the older tool a file is; None for any other file, and for none."""
    if not path.is_file():
        return None
    try:
        with closing(_connect(path)) as database:
            tables = _tables(database)
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return None
    if "alembic_version" in tables:
        return None
    # A journal that the older tool had itself upgraded may have both; the newer one counts.
    return next((each for each in reversed(Generation) if _TABLE[each] in tables), None)


def moment_us(text: object) -> int | None:
    """The time that a label or a line of the history means, local where it says no zone; None for what is no time."""
    if not isinstance(text, str):
        return None
    try:
        if re.fullmatch(r"[0-9]{14}", text):
            moment = datetime.strptime(text, "%Y%m%d%H%M%S").astimezone()
        elif text.endswith(" UTC"):
            moment = datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=UTC)
        else:
            moment = datetime.fromisoformat(text).astimezone()
        return round(moment.timestamp() * 1e6)
    except (ValueError, OverflowError, OSError):
        return None


class OldJournal:
    """An open journal of the older tool. Make one with `open`, and close it (it is a context manager)."""

    def __init__(self, path: Path, generation: Generation, database: sqlite3.Connection) -> None:
        self.path = path
        self.generation = generation
        self._database = database

    @classmethod
    def open(cls, path: Path, generation: Generation, *, known_as: str) -> Self:
        """Open a file that `generation_of` has recognised, for reading only.

        Raises JournalError, in whose words the journal is `known_as`, when it is damaged or lacks columns.
        """
        with journal_errors(path):
            database = _connect(path)
            try:
                damage = damage_of(database)
                if damage is None:
                    _prepare(database, generation, known_as=known_as)
            except BaseException:
                database.close()
                raise
        if damage is not None:
            database.close()
            raise JournalError(f"{known_as} is damaged ({damage})", hint=DAMAGED_HINT)
        return cls(path, generation, database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()

    def ask(self, statement: str) -> Iterator[tuple[object, ...]]:
        """Yield the answer to a query; the rows are in the view `old_row`, and what was left out in `omitted`."""
        with journal_errors(self.path):
            yield from self._database.execute(statement)

    def count(self) -> int:
        """How many rows there are."""
        return self._number(f"SELECT count(*) FROM {_TABLE[self.generation]}")

    def count_of_other_generation(self) -> int:
        """How many rows of the generation before this one are in the file, too; nothing else is known of them."""
        others = [_TABLE[each] for each in Generation if each is not self.generation]
        return sum(self._number(f"SELECT count(*) FROM {name}") for name in others if name in _tables(self._database))

    def rows(self) -> Iterator[OldRow | Unusable]:
        """Yield all rows, those of one modality and path together, oldest first."""
        for row in self.ask("SELECT * FROM old_row ORDER BY modality, path, valid_us, id"):
            reason = problem_of(row)
            old: OldRow = OldRow._make(row)
            yield old if reason is None else Unusable(old.id, str(old.path), reason)

    def odd_paths(self) -> Iterator[str]:
        """Yield, for each row whose path is written in another way than ours are, how it is written."""
        for (path,) in self.ask(f"SELECT path FROM written_row WHERE {_IS_ODD} AND path <> plain_path(path)"):
            yield str(path)

    def omit(self, row: Unusable) -> None:
        """Note that a row cannot be taken over."""
        self._database.execute("INSERT INTO omitted VALUES (?)", (row.id,))

    def modalities(self) -> list[str]:
        """Their names, in the order in which they came."""
        named = [name for (name,) in self.ask(_MODALITIES[self.generation]) if name and isinstance(name, str)]
        return [name for name in named if can_be_folder(name)]

    def versions(self) -> list[OldVersion]:
        """All versions in the order in which they came, those without rows included; none that cannot be a folder."""
        statement = f"""
            WITH spans AS (
                SELECT version, min(valid_us) AS first_us, max(valid_us) AS last_us FROM old_row
                WHERE typeof(valid_us) = 'integer' GROUP BY version)
            SELECT l.label, s.first_us, s.last_us FROM ({_VERSIONS[self.generation]}) l
            LEFT JOIN spans s ON s.version = l.label
        """
        named = [OldVersion._make(row) for row in self.ask(statement) if row[0] and isinstance(row[0], str)]
        return [each for each in named if can_be_folder(each.label)]

    def uploads(self) -> list[OldUpload]:
        """All uploads that sent something, by their labels."""
        statement = """
            SELECT upload, max(valid_us) FROM old_row
            WHERE typeof(upload) = 'text' AND typeof(valid_us) = 'integer' GROUP BY upload ORDER BY upload
        """
        return [OldUpload._make(row) for row in self.ask(statement)]

    def count_commands(self) -> int:
        """How many lines the history has."""
        name = _HISTORY[self.generation]
        return self._number(f"SELECT count(*) FROM {name}") if name in _tables(self._database) else 0

    def commands(self) -> Iterator[OldCommand]:
        """Yield the history, oldest first."""
        name = _HISTORY[self.generation]
        if name in _tables(self._database):
            columns = "rowid, DATETIME, COMMON_PARAMS, COMMAND, PARAMS, SRC_PATHS, DEST_PATH, Duration"
            yield from map(OldCommand._make, self.ask(f"SELECT {columns} FROM {name} ORDER BY rowid"))

    def destinations(self) -> list[str]:
        """The central stores that the history names, each once."""
        places = (str(each.destination).strip() for each in self.commands() if each.destination not in (None, "None"))
        return [place for place in dict.fromkeys(places) if place]

    def _number(self, statement: str) -> int:
        ((number,),) = self.ask(statement)
        return int(str(number))


def _connect(path: Path) -> sqlite3.Connection:
    # Immutable: nobody else writes to it, and nothing may appear beside it.
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    # Kibibytes, and what is sorted in memory before it spills to the disk.
    database.execute("PRAGMA cache_size = -16384")
    harden(database)
    return database


def _prepare(database: sqlite3.Connection, generation: Generation, *, known_as: str) -> None:
    try:
        database.create_function("plain_path", 1, plain_path, deterministic=True)
        database.execute(f"CREATE TEMP VIEW written_row AS {_ROWS[generation]}")
        database.execute(f"CREATE TEMP VIEW old_row AS {_PLAIN_ROWS}")
        database.execute("CREATE TEMP TABLE omitted (id INTEGER PRIMARY KEY)")
        database.execute("SELECT * FROM old_row LIMIT 0")
    except sqlite3.OperationalError as error:
        raise JournalError(
            f"{known_as} has not the tables that an older chorus-upload makes ({error})", hint=DAMAGED_HINT
        ) from error


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
