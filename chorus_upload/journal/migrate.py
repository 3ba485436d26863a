"""Makes the schema in a new journal, and brings that of an older one up to date with Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table

from chorus_upload.journal.schema import SCHEMA_REVISION, metadata

# As Alembic makes it.
_revisions = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def migrations_directory() -> Path:
    """Where the migrations are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def create_schema(connection: Connection) -> None:
    """Make the newest schema in an empty database, inside the caller's transaction.

    Without Alembic, whose import takes longer than most commands: a test holds the outcome equal to the migrations'.
    """
    metadata.create_all(connection, checkfirst=False)
    _revisions.create(connection)
    connection.execute(_revisions.insert().values(version_num=SCHEMA_REVISION))


def migrate(connection: Connection, *, revision: str = "head") -> None:
    """Bring the schema up to `revision` inside the caller's transaction.

    Foreign keys must be off on the connection: SQLite rewrites a table by making it anew.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["target_metadata"] = metadata
    command.upgrade(config, revision)


def known_revisions() -> set[str]:
    """Every revision that this version of the tool can migrate from."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
