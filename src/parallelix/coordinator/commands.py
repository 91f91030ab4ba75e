"""What is asked of a coordinator on the machine that holds its store: grants and API keys. There is no administration
over HTTP: whoever can write the store may ask.

The `parallelix coordinator` commands leave a row in the store; the leader applies each one once and leaves an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from parallelix.coordinator.ports import Deposit
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import CommandRow
from parallelix.engine import challenges, events
from parallelix.engine.ledger import AMOUNT_WEI_MAX
from parallelix.protocol.accounts import KEY_SCOPES
from parallelix.protocol.canonical import decode_json
from parallelix.protocol.errors import ProtocolError
from parallelix.protocol.signing import checksum_address

POLL_SECONDS = 0.2
KEY_PREFIX = "prlx_"
"""So that scanners of public code find keys that leaked."""
KEY_BYTES = 32

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


class GrantCommand(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    amount_wei: str


class KeyCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The key itself stays with whoever asked; only its hash is stored."""

    key_id: str
    key_hash: str
    account: str
    name: str
    requests_per_minute: int = 0
    concurrency: int = 0
    budget_wei: str = "0"
    expires_at: int = 0
    scopes: str = ",".join(KEY_SCOPES)
    """Joined by commas, in the order of `protocol.accounts.SCOPES`."""


class RevokeCommand(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    message: str = ""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh API key. `secret` is shown once and stored nowhere."""

    secret: str
    key_id: str
    key_hash: str

    def __repr__(self) -> str:
        return f"NewKey({self.key_id})"


def new_key() -> NewKey:
    secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return NewKey(secret=secret, key_id=f"key_{digest[:16]}", key_hash=digest)


def command_row(kind: Literal["grant", "key", "revoke"], body: msgspec.Struct, *, now: int) -> CommandRow:
    return CommandRow(
        command_id=f"cmd_{secrets.token_hex(16)}", kind=kind, body=msgspec.json.encode(body), created_at=now
    )


class GrantDeposits:
    """The `Deposits` port where there is no vault: credits come as grants from the command line."""

    def __init__(self, coordinator: Coordinator, readers: Readers) -> None:
        self._coordinator = coordinator
        self._readers = readers
        self._pending: dict[str, CommandRow] = {}

    async def incoming(self) -> AsyncIterator[Deposit]:
        """Each grant once it is in the store. Other commands are applied on the way."""
        while True:
            for row in await self._readers.pending_commands():
                if row.command_id in self._pending:
                    continue
                deposit = await self._apply(row)
                if deposit is not None:
                    self._pending[row.command_id] = row
                    yield deposit
            await asyncio.sleep(POLL_SECONDS)

    async def booked(self, deposit: Deposit) -> None:
        await self._answer(self._pending.pop(deposit.deposit_id), CommandAnswer(ok=True))

    async def refused(self, deposit: Deposit, reason: str) -> None:
        await self._answer(self._pending.pop(deposit.deposit_id), CommandAnswer(ok=False, message=reason))

    async def _apply(self, row: CommandRow) -> Deposit | None:
        try:
            if row.kind == "grant":
                grant = decode_json(row.body, GrantCommand)
                account, amount_wei = account_name(grant.account), _amount(grant.amount_wei)
                return Deposit(deposit_id=row.command_id, account=account, amount_wei=amount_wei)
            await self._apply_key(row)
        except (ProtocolError, ValueError) as error:
            await self._answer(row, CommandAnswer(ok=False, message=str(error)))
        return None

    async def _apply_key(self, row: CommandRow) -> None:
        if row.kind == "revoke":
            revoke = decode_json(row.body, RevokeCommand)
            if revoke.key_id not in self._coordinator.engine.keys:
                raise ValueError(f"key {revoke.key_id!r} is not known here; see `parallelix coordinator key --list`")
            await self._coordinator.revoke_key(revoke.key_id)
        else:
            key = decode_json(row.body, KeyCommand)
            await self._coordinator.issue_key(
                events.KeyIssued(
                    key_id=key.key_id,
                    key_hash=key.key_hash,
                    account=account_name(key.account),
                    name=key.name,
                    requests_per_minute=key.requests_per_minute,
                    concurrency=key.concurrency,
                    budget_wei=int(key.budget_wei),
                    expires_at=key.expires_at,
                    scopes=key.scopes,
                )
            )
        await self._answer(row, CommandAnswer(ok=True))

    async def _answer(self, row: CommandRow, answer: CommandAnswer) -> None:
        applied = msgspec.structs.replace(row, applied_at=self._coordinator.clock(), answer=msgspec.json.encode(answer))
        await self._coordinator.journal.wait(self._coordinator.journal.append([applied]))


def account_name(account: str) -> str:
    """An address in mixed case, as its wallet signs in under; any other name as it is. Raises `ValueError` for the
    coordinator's own."""
    if account == challenges.ACCOUNT:
        raise ValueError(f"account {account!r} is the coordinator's own, for challenges; use another name")
    return checksum_address(bytes.fromhex(account[2:])) if _ADDRESS.fullmatch(account) else account


def _amount(text: str) -> int:
    amount_wei = int(text)
    if not 0 < amount_wei <= AMOUNT_WEI_MAX:
        raise ValueError(f"amount_wei {text}: expected 1 to {AMOUNT_WEI_MAX}")
    return amount_wei
