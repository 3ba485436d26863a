"""Destinations are named with their service, and directories by the mark that they carry.

The names that are there say neither. They stay, as names that are not exact: each is taken for the first place of the
configuration that it fits, so that nothing is sent again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("destination", recreate="always") as table:
        table.add_column(sa.Column("exact", sa.Integer(), server_default=sa.text("1"), nullable=False))
        table.add_column(sa.Column("mark", sa.Text(), nullable=True))
        table.create_check_constraint(op.f("ck_destination_exact"), "exact IN (0, 1)")
    # A directory is named by its path, which says it all.
    op.execute("UPDATE destination SET exact = 0 WHERE url LIKE '%://%'")
