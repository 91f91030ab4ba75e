"""Brings a store's schema up to this software's, in one transaction, by the migrations beside this file."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from parallelix.coordinator.store.errors import StoreTooNew

MIGRATIONS = Path(__file__).with_name("migrations")


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def is_current(connection: Connection) -> bool:
    """Raises `StoreTooNew` when the schema is one that this software does not know."""
    scripts = ScriptDirectory.from_config(alembic_config())
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreTooNew(
            f"the store's schema is {revision}, and this software knows none later than"
            f" {scripts.get_current_head()}: run the version that last opened it, or a later one"
        )
    return revision == scripts.get_current_head()


def upgrade(connection: Connection) -> None:
    """Inside a transaction that the caller began and will commit."""
    command.upgrade(alembic_config(connection), "head")
