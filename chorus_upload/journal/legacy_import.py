"""Takes a journal of the older tool over into a new one of ours.

::

    rows of one path ──▶ contents (`legacy_lives`) ──▶ file, delivery          versions, uploads, history beside them

Every row of the old journal ends in a row of `file`, which has the number of the first row of its content, or is
handed to `on_unusable`. Rows are read and written in a stream, so memory stays flat. `legacy_proof` counts both sides.
"""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Table, insert

from chorus_upload.events import UpgradeRemark
from chorus_upload.journal.checking import FUTURE_US
from chorus_upload.journal.database import connect, driver, journal_errors, private_file
from chorus_upload.journal.diff import CLOCK_GRAIN_US
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.legacy import OldJournal, moment_us
from chorus_upload.journal.legacy_history import Redact, command_of
from chorus_upload.journal.legacy_lives import Life, lives_of
from chorus_upload.journal.legacy_rows import OldRow, Unusable
from chorus_upload.journal.migrate import create_schema
from chorus_upload.journal.schema import command, destination, modality, submission, version
from chorus_upload.model import Evidence, JournalingMode

BATCH_ROWS = 10_000
EXAMPLES = 5

UNKNOWN = "unknown"
"""The older tool recorded neither hosts nor users."""

_FILE = """
    INSERT INTO file (id, modality_id, directory_id, name, patient, size, mtime_us, md5, unsettled, change,
        introduced_by, retired_by, retirement)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_DELIVERY = """
    INSERT INTO delivery (file_id, destination_id, submission_id, key, md5, evidence, delivered_us, seconds)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class Placed(NamedTuple):
    """What the configuration of today makes of a file; None where the path does not match its pattern."""

    key: str | None
    patient: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an old journal does not say.

    `destination` is the URL of the central store that its uploads went to, `place` is asked for modality, path and
    version, `redact` masks credentials in the history, `on_unusable` is told of every row that is left out.
    """

    destination: str
    mode: JournalingMode
    place: Callable[[str, str, str], Placed]
    redact: Redact
    on_unusable: Callable[[Unusable], None]


@contextmanager
def new_journal(path: Path) -> Iterator[Journal]:
    """A new, empty journal to be filled. At the end of the block it is safe on the disk; a failure leaves rubbish."""
    with journal_errors(path):
        private_file(path).close()
        connection = connect(path, read_only=False)
        try:
            # It is worth nothing before it is complete. Foreign keys are examined as a whole, at the end.
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF"):
                driver(connection).execute(f"PRAGMA {pragma}")
            with connection.begin():
                create_schema(connection)
            yield Journal(path, connection, None)
        finally:
            connection.close()
            connection.engine.dispose()
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def take_over(journal: Journal, old: OldJournal, terms: Terms) -> tuple[UpgradeRemark, ...]:
    """Fill a new journal with everything that an old one holds; gives what was decided on the way."""
    with journal.transaction() as connection:
        takeover = _TakeOver(connection, old, terms)
        with _indexes_made_later(driver(connection)):
            takeover.add_files()
        takeover.add_commands()
    return takeover.remarks()


@contextmanager
def _indexes_made_later(database: sqlite3.Connection) -> Iterator[None]:
    """Fill tables without their indexes, which are made at the end: it is quicker to sort once."""
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('file', 'delivery')"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    yield
    for _, sql in indexes:
        database.execute(sql)


class _TakeOver:
    def __init__(self, connection: Connection, old: OldJournal, terms: Terms) -> None:
        self._connection = connection
        # Below SQLAlchemy, whose rows cost more than the tuples that they are made of.
        self._driver = driver(connection)
        self._old = old
        self._terms = terms
        self._remarks: dict[str, UpgradeRemark] = {}
        # The older tool recorded neither hosts nor users.
        self._nobody = {"host": UNKNOWN, "user": UNKNOWN, "tool_version": f"older ({old.generation})"}
        self._destination = self._insert(destination, url=terms.destination)
        self._modalities = {name: self._insert(modality, name=name) for name in old.modalities()}
        self._begun: list[int] = []
        self._labels: list[str] = []
        self._versions = dict(self._add_versions())
        self._submissions = dict(self._add_submissions())
        self._directory = lru_cache(maxsize=10_000)(self._find_directory)

    def remarks(self) -> tuple[UpgradeRemark, ...]:
        return tuple(self._remarks.values())

    def _remark(self, reason: str, example: str) -> None:
        """Note a decision, where the old journal left one to be made: counted, with the first examples."""
        known = self._remarks.get(reason, UpgradeRemark(reason, 0, ()))
        examples = (*known.examples, example) if len(known.examples) < EXAMPLES else known.examples
        self._remarks[reason] = UpgradeRemark(reason, known.count + 1, examples)

    def _insert(self, table: Table, **values: object) -> int:
        result = self._connection.execute(insert(table).values(**values))
        return int((result.inserted_primary_key or (0,))[0])

    def _add_versions(self) -> Iterator[tuple[str, int]]:
        found = self._old.versions()
        # Their order counts, whatever a clock said; and one without rows has no time of its own.
        begun = min((each.first_us for each in found if each.first_us is not None), default=0)
        for each in found:
            begun = max(begun, each.first_us or 0)
            completed = max(begun, each.last_us or 0)
            self._begun.append(begun)
            self._labels.append(each.label)
            yield (
                each.label,
                self._insert(
                    version,
                    label=each.label,
                    mode=self._terms.mode,
                    begun_us=begun,
                    completed_us=completed,
                    **self._nobody,
                ),
            )

    def _version_at(self, time_us: int) -> str | None:
        place = bisect_right(self._begun, time_us)
        return self._labels[place - 1] if place else None

    def _add_submissions(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Number and time of each submission, by its label."""
        for label, latest_us in self._old.uploads():
            moment, now = moment_us(label), now_us()
            if moment is None:
                self._remark("an upload has no date that can be read; it gets the time of what it sent", label)
                moment = latest_us
            elif moment > now + FUTURE_US:
                self._remark("an upload has a date that is still to come; it gets the time of what it sent", label)
                moment = latest_us
            moment = min(moment, now + FUTURE_US)
            number = self._insert(
                submission,
                label=label,
                destination_id=self._destination,
                begun_us=moment,
                completed_us=moment,
                **self._nobody,
            )
            yield label, (number, moment)

    def add_files(self) -> None:
        """Add all files with their deliveries."""
        files: list[tuple[object, ...]] = []
        deliveries: list[tuple[object, ...]] = []
        for path in self._old.odd_paths():
            self._remark("a path is written in another way (`./x`, `a//b`); it is taken for the plain one", path)
        for life in self._lives():
            placed = self._terms.place(life.first.modality, life.first.path, life.first.version)
            files.append(self._file(life, placed))
            if life.upload is not None:
                if life.last.md5 is None:
                    self._remark(
                        "a file was uploaded, but has no MD5: it counts as not uploaded, and is recognised in the"
                        " central store by the next upload",
                        life.first.path,
                    )
                else:
                    deliveries.append(self._delivery(life, placed))
            if len(files) >= BATCH_ROWS:
                self._write(files, deliveries)
        self._write(files, deliveries)
        self._connection.exec_driver_sql("DELETE FROM submission WHERE id NOT IN (SELECT submission_id FROM delivery)")

    def _write(self, files: list[tuple[object, ...]], deliveries: list[tuple[object, ...]]) -> None:
        self._driver.executemany(_FILE, files)
        self._driver.executemany(_DELIVERY, deliveries)
        files.clear()
        deliveries.clear()

    def _lives(self) -> Iterator[Life]:
        for _, rows in groupby(self._usable(), key=lambda row: (row.modality, row.path)):
            for life in lives_of(rows, mode=self._terms.mode, version_at=self._version_at):
                if life.is_duplicate:
                    self._remark("a file was active twice: the older row is retired", life.first.path)
                yield life

    def _usable(self) -> Iterable[OldRow]:
        for row in self._old.rows():
            if isinstance(row, Unusable):
                self._old.omit(row)
                self._terms.on_unusable(row)
            else:
                yield row

    def _retired_by(self, life: Life) -> int | None:
        """The number of the version that retires a content: with the older tool an earlier one might be added to."""
        if life.retired_by is None:
            return None
        introduced, retired = self._versions[life.first.version], self._versions[life.retired_by]
        if retired < introduced:
            self._remark(
                "a file was retired by a version older than its own; it counts as retired by its own", life.first.path
            )
        return max(introduced, retired)

    def _file(self, life: Life, placed: Placed) -> tuple[object, ...]:
        first, last = life.first, life.last
        directory, _, name = first.path.rpartition("/")
        person = None if first.person is None else str(first.person)
        return (
            first.id,
            self._modalities[first.modality],
            self._directory(directory),
            name,
            placed.patient or person,
            last.size,
            last.mtime_us,
            None if last.md5 is None else bytes.fromhex(last.md5),
            # As young as that when it was read, it may have changed once more under the same time.
            int(last.mtime_us >= last.valid_us - CLOCK_GRAIN_US),
            life.change.value,
            self._versions[first.version],
            self._retired_by(life),
            None if life.retirement is None else life.retirement.value,
        )

    def _delivery(self, life: Life, placed: Placed) -> tuple[object, ...]:
        first, number, moment = life.first, *self._submissions[life.upload or ""]
        key = placed.key
        if key is None:
            self._remark("the path of an uploaded file does not match its pattern: its key is a guess", first.path)
            key = f"{first.version}/{first.path}"
        md5 = bytes.fromhex(life.last.md5 or "")
        return first.id, self._destination, number, key, md5, Evidence.IMPORTED.value, moment, life.seconds

    def _find_directory(self, path: str) -> int:
        found = self._driver.execute("SELECT id FROM directory WHERE path = ?", (path,)).fetchone()
        if found is not None:
            return int(found[0])
        return int(self._driver.execute("INSERT INTO directory (path) VALUES (?)", (path,)).lastrowid or 0)

    def add_commands(self) -> None:
        """Add the history."""
        time_us = 0
        for old in self._old.commands():
            if moment_us(old.when) is None:
                self._remark("a command has no date that can be read; it gets that of the one before", str(old.when))
            time_us, name, arguments, seconds = command_of(old, redact=self._terms.redact, not_before_us=time_us)
            self._insert(
                command,
                id=old.id,
                begun_us=time_us,
                command=name,
                arguments=arguments,
                seconds=seconds,
                **self._nobody,
            )
