"""The journal itself: one SQLite file, opened, migrated, copied and closed here.

What is in it is read and written by the functions of the neighbouring modules, each of which takes a
Journal: `versions`, `observation`, `deliveries`, `commands`, `custody`. A Journal belongs to one thread.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from chorus_upload.errors import ChorusError, JournalError, JournalNotCheckedOut
from chorus_upload.journal.database import (
    DAMAGED_HINT,
    WriterLock,
    choose_journal_mode,
    connect,
    connect_copy,
    damage_of,
    driver,
    journal_errors,
    private_file,
    require_known,
    schema_revision,
)
from chorus_upload.journal.migrate import create_schema, known_revisions, migrate
from chorus_upload.journal.schema import SCHEMA_REVISION
from chorus_upload.journal.soundness import strange_kind, strange_object, strange_value


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


class Journal:
    """An open journal. Use `Journal.open` or `Journal.create`, and close it (it is a context manager)."""

    def __init__(
        self, path: Path, connection: Connection, lock: WriterLock | None, *, is_read_only: bool = False
    ) -> None:
        self.path = path
        self.is_read_only = is_read_only
        self.is_older = False
        """Whether the file has the schema of an earlier release, and a copy of it is read."""
        self._connection = connection
        self._is_within = False
        self._lock = lock

    @classmethod
    def create(cls, path: Path, *, hold: WriterLock | None = None) -> Self:
        """Make a new, empty journal and open it for writing. Raises JournalError when the file exists.

        `hold` is as for `open`.
        """
        if path.exists():
            raise JournalError(f"{path} exists already")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            private_file(path).close()
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror or error}") from error
        return cls._open(path, read_only=False, hold=hold)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, hold: WriterLock | None = None) -> Self:
        """Open an existing journal. The schema of an older version of this tool is migrated, after a backup.

        `hold` is a writer's lock that the caller has, and keeps when the journal is closed.

        Raises JournalNotCheckedOut when there is none, JournalLocked when another process writes to it,
        SchemaTooNew, and JournalError when it is damaged or of the older tool.
        """
        if not path.exists():
            raise JournalNotCheckedOut(f"there is no journal at {path}", hint="`journal checkout` fetches it.")
        return cls._open(path, read_only=read_only, hold=hold)

    @classmethod
    def examine(cls, path: Path, *, known_as: str, with_values: bool = True) -> None:
        """Make sure that a file is a sound journal of a known schema, without changing it.

        Every value in it is looked at, too, unless it is not worth the time: where nothing will be written.
        Raises JournalError or SchemaTooNew, in whose words the journal is `known_as`.
        """
        try:
            with journal_errors(path), ExitStack() as opened:
                connection = opened.enter_context(_closing(connect(path, read_only=True)))
                with connection.begin():
                    revision = schema_revision(connection)
                damage = damage_of(driver(connection))
                if revision not in (None, SCHEMA_REVISION):
                    require_known(revision, known_revisions())
                    if damage is None:
                        connection = opened.enter_context(_closing(_migrated_copy(path, connection)))
                if damage is None and revision is not None:
                    damage = strange_object(driver(connection))
                if damage is None and revision is not None and with_values:
                    damage = strange_value(driver(connection))
        except JournalError as error:
            raise type(error)(f"{known_as}: {error.message}", hint=error.hint) from error
        if revision is None:
            raise JournalError(f"{known_as} is empty, and not a journal", hint=DAMAGED_HINT)
        if damage is not None:
            raise JournalError(f"{known_as} is damaged ({damage})", hint=DAMAGED_HINT)

    @classmethod
    def _open(cls, path: Path, *, read_only: bool, hold: WriterLock | None) -> Self:
        lock = None if read_only or hold else WriterLock(path)
        is_older = False
        try:
            with journal_errors(path):
                connection = connect(path, read_only=read_only)
                try:
                    is_older = _bring_up_to_date(path, connection, read_only=read_only)
                    if is_older:
                        with _closing(connection):
                            connection = _migrated_copy(path, connection)
                except BaseException:
                    _close(connection)
                    raise
        except BaseException:
            if lock:
                lock.close()
            raise
        journal = cls(path, connection, lock, is_read_only=read_only)
        journal.is_older = is_older
        return journal

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when an exception leaves it."""
        with journal_errors(self.path), self._blamed(), self._at_rest(), self._connection.begin():
            yield self._connection

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Before the block no transaction is open, although an interruption may have come while one was ended.

        Within a transaction it changes nothing: to begin another there is a defect, and has to show as one.
        """
        was_within, self._is_within = self._is_within, True
        try:
            if not was_within:
                if self._connection.in_transaction():
                    self._connection.rollback()
                if driver(self._connection).in_transaction:
                    driver(self._connection).rollback()
            yield
        finally:
            self._is_within = was_within

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """An error that is none of ours, while the journal is damaged, has that for its reason: a JournalError."""
        try:
            yield
        except (ChorusError, SQLAlchemyError, sqlite3.Error, UnicodeError):
            raise
        except Exception as error:
            with journal_errors(self.path):
                database = driver(self._connection)
                damage = None if self._connection.closed else damage_of(database) or strange_value(database)
            if damage is None:
                raise
            raise JournalError(f"the journal {self.path} is damaged ({damage})", hint=DAMAGED_HINT) from error

    def copy_to(self, target: Path) -> None:
        """Write a consistent, compacted copy to `target`, which must not exist, and check it.

        The copy belongs to nobody: whose this file is (`custody`) stays behind. Raises JournalError when the
        journal is damaged.
        """
        with journal_errors(self.path):
            # Of what is damaged a copy may look whole.
            damage = damage_of(driver(self._connection))
            if damage is None:
                driver(self._connection).execute("VACUUM INTO ?", (str(target),))
                with closing(sqlite3.connect(target)) as copy, copy:
                    copy.execute("DELETE FROM custody")
                    damage = damage_of(copy)
        if damage is not None:
            raise JournalError(f"the journal {self.path} is damaged ({damage})", hint=DAMAGED_HINT)

    @contextmanager
    def beside(self, other: Path) -> Iterator[None]:
        """In this block the tables of another journal can be read as `other.…`."""
        connection = driver(self._connection)
        with journal_errors(other):
            connection.execute("ATTACH ? AS other", (f"{other.resolve().as_uri()}?mode=ro",))
        try:
            yield
        finally:
            with journal_errors(other):
                connection.execute("DETACH other")

    def problems(self) -> list[str]:
        """What SQLite finds wrong with the file, and dangling references; empty when it is sound."""
        with self.transaction() as connection:
            found = [row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok"]
            dangling = connection.execute(text("PRAGMA foreign_key_check")).all()
        return found + [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in dangling]

    def close(self) -> None:
        """Close the file and let other writers in."""
        try:
            _close(self._connection)
        finally:
            if self._lock:
                self._lock.close()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with closing(self):
            if error is not None:
                with self._blamed():
                    raise error


@contextmanager
def _closing(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    finally:
        _close(connection)


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except SQLAlchemyError:
        # The connection is broken (a full disk, say); what is committed is safe, the rest is lost anyway.
        connection.invalidate()
    connection.engine.dispose()


def _bring_up_to_date(path: Path, connection: Connection, *, read_only: bool) -> bool:
    """Have the newest schema in a journal; return whether only a copy of it may get that, as it is only read."""
    try:
        with connection.begin():
            revision = schema_revision(connection)
    except JournalError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
    if revision not in (None, SCHEMA_REVISION):
        require_known(revision, known_revisions())
    if revision == SCHEMA_REVISION and (strange := strange_object(driver(connection))):
        raise JournalError(f"{path} is damaged ({strange})", hint=DAMAGED_HINT)
    if not read_only:
        choose_journal_mode(connection, path)
    if revision == SCHEMA_REVISION:
        return False
    if revision is None:
        with connection.begin():
            create_schema(connection)
        return False
    if read_only:
        return True
    _keep_copy(path, connection, path.with_name(f"{path.name}.schema-{revision}.backup"))
    _migrate(path, connection)
    return False


def _migrated_copy(path: Path, old: Connection) -> Connection:
    """Return a copy of a journal with the newest schema, which SQLite keeps in a file without a name."""
    copy = connect_copy(old)
    try:
        _migrate(path, copy)
    except BaseException:
        _close(copy)
        raise
    return copy


def _migrate(path: Path, connection: Connection) -> None:
    # A trigger would work as soon as a row is touched.
    if strange := strange_kind(driver(connection)):
        raise JournalError(f"{path} is damaged ({strange})", hint=DAMAGED_HINT)
    # A pragma has no effect inside a transaction, and SQLAlchemy would begin one.
    driver(connection).execute("PRAGMA foreign_keys = OFF")
    with connection.begin():
        migrate(connection)
        # Alembic finds no steps, and says nothing, where it cannot list them.
        if schema_revision(connection) != SCHEMA_REVISION:
            raise JournalError(
                f"the steps that lead the journal {path} to schema {SCHEMA_REVISION} were not found",
                hint="Can this program read its own files, and open enough of them (`ulimit -n`)?",
            )
    driver(connection).execute("PRAGMA foreign_keys = ON")


def _keep_copy(path: Path, connection: Connection, backup: Path) -> None:
    """Keep the file as it is, with all that a killed process had committed, and for its owner only."""
    # A file that has been told a moment ago to write ahead is "locked" for a checkpoint until it was read.
    driver(connection).execute("SELECT count(*) FROM sqlite_master").fetchall()
    driver(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("rb") as source, private_file(backup) as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
