"""Permissions signed off the chain (EIP-712): the settler's clearance to withdraw, and a holder's permit to spend."""

from __future__ import annotations

from typing import Any

import msgspec
from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Address

_DOMAIN = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
_CLEARANCE = [
    {"name": "account", "type": "address"},
    {"name": "amount", "type": "uint256"},
    {"name": "cumulativeSpent", "type": "uint256"},
    {"name": "nonce", "type": "uint256"},
    {"name": "expiry", "type": "uint256"},
]
_PERMIT = [
    {"name": "owner", "type": "address"},
    {"name": "spender", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "nonce", "type": "uint256"},
    {"name": "deadline", "type": "uint256"},
]


class Clearance(msgspec.Struct, frozen=True, kw_only=True):
    """What the settler lets `account` withdraw at once. Amounts in wei, `expiry` in Unix seconds."""

    account: Address
    amount: int
    cumulative_spent: int
    nonce: int
    expiry: int


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What `owner` lets `spender` take, in wei, until `deadline` (Unix seconds)."""

    owner: Address
    spender: Address
    value: int
    nonce: int
    deadline: int


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    r: bytes
    s: bytes


def sign_clearance(settler: LocalAccount, clearance: Clearance, *, vault: Address, chain_id: int) -> Signature:
    """Signed for one vault on one chain, and of no worth at any other."""
    domain = _domain("ParalleliX CreditVault", chain_id=chain_id, contract=vault)
    message = {
        "account": clearance.account,
        "amount": clearance.amount,
        "cumulativeSpent": clearance.cumulative_spent,
        "nonce": clearance.nonce,
        "expiry": clearance.expiry,
    }
    return _sign(settler, "Clearance", _CLEARANCE, domain, message)


def sign_permit(owner: LocalAccount, permit: Permit, *, token: Address, chain_id: int) -> Signature:
    """An EIP-2612 permit for PRLX."""
    domain = _domain("ParalleliX", chain_id=chain_id, contract=token)
    return _sign(owner, "Permit", _PERMIT, domain, msgspec.structs.asdict(permit))


def _domain(name: str, *, chain_id: int, contract: Address) -> dict[str, Any]:
    return {"name": name, "version": "1", "chainId": chain_id, "verifyingContract": contract}


def _sign(
    account: LocalAccount, kind: str, fields: list[dict[str, str]], domain: dict[str, Any], message: dict[str, Any]
) -> Signature:
    signed = account.sign_typed_data(
        full_message={
            "types": {"EIP712Domain": _DOMAIN, kind: fields},
            "primaryType": kind,
            "domain": domain,
            "message": message,
        }
    )
    return Signature(v=signed.v, r=signed.r.to_bytes(32, "big"), s=signed.s.to_bytes(32, "big"))
