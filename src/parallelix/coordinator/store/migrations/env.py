"""What Alembic runs. The connection and its transaction are the store's."""

from __future__ import annotations

from alembic import context

from parallelix.coordinator.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
