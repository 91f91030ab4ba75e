from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import store_scenes as scenes
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from msgspec import structs
from sqlalchemy import inspect

from parallelix.coordinator.store import rows as own_rows
from parallelix.coordinator.store import sqlite
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.errors import StoreTooNew, StoreUnreachable, StoreUnsafe
from parallelix.coordinator.store.migrate import alembic_config
from parallelix.coordinator.store.schema import FLAG, ROW_TYPES, WHOLE, metadata
from parallelix.coordinator.store.store import Store
from parallelix.engine import rows as engine_rows
from parallelix.engine.rows import Row


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda row_type: row_type.table)
def test_a_table_has_exactly_the_columns_of_its_row(row_type: type[Row]) -> None:
    table = metadata.tables[row_type.table]
    assert {column.name for column in table.columns} == set(row_type.__struct_fields__)
    assert {column.name for column in table.primary_key.columns} == set(row_type.key)
    assert not any(column.nullable for column in table.columns)


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda row_type: row_type.table)
def test_a_column_holds_what_its_field_holds(row_type: type[Row]) -> None:
    expected: dict[object, type[object]] = {str: str, bytes: bytes, int: type(WHOLE).__mro__[0], bool: type(FLAG)}
    for field in msgspec.structs.fields(row_type):
        kind = metadata.tables[row_type.table].columns[field.name].type
        found = type(kind) if field.type in {int, bool} else kind.python_type
        assert found is expected[field.type], f"{row_type.table}.{field.name} is {kind!r}"


def test_every_row_has_a_table_and_every_table_a_row() -> None:
    defined = {
        kind
        for module in (engine_rows, own_rows)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Row) and kind is not Row
    }
    assert set(ROW_TYPES) == defined
    assert {row_type.table for row_type in ROW_TYPES} == set(metadata.tables)


def test_the_migrations_make_the_schema(new_url: str) -> None:
    Store.open(new_url).close()
    with backend_of(new_url).engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_undo_themselves(new_url: str) -> None:
    Store.open(new_url).close()
    with backend_of(new_url).engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    with backend_of(new_url).engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    Store.open(new_url).close()


def test_a_key_of_the_first_schema_may_after_the_migration_what_it_could_before(new_url: str) -> None:
    key = scenes.key("key_1")
    with closing(Store.open(new_url)) as store:
        store.acquire("the first version")
        store.commit([key])
    with backend_of(new_url).engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0001")
        assert "scopes" not in {column["name"] for column in inspect(connection).get_columns("api_keys")}
    with closing(Store.open(new_url)) as store:
        assert store.load(now=scenes.NOW).keys == (structs.replace(key, scopes="inference,read", kind="key"),)


def test_faults_stay_through_the_migration_that_frees_them_of_attempts(new_url: str) -> None:
    fault, foreign = scenes.fault(1, at=scenes.NOW), scenes.fault(2, at=scenes.NOW)
    with closing(Store.open(new_url)) as store:
        store.acquire("this version")
        store.commit([scenes.request(1), scenes.attempt(1, of=1), fault, foreign])
    with backend_of(new_url).engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0002")
        assert inspect(connection).get_foreign_keys("faults")
    with closing(Store.open(new_url)) as store:
        assert store.load(now=scenes.NOW).faults == (fault,)


def test_a_schema_from_the_future_is_refused(new_url: str) -> None:
    Store.open(new_url).close()
    with backend_of(new_url).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match="9999"):
        Store.open(new_url)


@pytest.mark.parametrize("wrong", ["sqlite://", "sqlite:///:memory:", "mysql://somewhere/store"])
def test_a_store_that_keeps_nothing_or_that_we_cannot_read_is_refused(wrong: str) -> None:
    with pytest.raises(StoreUnreachable):
        Store.open(wrong)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnreachable, match=r"ada:\*\*\*@127\.0\.0\.1") as refusal:
        Store.open("postgresql://ada:hunter2@127.0.0.1:1/store")
    assert "hunter2" not in str(refusal.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"a letter to a friend\n" * 500)
    with pytest.raises(Exception, match="damaged"):
        Store.open(f"sqlite:///{tmp_path / 'store.db'}")


def test_sqlite_is_refused_where_a_setting_does_not_take_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, "journal_mode", "unheard_of")
    with pytest.raises(StoreUnsafe, match="journal_mode"):
        Store.open(f"sqlite:///{tmp_path / 'store.db'}")


def test_postgresql_is_refused_where_it_would_acknowledge_before_it_syncs(postgresql_url: str) -> None:
    with backend_of(postgresql_url).engine.begin() as connection:
        connection.exec_driver_sql("DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database()"
                                   " || ' SET synchronous_commit = off'; END $$")  # fmt: skip
    with pytest.raises(StoreUnsafe, match="synchronous_commit is off"):
        Store.open(postgresql_url)


def test_nobody_else_on_the_machine_can_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    with closing(Store.open(f"sqlite:///{path}")) as store:
        store.acquire("the test")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
