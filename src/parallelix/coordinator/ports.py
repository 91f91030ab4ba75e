"""What the coordinator asks of the world behind it. On one machine: a file, its own store, and grants. On a chain: the
registry, the anchor and the vault. Each port has the few verbs its caller needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from parallelix.protocol.records import Batch
from parallelix.protocol.registry import Registration


class RegistryChanges(msgspec.Struct, frozen=True, kw_only=True):
    registrations: tuple[Registration, ...] = ()
    removed: tuple[int, ...] = ()


class Registry(Protocol):
    """Who is node N, and what changed."""

    async def load(self) -> tuple[Registration, ...]:
        """Everyone who is registered now. Raises `RegistryUnreadable`."""
        ...

    def changes(self) -> AsyncIterator[RegistryChanges]:
        """What changed since `load`, as it changes; ends only when closed."""
        ...


class Anchor(Protocol):
    """Where batches of records are committed for good."""

    address: str
    """The contract's address, or "local"."""

    async def commit(self, batch: Batch) -> str:
        """Commits a batch that is durable here and gives a reference to look it up by. Asking twice commits once."""
        ...


class Deposit(msgspec.Struct, frozen=True, kw_only=True):
    """Credits that came in. `deposit_id` is the source's own name for it and makes a repeat harmless."""

    deposit_id: str
    account: str
    amount_wei: int


class Deposits(Protocol):
    """Where credits come from."""

    def incoming(self) -> AsyncIterator[Deposit]:
        """Each credit, at least once, in the order it became final; ends only when closed."""
        ...

    async def booked(self, deposit: Deposit) -> None:
        """The ledger holds `deposit` durably; it need not come again."""
        ...

    async def refused(self, deposit: Deposit, reason: str) -> None:
        """The ledger does not take `deposit`, for this reason; it need not come again."""
        ...


class ChainNotUsable(Exception):
    """The chain that the settings name, or what is needed to speak to it, cannot be used; the message says why."""


class RegistryUnreadable(Exception):
    """The registry cannot be read or holds something that is no registration; the message says where."""
