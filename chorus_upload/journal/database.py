"""Opens the SQLite file of a journal: pragmas, the writer's lock, the schema's age, and whose errors escape.

There is one writer at a time. It holds an operating system lock on `<journal>.writer`, which the system gives
back however the process ends; readers need none, because SQLite shows them the last commit.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, MultipleResultsFound, NoResultFound
from sqlalchemy.pool import StaticPool

from chorus_upload.errors import ChorusError, ConfigError, JournalError, JournalLocked, OutOfResources, SchemaTooNew
from chorus_upload.journal.schema import SCHEMA_REVISION

OLD_TABLES = frozenset({"journal", "journal_v2"})
"""What the journals of the older tool of the same name have, and ours has not."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs"}
)
"""Linux names of file systems on which SQLite's write-ahead log does not work (it needs shared memory)."""


_DESCRIPTORS = 4
"""As many as SQLite may open for a journal: the file, what is written ahead, its index, and a temporary file."""

DAMAGED_HINT = "docs/recovery.md says how to go on."

MOUNTS = Path("/proc/self/mounts")
"""Where Linux says what is mounted where."""


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and SQLAlchemy raise into errors of ours."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        raise translate(cause, path) from error
    except (MultipleResultsFound, NoResultFound) as error:
        raise JournalError(f"{path} is damaged: a row that is there once is not", hint=DAMAGED_HINT) from error
    except UnicodeEncodeError as error:
        # Only what was typed can be that: what is in the journal, or is to come into it, was looked at before.
        raise ConfigError(f"{error.object!r} is not text, so no journal has it") from error
    except UnicodeDecodeError as error:
        raise JournalError(f"{path} is damaged: it holds text that is none", hint=DAMAGED_HINT) from error


def translate(cause: BaseException | None, path: Path) -> ChorusError:
    """The one place where an SQLite error becomes ours."""
    code = getattr(cause, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalLocked(
            f"another process is writing to the journal {path}", hint="Wait for it to end, then try again."
        )
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return JournalError(f"{path} is not a journal, or it is damaged ({cause})", hint=DAMAGED_HINT)
    if code.startswith("SQLITE_FULL"):
        return JournalError(
            f"the disk is full: the journal {path} could not be written",
            hint="Everything recorded so far is safe. Make room and repeat the command.",
        )
    if code.startswith("SQLITE_CANTOPEN") and (exhausted := _exhausted()):
        return exhausted
    if code == "SQLITE_READONLY_ROLLBACK":
        return not_finished(path, f"{path.name}-journal")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return JournalError(
            f"the journal {path} cannot be written or read ({cause})", hint="Check the directory and its permissions."
        )
    if code.startswith("SQLITE_CONSTRAINT"):
        return JournalError(
            f"the journal {path} refused a change that would break its rules ({cause})", hint=DAMAGED_HINT
        )
    return JournalError(f"the journal {path} cannot be used ({cause})", hint=DAMAGED_HINT)


def not_finished(path: Path, companion: str) -> JournalError:
    """The error for a journal beside which a transaction that never ended has left a file of SQLite's."""
    return JournalError(
        f"{path} is not finished: {companion} belongs to it",
        hint=f"Open it once with the program that wrote it, or with sqlite3, so that SQLite finishes it; then repeat"
        f" the command. Neither remove {companion} nor move one without the other.",
    )


def _exhausted() -> OutOfResources | None:
    """SQLite does not say why it cannot open a file: whether it is because nobody could open any."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_DESCRIPTORS))
    except OSError as error:
        return OutOfResources.of(error)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return None


class WriterLock:
    """Exclusive use of one local journal, for as long as this object is open.

    Raises JournalLocked at once when another process has it.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + ".writer")
        try:
            # For its owner alone: whoever may read a file can lock it, and keep everybody else from the journal.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file: IO[bytes] = os.fdopen(os.open(self._path, flags, 0o600), "a+b", buffering=0)
        except OSError as error:
            raise JournalError(f"the journal {journal} cannot be written ({error.strerror})") from error
        try:
            _lock(self._file)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().decode("utf-8", "replace").strip() or "another process"
            self._file.close()
            raise JournalLocked(
                f"the journal {journal} is in use by {holder} on this machine",
                hint="Wait until it has ended. `journal list` and `file list` work meanwhile.",
            ) from None
        except OSError as error:
            self._file.close()
            raise JournalError(
                f"the file system of {journal} does not support locks ({error.strerror})",
                hint="Put the local journal on a local disk.",
            ) from error
        # For the one who is refused. On a full disk it is missing, and the journal itself will say that.
        with suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()}".encode())

    def close(self) -> None:
        """Let others in. The file stays: removing it would let two processes lock two files of one name."""
        self._file.close()


