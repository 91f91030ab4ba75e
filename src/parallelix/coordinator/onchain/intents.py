"""What is to be done on the chain once: an intent, all that was ever signed for it, and where it lies in the store."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import msgspec

from parallelix.chain.abi import Address, Call
from parallelix.chain.wallet import Signed
from parallelix.coordinator.store.rows import IntentRow

Role: TypeAlias = Literal["validator", "liveness", "settler"]
IntentState: TypeAlias = Literal["new", "signed", "mined", "final", "dead"]
NO_NONCE = -1


class Attempt(Signed, frozen=True, kw_only=True):
    """One signed transaction of an intent. A dearer one allows the same `gas`: asked again, the call may revert because
    an earlier attempt has done it."""

    gas: int


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts have one nonce, so at most one of them is ever mined.

    new: nothing signed. signed: may have been sent. mined: in a block that may still go away. final: in a block that
    the engine has read. dead: refused by the contract. What is over keeps its name and its transaction's hash, no more.
    """

    intent_id: str
    role: Role
    to: Address
    data: bytes
    created_at: int
    nonce: int = NO_NONCE
    attempts: tuple[Attempt, ...] = ()
    state: IntentState = "new"
    mined_block: int = 0
    transaction_hash: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in ("new", "signed", "mined")

    def signed(self, nonce: int, attempt: Attempt) -> Intent:
        attempts = (*self.attempts, attempt) if nonce == self.nonce else (attempt,)
        return msgspec.structs.replace(self, state="signed", nonce=nonce, attempts=attempts, mined_block=0)

    def mined(self, block: int) -> Intent:
        return msgspec.structs.replace(self, state="mined", mined_block=block)

    def unmined(self) -> Intent:
        return msgspec.structs.replace(self, state="signed", mined_block=0)

    def anew(self) -> Intent:
        return msgspec.structs.replace(self, state="new", nonce=NO_NONCE, attempts=(), mined_block=0)

    def over(self, state: Literal["final", "dead"], *, transaction_hash: str = "") -> Intent:
        return msgspec.structs.replace(self, state=state, transaction_hash=transaction_hash, data=b"", attempts=())

    def row(self) -> IntentRow:
        return IntentRow(
            intent_id=self.intent_id,
            role=self.role,
            nonce=self.nonce,
            to_address=self.to,
            data=self.data,
            attempts=msgspec.json.encode(self.attempts).decode(),
            state=self.state,
            mined_block=self.mined_block,
            created_at=self.created_at,
            reference=self.transaction_hash,
        )


def intent_of(row: IntentRow) -> Intent:
    return Intent(
        intent_id=row.intent_id,
        role=cast(Role, row.role),
        to=row.to_address,
        data=row.data,
        created_at=row.created_at,
        nonce=row.nonce,
        attempts=msgspec.json.decode(row.attempts, type=tuple[Attempt, ...]),
        state=cast(IntentState, row.state),
        mined_block=row.mined_block,
        transaction_hash=row.reference,
    )


def new_intent(intent_id: str, role: Role, call: Call, *, now: int) -> Intent:
    assert not call.value_wei, call
    return Intent(intent_id=intent_id, role=role, to=call.to, data=call.data, created_at=now)
