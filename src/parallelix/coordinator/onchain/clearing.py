"""Signs what the engine has granted: an account's clearance to withdraw at once."""

from __future__ import annotations

from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Address
from parallelix.chain.clearance import Clearance, sign_clearance
from parallelix.engine.effects import ClearanceGranted
from parallelix.protocol.accounts import ClearanceView
from parallelix.protocol.encoding import to_hex


class Clearing:
    """The settler's signature, for one vault on one chain."""

    def __init__(self, settler: LocalAccount, *, vault: Address, chain_id: int) -> None:
        self._settler = settler
        self._vault = vault
        self._chain_id = chain_id

    def sign(self, granted: ClearanceGranted) -> ClearanceView:
        """Only for what is durable: its amount is frozen for as long as the signature holds. Asked again, the same."""
        clearance = Clearance(
            account=granted.account,
            amount=granted.amount_wei,
            cumulative_spent=granted.cumulative_wei,
            nonce=granted.nonce,
            expiry=granted.expiry,
        )
        signature = sign_clearance(self._settler, clearance, vault=self._vault, chain_id=self._chain_id)
        return ClearanceView(
            vault=self._vault,
            chain_id=self._chain_id,
            account=granted.account,
            amount_wei=str(granted.amount_wei),
            cumulative_spent_wei=str(granted.cumulative_wei),
            nonce=granted.nonce,
            expiry=granted.expiry,
            v=signature.v,
            r=to_hex(signature.r),
            s=to_hex(signature.s),
        )
