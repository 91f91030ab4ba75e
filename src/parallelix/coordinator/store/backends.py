"""The one place that knows which databases there are."""

from __future__ import annotations

from sqlalchemy import make_url

from parallelix.coordinator.store.backend import Backend
from parallelix.coordinator.store.errors import StoreUnreachable
from parallelix.coordinator.store.postgresql import PostgreSQLBackend
from parallelix.coordinator.store.sqlite import SQLiteBackend


def backend_of(url: str) -> Backend:
    """Raises `StoreUnreachable` for a URL of another kind."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SQLiteBackend(parsed)
    if parsed.get_backend_name() in {"postgresql", "postgres"}:
        return PostgreSQLBackend(parsed)
    raise StoreUnreachable(
        f"store URL of kind {parsed.get_backend_name()!r}: expected sqlite:///<file> or postgresql://<host>/<database>"
    )
