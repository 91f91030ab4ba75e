"""The store: opened and led by one coordinator, written by one thread.

Synchronous on purpose. `journal.Journal` runs `commit` in its writer thread, a group at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from sqlalchemy.exc import DBAPIError

from parallelix.coordinator.store import queries
from parallelix.coordinator.store.backend import Backend, DriverConnection, Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.errors import LeaseLost, StoreBusy, StoreFailed, StoreUnreachable
from parallelix.coordinator.store.loading import read_snapshot
from parallelix.coordinator.store.migrate import is_current, upgrade
from parallelix.coordinator.store.rows import CommandRow, LeaderRow
from parallelix.coordinator.store.statements import Change, Statements
from parallelix.engine.snapshot import Snapshot


class Store:
    """Made by `open`. Only one thread may use it at a time."""

    def __init__(self, backend: Backend, connection: DriverConnection) -> None:
        self.backend = backend
        self._connection = connection
        self._reading = Reading(backend, connection)
        self._statements = Statements(backend.mark)
        self._still_leading = backend.query(queries.STILL_LEADING)
        self._release: Callable[[], None] | None = None
        self._failure: str = ""
        self.epoch = 0
        self.commit_number = 0

    @classmethod
    def open(cls, url: str) -> Self:
        """Opens the store, makes it where it is not there, and migrates its schema where that is older than ours.

        `url` is `sqlite:///<file>` or `postgresql://<user>@<host>/<database>`. Raises `StoreUnreachable`,
        `StoreUnsafe`, `StoreTooNew`, and `StoreBusy` when it would have to migrate what another coordinator leads.
        """
        backend = backend_of(url)
        connection = backend.connect()
        try:
            _migrate(backend, connection)
        except BaseException as error:
            connection.close()
            # Migrations reach the driver through SQLAlchemy, which puts its own error around the driver's.
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, backend.driver_error):
                raise backend.ours(cause, StoreUnreachable) from error
            raise
        return cls(backend, connection)

    def acquire(self, instance: str) -> int:
        """Takes the lead under a new epoch, which is returned, after looking for damage.

        `instance` names this process to people. Raises `StoreBusy`, `StoreCorrupt`.
        """
        assert self._release is None, "this store leads already"
        self._release = self.backend.lead(self._connection, instance)
        try:
            self.backend.verify(self._connection)
            with self._reading.transaction(self.backend.begin_write):
                self._reading.execute(queries.FIRST_LEADER)
                self._reading.execute(queries.TAKE_LEAD, instance=instance)
                leader = self._reading.row(LeaderRow, queries.LEADER)
        except self.backend.driver_error as error:
            raise self.backend.ours(error, StoreFailed) from error
        assert leader is not None
        self.epoch, self.commit_number = leader.epoch, leader.commit_number
        return self.epoch

    def load(self, *, now: int) -> Snapshot:
        """What the engine is rebuilt from, as of `now` in Unix milliseconds."""
        try:
            with self._reading.transaction(self.backend.begin_snapshot):
                return read_snapshot(self._reading, now=now)
        except self.backend.driver_error as error:
            raise self.backend.ours(error, StoreFailed) from error

    def commit(self, changes: Sequence[Change]) -> int:
        """Writes all changes in one durable transaction, or none, and gives its number.

        The later of two changes to the same key holds. Raises `LeaseLost`, `StoreConflict`, `StoreFailed`; after any
        of them the store takes no more, because what its caller remembers may not be what it holds.
        """
        assert self.epoch, "only the leader commits: call acquire first"
        if self._failure:
            raise StoreFailed(f"an earlier commit failed, so this one is refused: {self._failure}")
        number = self.commit_number + 1
        guard = (self._still_leading, {"commit_number": number, "epoch": self.epoch})
        try:
            if not self.backend.transact(self._connection, guard, self._statements.of(changes)):
                raise LeaseLost(self.epoch)
        except BaseException as error:
            self._failure = str(error) or type(error).__name__
            raise
        self.commit_number = number
        return number

    def insert_command(self, command: CommandRow) -> None:
        """Leaves a command for the leader. Any process on this machine may, without leading. Raises `StoreFailed`."""
        try:
            with self._reading.transaction(self.backend.begin_write):
                for sql, values in self._statements.of([command]):
                    self._connection.cursor().execute(sql, values)
        except self.backend.driver_error as error:
            raise self.backend.ours(error, StoreFailed) from error

    def command(self, command_id: str) -> CommandRow | None:
        """What became of a command."""
        return self._reading.row(CommandRow, queries.COMMAND, command_id=command_id)

    def is_led(self) -> bool:
        """Whether a coordinator leads the store now, this one or another. Takes the lead for an instant to find out."""
        try:
            self.backend.lead(self._connection, "a look")()
        except StoreBusy:
            return True
        return False

    def close(self) -> None:
        """Gives up the lead."""
        if self._release is not None:
            self._release()
            self._release = None
        self._connection.close()
        self.backend.close()


def _migrate(backend: Backend, connection: DriverConnection) -> None:
    with backend.engine.connect() as looking:
        if is_current(looking):
            return
    release = backend.lead(connection, "migrating")
    try:
        with backend.engine.connect() as migrating:
            backend.begin_migration(migrating)
            if not is_current(migrating):
                upgrade(migrating)
            migrating.commit()
    finally:
        release()
