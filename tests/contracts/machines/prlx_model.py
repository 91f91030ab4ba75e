"""The token in plain Python: what each call should answer, and what the books should say after it.

Each method answers the reason it is refused for and changes nothing, or None and changes the books.
"""

from __future__ import annotations

import collections
import dataclasses

SUPPLY = 100_000_000 * 10**18
TAX_BPS = 400
UNLIMITED = 2**256 - 1
ZERO_ADDRESS = "0x" + "00" * 20

NOT_ENOUGH = "erc20: transfer amount exceeds balance"
NOT_OWNER = "ownable: caller is not the owner"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SignedPermit:
    """A permit as it reaches the token: what it claims, and what was really signed by whom."""

    owner: str
    spender: str
    amount: int
    is_expired: bool
    signer: str
    signed_nonce: int
    signed_chain_id: int
    has_high_s: bool


class PrlxModel:
    def __init__(self, *, deployer: str, tax_recipient: str, chain_id: int) -> None:
        self.owner = deployer
        self.pending_owner = ZERO_ADDRESS
        self.tax_recipient = tax_recipient
        self.chain_id = chain_id
        self.balances = collections.Counter({deployer: SUPPLY})
        self.allowances: collections.Counter[tuple[str, str]] = collections.Counter()
        self.nonces: collections.Counter[str] = collections.Counter()
        self.exempt = {deployer, tax_recipient}

    def tax_on(self, sender: str, receiver: str, amount: int) -> int:
        """In wei, rounded down."""
        return 0 if self.exempt & {sender, receiver} else amount * TAX_BPS // 10_000

    def transfer(self, sender: str, receiver: str, amount: int) -> str | None:
        tax = self.tax_on(sender, receiver, amount)
        if self.balances[sender] < tax:
            return NOT_ENOUGH
        if receiver == ZERO_ADDRESS:
            return "erc20: transfer to the zero address"
        if self.balances[sender] < amount:
            return NOT_ENOUGH
        self.balances[sender] -= amount
        self.balances[self.tax_recipient] += tax
        self.balances[receiver] += amount - tax
        return None

    def transfer_from(self, spender: str, sender: str, receiver: str, amount: int) -> str | None:
        if self.allowances[sender, spender] < amount:
            return "erc20: insufficient allowance"
        if refusal := self.transfer(sender, receiver, amount):
            return refusal
        if self.allowances[sender, spender] != UNLIMITED:
            self.allowances[sender, spender] -= amount
        return None

    def approve(self, owner: str, spender: str, amount: int) -> str | None:
        if spender == ZERO_ADDRESS:
            return "erc20: approve to the zero address"
        self.allowances[owner, spender] = amount
        return None

    def permit(self, permit: SignedPermit) -> str | None:
        if permit.is_expired:
            return "erc20: expired deadline"
        if permit.has_high_s:
            return "ecdsa: invalid signature `s` value"
        signed = permit.signer, permit.signed_nonce, permit.signed_chain_id
        if signed != (permit.owner, self.nonces[permit.owner], self.chain_id):
            return "erc20: invalid signature"
        if refusal := self.approve(permit.owner, permit.spender, permit.amount):
            return refusal
        self.nonces[permit.owner] += 1
        return None

    def add_exemption(self, caller: str, account: str) -> str | None:
        if caller != self.owner:
            return NOT_OWNER
        if account == ZERO_ADDRESS:
            return "prlx: zero address"
        if account in self.exempt:
            return "prlx: already exempt"
        self.exempt.add(account)
        return None

    def transfer_ownership(self, caller: str, new_owner: str) -> str | None:
        if caller != self.owner:
            return NOT_OWNER
        self.pending_owner = new_owner
        return None

    def accept_ownership(self, caller: str) -> str | None:
        if caller != self.pending_owner:
            return "ownable_2step: caller is not the new owner"
        self.owner, self.pending_owner = caller, ZERO_ADDRESS
        return None
