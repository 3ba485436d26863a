"""Remember what zip archives say of the content of their members."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archive_crc32",
        sa.Column("file_id", sa.Integer(), nullable=False),
        sa.Column("crc32", sa.BLOB(), nullable=False),
        sa.CheckConstraint("length(crc32) = 4", name=op.f("ck_archive_crc32_crc32")),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_archive_crc32_file_id"),
        sa.PrimaryKeyConstraint("file_id", name="pk_archive_crc32"),
    )
