from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import services
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.schema import metadata
from parallelix.coordinator.store.store import Store

ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.service)]


@pytest.fixture(params=ENGINES)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("postgresql_url")


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store without any row, once on each engine. Making the schema anew for every test would take minutes."""
    if request.param == "postgresql":
        return request.getfixturevalue("emptied_postgresql_url")
    path = tmp_path / "store.db"
    shutil.copy(request.getfixturevalue("empty_sqlite_file"), path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def empty_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "store.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: services.PostgreSQL) -> Iterator[str]:
    with postgresql_server.database() as url:
        Store.open(url).close()
        yield url


@pytest.fixture
def emptied_postgresql_url(shared_postgresql_url: str) -> str:
    with psycopg.connect(shared_postgresql_url) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
    return shared_postgresql_url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open, and leading."""
    with closing(Store.open(url)) as store:
        store.acquire("the test")
        yield store


@pytest.fixture
async def readers(url: str, store: Store) -> AsyncIterator[Readers]:
    readers = Readers.open(url)
    yield readers
    await readers.close()
