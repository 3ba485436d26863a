"""Remember how many files of a source match no pattern."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outside_count",
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("root", name="pk_outside_count"),
        # Whoever puts a journal back to an earlier schema by hand knows the tables of that, and not this one.
        if_not_exists=True,
    )
