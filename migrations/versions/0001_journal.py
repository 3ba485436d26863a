"""The first schema: versions of a tree, its files, their deliveries, and who holds the journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "command",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("begun_us", sa.Integer(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_command"),
    )
    op.create_table(
        "custody",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cloud", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lock_id", sa.Text(), nullable=True),
        sa.Column("base_etag", sa.Text(), nullable=True),
        sa.Column("offered", sa.BLOB(), nullable=True),
        sa.Column("implicit", sa.Integer(), nullable=False),
        sa.Column("since_us", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_custody_single")),
        sa.CheckConstraint("state IN ('out', 'offered', 'returned', 'in')", name=op.f("ck_custody_state")),
        sa.CheckConstraint("(state = 'in') = (lock_id IS NULL)", name=op.f("ck_custody_lock")),
        sa.CheckConstraint("(state = 'offered') = (offered IS NOT NULL)", name=op.f("ck_custody_offered")),
        sa.CheckConstraint("implicit IN (0, 1)", name=op.f("ck_custody_implicit")),
        sa.PrimaryKeyConstraint("id", name="pk_custody"),
    )
    op.create_table(
        "destination",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_destination"),
        sa.UniqueConstraint("url", name="uq_destination_url"),
    )
    op.create_table(
        "directory",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_directory"),
        sa.UniqueConstraint("path", name="uq_directory_path"),
    )
    op.create_table(
        "modality",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_modality"),
        sa.UniqueConstraint("name", name="uq_modality_name"),
    )
    op.create_table(
        "version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("begun_us", sa.Integer(), nullable=False),
        sa.Column("completed_us", sa.Integer(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("pruned_us", sa.Integer(), nullable=True),
        sa.CheckConstraint("mode IN ('full', 'append')", name=op.f("ck_version_mode")),
        sa.PrimaryKeyConstraint("id", name="pk_version"),
        sa.UniqueConstraint("label", name="uq_version_label"),
    )
    op.create_table(
        "file",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("modality_id", sa.Integer(), nullable=False),
        sa.Column("directory_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("patient", sa.Text(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("mtime_us", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.BLOB(), nullable=True),
        sa.Column("md5", sa.BLOB(), nullable=True),
        sa.Column("unsettled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("introduced_by", sa.Integer(), nullable=False),
        sa.Column("renamed_from", sa.Integer(), nullable=True),
        sa.Column("retired_by", sa.Integer(), nullable=True),
        sa.Column("retirement", sa.Text(), nullable=True),
        sa.CheckConstraint("(change = 'renamed') = (renamed_from IS NOT NULL)", name=op.f("ck_file_renamed_from")),
        sa.CheckConstraint("change IN ('added', 'modified', 'renamed')", name=op.f("ck_file_change")),
        sa.CheckConstraint("name <> '' AND instr(name, '/') = 0", name=op.f("ck_file_name")),
        sa.CheckConstraint(
            "retirement IS NULL OR retirement IN ('modified', 'renamed', 'gone', 'marked')",
            name=op.f("ck_file_retirement"),
        ),
        sa.CheckConstraint("(retired_by IS NULL) = (retirement IS NULL)", name=op.f("ck_file_retired")),
        sa.CheckConstraint("fingerprint IS NULL OR length(fingerprint) = 16", name=op.f("ck_file_fingerprint")),
        sa.CheckConstraint("md5 IS NULL OR length(md5) = 16", name=op.f("ck_file_md5")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_file_size")),
        sa.CheckConstraint("unsettled IN (0, 1)", name=op.f("ck_file_unsettled")),
        sa.ForeignKeyConstraint(["directory_id"], ["directory.id"], name="fk_file_directory_id"),
        sa.ForeignKeyConstraint(["introduced_by"], ["version.id"], name="fk_file_introduced_by"),
        sa.ForeignKeyConstraint(["modality_id"], ["modality.id"], name="fk_file_modality_id"),
        sa.ForeignKeyConstraint(["renamed_from"], ["file.id"], name="fk_file_renamed_from"),
        sa.ForeignKeyConstraint(["retired_by"], ["version.id"], name="fk_file_retired_by"),
        sa.PrimaryKeyConstraint("id", name="pk_file"),
    )
    op.create_index("ix_file_introduced_by", "file", ["introduced_by"], unique=False)
    op.create_index(
        "ix_file_retired_by", "file", ["retired_by"], unique=False, sqlite_where=sa.text("retired_by IS NOT NULL")
    )
    op.create_index(
        "uq_file_active",
        "file",
        ["directory_id", "name", "modality_id"],
        unique=True,
        sqlite_where=sa.text("retired_by IS NULL"),
    )
    op.create_table(
        "scan",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("modality_id", sa.Integer(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("begun_us", sa.Integer(), nullable=False),
        sa.Column("completed_us", sa.Integer(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("modified", sa.Integer(), nullable=False),
        sa.Column("touched", sa.Integer(), nullable=False),
        sa.Column("renamed", sa.Integer(), nullable=False),
        sa.Column("retired", sa.Integer(), nullable=False),
        sa.Column("unreadable", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["modality_id"], ["modality.id"], name="fk_scan_modality_id"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_scan_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_scan"),
    )
    op.create_index("ix_scan_version_id", "scan", ["version_id"], unique=False)
    op.create_table(
        "submission",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("begun_us", sa.Integer(), nullable=False),
        sa.Column("completed_us", sa.Integer(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["destination_id"], ["destination.id"], name="fk_submission_destination_id"),
        sa.PrimaryKeyConstraint("id", name="pk_submission"),
        sa.UniqueConstraint("label", name="uq_submission_label"),
    )
    op.create_table(
        "delivery",
        sa.Column("file_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("md5", sa.BLOB(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("delivered_us", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "evidence IN ('server', 'transit', 'readback', 'size', 'imported')", name=op.f("ck_delivery_evidence")
        ),
        sa.CheckConstraint("key <> ''", name=op.f("ck_delivery_key")),
        sa.CheckConstraint("length(md5) = 16", name=op.f("ck_delivery_md5")),
        sa.ForeignKeyConstraint(["destination_id"], ["destination.id"], name="fk_delivery_destination_id"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_delivery_file_id"),
        sa.ForeignKeyConstraint(["submission_id"], ["submission.id"], name="fk_delivery_submission_id"),
        sa.PrimaryKeyConstraint("file_id", "destination_id", name="pk_delivery"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_delivery_key", "delivery", ["destination_id", "key"], unique=False)
    op.create_index("ix_delivery_submission_id", "delivery", ["submission_id"], unique=False)
