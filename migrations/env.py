"""Runs the migrations on the connection that `chorus_upload.journal.migrate` hands over.

There is no command-line way in: a journal is migrated by the tool that opens it, after a backup.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("target_metadata"),
    render_as_batch=True,
    transaction_per_migration=False,
)

with context.begin_transaction():
    context.run_migrations()
