"""The tables of the journal. `docs/journal.md` explains them; `migrations/` creates and changes them.

The database keeps the rules that must never break, whatever the code does: at most one active file per
modality and path, no delivery of a file that is unknown, no half-retired file, no checksum of the wrong
length. Times are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BLOB,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from chorus_upload.model import Change, CustodyState, Evidence, JournalingMode, Retirement

SCHEMA_REVISION = "0005"
"""The newest migration. A test holds it equal to Alembic's head, so that opening needs no Alembic."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def one_of(column: str, values: type[StrEnum]) -> str:
    """A check that keeps a column to the values of an enumeration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({listed})"


modality = Table(
    "modality",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

directory = Table(
    "directory",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False, unique=True),
)

version = Table(
    "version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("label", Text, nullable=False, unique=True),
    Column("mode", Text, nullable=False),
    Column("begun_us", Integer, nullable=False),
    Column("completed_us", Integer),
    Column("host", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("pruned_us", Integer),
    CheckConstraint(one_of("mode", JournalingMode), name="mode"),
)

scan = Table(
    "scan",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", Integer, ForeignKey("version.id"), nullable=False, index=True),
    Column("modality_id", Integer, ForeignKey("modality.id"), nullable=False),
    Column("root", Text, nullable=False),
    Column("begun_us", Integer, nullable=False),
    Column("completed_us", Integer, nullable=False),
    Column("files", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("added", Integer, nullable=False),
    Column("modified", Integer, nullable=False),
    Column("touched", Integer, nullable=False),
    Column("renamed", Integer, nullable=False),
    Column("retired", Integer, nullable=False),
    Column("unreadable", Integer, nullable=False),
)

mount_point = Table(
    "mount_point",
    metadata,
    Column("path", Text, primary_key=True),
)

outside_count = Table(
    "outside_count",
    metadata,
    Column("root", Text, primary_key=True),
    Column("files", Integer, nullable=False),
)
"""The number of files of a source that match no pattern, where nothing spoke against that."""

file = Table(
    "file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("modality_id", Integer, ForeignKey("modality.id"), nullable=False),
    Column("directory_id", Integer, ForeignKey("directory.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("patient", Text),
    Column("size", Integer, nullable=False),
    Column("mtime_us", Integer, nullable=False),
    Column("fingerprint", BLOB),
    Column("md5", BLOB),
    Column("unsettled", Integer, nullable=False, server_default=text("0")),
    Column("change", Text, nullable=False),
    Column("introduced_by", Integer, ForeignKey("version.id"), nullable=False, index=True),
    Column("renamed_from", Integer, ForeignKey("file.id")),
    Column("retired_by", Integer, ForeignKey("version.id")),
    Column("retirement", Text),
    CheckConstraint("name <> '' AND instr(name, '/') = 0", name="name"),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("fingerprint IS NULL OR length(fingerprint) = 16", name="fingerprint"),
    CheckConstraint("md5 IS NULL OR length(md5) = 16", name="md5"),
    CheckConstraint("unsettled IN (0, 1)", name="unsettled"),
    CheckConstraint(one_of("change", Change), name="change"),
    CheckConstraint("(change = 'renamed') = (renamed_from IS NOT NULL)", name="renamed_from"),
    CheckConstraint("(retired_by IS NULL) = (retirement IS NULL)", name="retired"),
    CheckConstraint(f"retirement IS NULL OR {one_of('retirement', Retirement)}", name="retirement"),
)
Index(
    "uq_file_active",
    file.c.directory_id,
    file.c.name,
    file.c.modality_id,
    unique=True,
    sqlite_where=file.c.retired_by.is_(None),
)
Index(
    "ix_file_retired_by",
    file.c.retired_by,
    sqlite_where=file.c.retired_by.is_not(None),
)

archive_crc32 = Table(
    "archive_crc32",
    metadata,
    Column("file_id", Integer, ForeignKey("file.id"), primary_key=True),
    Column("crc32", BLOB, nullable=False),
    CheckConstraint("length(crc32) = 4", name="crc32"),
)
"""What zip archives say of the content of their members: it tells that a member is the same without reading it."""

destination = Table(
    "destination",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url", Text, nullable=False, unique=True),
    Column("exact", Integer, nullable=False, server_default=text("1")),
    Column("mark", Text),
    CheckConstraint("exact IN (0, 1)", name="exact"),
)

submission = Table(
    "submission",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("label", Text, nullable=False, unique=True),
    Column("destination_id", Integer, ForeignKey("destination.id"), nullable=False),
    Column("begun_us", Integer, nullable=False),
    Column("completed_us", Integer),
    Column("host", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("tool_version", Text, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("file_id", Integer, ForeignKey("file.id"), primary_key=True),
    Column("destination_id", Integer, ForeignKey("destination.id"), primary_key=True),
    Column("submission_id", Integer, ForeignKey("submission.id"), nullable=False, index=True),
    Column("key", Text, nullable=False),
    Column("md5", BLOB, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("etag", Text),
    Column("delivered_us", Integer, nullable=False),
    Column("seconds", Float),
    CheckConstraint("key <> ''", name="key"),
    CheckConstraint("length(md5) = 16", name="md5"),
    CheckConstraint(one_of("evidence", Evidence), name="evidence"),
    sqlite_with_rowid=False,
)
Index("ix_delivery_key", delivery.c.destination_id, delivery.c.key)

command = Table(
    "command",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("begun_us", Integer, nullable=False),
    Column("command", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("seconds", Float),
    Column("exit_code", Integer),
)

custody = Table(
    "custody",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cloud", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("lock_id", Text),
    Column("base_etag", Text),
    Column("offered", BLOB),
    Column("implicit", Integer, nullable=False),
    Column("since_us", Integer, nullable=False),
    CheckConstraint("id = 1", name="single"),
    CheckConstraint(one_of("state", CustodyState), name="state"),
    CheckConstraint("(state = 'in') = (lock_id IS NULL)", name="lock"),
    CheckConstraint("(state = 'offered') = (offered IS NOT NULL)", name="offered"),
    CheckConstraint("implicit IN (0, 1)", name="implicit"),
)
"""Where this copy of the journal belongs, and how far its check-in has come (see `custody`)."""
