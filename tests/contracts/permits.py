"""Permits of EIP-2612, signed by eth-account, which knows nothing of how the token hashes them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1: (r, s) and (r, order - s) are signatures of the same message by the same key."""
TYPES = {
    "Permit": [
        {"name": "owner", "type": "address"},
        {"name": "spender", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
    ]
}


class Signature(NamedTuple):
    v: int
    r: bytes
    s: bytes

    def malleated(self) -> Signature:
        """The other signature of the same message by the same key, with the high `s`."""
        return Signature(55 - self.v, self.r, (CURVE_ORDER - int.from_bytes(self.s, "big")).to_bytes(32, "big"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """What an owner signs: `amount` in wei, `deadline` in Unix seconds."""

    token: str
    chain_id: int
    owner: str
    spender: str
    amount: int
    nonce: int
    deadline: int

    def signed_by(self, account: LocalAccount) -> Signature:
        signable = encode_typed_data(
            domain_data={
                "name": "ParalleliX",
                "version": "1",
                "chainId": self.chain_id,
                "verifyingContract": self.token,
            },
            message_types=TYPES,
            message_data={
                "owner": self.owner,
                "spender": self.spender,
                "value": self.amount,
                "nonce": self.nonce,
                "deadline": self.deadline,
            },
        )
        signed = account.sign_message(signable)
        return Signature(signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"))


def signer(number: int) -> LocalAccount:
    """One of the accounts that tests sign as: the same number is always the same account."""
    return Account.from_key(number.to_bytes(32, "big"))
