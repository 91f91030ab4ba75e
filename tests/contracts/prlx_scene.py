"""A token just deployed, with some of it in the hands of accounts that pay tax."""

from __future__ import annotations

import dataclasses
from typing import Any

import boa
from permits import signer
from sources import deployer_of

SUPPLY = 100_000_000 * 10**18
HELD_BY_ALICE = 1_000_000
ZERO_ADDRESS = "0x" + "00" * 20

DEPLOYER, TREASURY, ALICE, BOB, CAROL, LOCKER = (signer(number).address for number in range(1, 7))
ALICE_SIGNS, BOB_SIGNS = signer(3), signer(4)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Balances:
    deployer: int
    treasury: int
    alice: int
    bob: int


def deploy_token(*, tax_recipient: str = TREASURY) -> Any:
    """A new PRLX: `DEPLOYER` owns it and holds the supply."""
    with boa.env.prank(DEPLOYER):
        return deployer_of("PRLX").deploy(tax_recipient)


def deploy_funded_token() -> Any:
    """A new PRLX of which Alice has `HELD_BY_ALICE` wei."""
    token = deploy_token()
    token.transfer(ALICE, HELD_BY_ALICE, sender=DEPLOYER)
    return token


def balances_of(token: Any) -> Balances:
    return Balances(
        deployer=token.balanceOf(DEPLOYER),
        treasury=token.balanceOf(TREASURY),
        alice=token.balanceOf(ALICE),
        bob=token.balanceOf(BOB),
    )


def moved(sender: str, receiver: str, amount: int) -> tuple[str, dict[str, Any]]:
    return "Transfer", {"sender": sender, "receiver": receiver, "value": amount}


def allowed(owner: str, spender: str, amount: int) -> tuple[str, dict[str, Any]]:
    return "Approval", {"owner": owner, "spender": spender, "value": amount}