if sys.platform == "win32":  # pragma: no cover - the suite runs on POSIX
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        # The byte lies far behind the text: on Windows a locked byte cannot be read by others.
        file.seek(1 << 20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            file.seek(0)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def damage_of(database: sqlite3.Connection) -> str | None:
    """What is wrong with the structure of a database; None when it is sound. (Checks are held on the way in.)"""
    database.execute("PRAGMA ignore_check_constraints = ON")
    try:
        ((found,), *_) = database.execute("PRAGMA quick_check(1)").fetchall()
    finally:
        database.execute("PRAGMA ignore_check_constraints = OFF")
    return None if found == "ok" else str(found)


def private_file(path: Path) -> BinaryIO:
    """Open a file for writing, new or emptied, that only its owner can read: a journal names patients."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb")


def on_network_file_system(path: Path) -> bool:
    """Whether `path` lies on a file system that several machines can write to (known on Linux only)."""
    if not MOUNTS.exists():
        return False
    resolved = path.resolve()
    best, kind = -1, ""
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, mount, type_, *_ = line.split(" ")
        point = Path(mount.encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), type_
    return kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse.")


def connect(path: Path, *, read_only: bool) -> Connection:
    """A connection with transactions begun explicitly; an existing file must be an SQLite database."""
    mode = "ro" if read_only else "rwc"
    uri = f"{path.resolve().as_uri()}?mode={mode}"

    def open_file() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)

    return _connected(open_file)


def connect_copy(original: Connection) -> Connection:
    """A connection to a copy of a database in a temporary file, which is gone when it is closed."""

    def open_copy() -> sqlite3.Connection:
        copy = sqlite3.connect("", isolation_level=None)
        driver(original).backup(copy)
        return copy

    return _connected(open_copy)


def _connected(open_file: Callable[[], sqlite3.Connection]) -> Connection:
    engine: Engine = create_engine("sqlite://", creator=open_file, poolclass=StaticPool)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # Kibibytes (negative numbers) of the file, and of what is compared before it spills to disk.
        connection.execute("PRAGMA main.cache_size = -32768")
        connection.execute("PRAGMA temp.cache_size = -65536")
        connection.execute("PRAGMA wal_autocheckpoint = 16384")
        connection.execute("PRAGMA synchronous = FULL")
        # Until somebody who knows the patterns says better, no path names a version.
        connection.create_function("folder_of", 3, lambda *_: None, deterministic=True)
        harden(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine.connect()


def harden(database: sqlite3.Connection) -> None:
    """Have SQLite distrust the file: what its schema calls, and how its pages say that they are laid out."""
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")


def choose_journal_mode(connection: Connection, path: Path) -> None:
    """Write ahead where the file system can; only for a file that is known to be ours, for it changes the file."""
    mode = "DELETE" if on_network_file_system(path) else "WAL"
    driver(connection).execute(f"PRAGMA journal_mode = {mode}").fetchall()


def driver(connection: Connection) -> sqlite3.Connection:
    """The connection below SQLAlchemy's, for what must happen outside a transaction."""
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def schema_revision(connection: Connection) -> str | None:
    """The revision of the schema; None for an empty database. Raises JournalError for a foreign one."""
    tables = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
    if "alembic_version" in tables:
        revisions = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        if len(revisions) != 1:
            raise JournalError(
                f"it has {len(revisions)} revisions of its schema, where there is one", hint=DAMAGED_HINT
            )
        return str(revisions[0])
    if tables & OLD_TABLES:
        raise JournalError(
            "this journal was written by an older chorus-upload",
            hint="`chorus-upload journal upgrade` converts it and keeps the original."
            " With --local-journal FILE it converts a file on this machine.",
        )
    if tables:
        raise JournalError("this SQLite file is not a journal")
    return None


def require_known(revision: str, known: set[str]) -> None:
    """Raise SchemaTooNew unless this tool knows the revision."""
    if revision not in known:
        raise SchemaTooNew(
            f"the journal has schema {revision}, this chorus-upload knows {SCHEMA_REVISION} and older",
            hint="Install the version of chorus-upload that wrote it, or a newer one.",
        )
