"""A vault with its token, and what its tests do with it: fund, deposit, sign clearances, look at everything."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Generator
from typing import Any

import boa
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from harness import revert_reason
from hostile_contracts import hostile_deployer
from permits import Permit, Signature
from sources import deployer_of

PRLX = 10**18
DAY_SECONDS = 86_400
DELAY_SECONDS = 86_400
DEFAULT_LIMIT_WEI = 50 * PRLX
LIMIT_WEI_MAX = 2**96 - 1
STALE, DEPOSIT_GONE, LIMIT_REACHED = 1, 2, 3
NOBODY = "0x" + "00" * 20


def key_of(name: str) -> LocalAccount:
    """A key pair that is the same in each run."""
    return Account.from_key(hashlib.sha256(name.encode()).digest())  # pyright: ignore[reportUnknownMemberType]


SETTLER = key_of("settler")
FORGER = key_of("forger")

CLEARANCE_FIELDS = [
    {"name": "account", "type": "address"},
    {"name": "amount", "type": "uint256"},
    {"name": "cumulativeSpent", "type": "uint256"},
    {"name": "nonce", "type": "uint256"},
    {"name": "expiry", "type": "uint256"},
]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Clearance:
    """What the settler signs. Amounts in wei, `expiry` in Unix seconds."""

    account: str
    amount: int
    cumulative_spent: int
    nonce: int
    expiry: int

    def arguments(
        self, vault: str, *, signer: LocalAccount = SETTLER, chain_id: int | None = None
    ) -> tuple[int, int, int, int, int, bytes, bytes]:
        """What `withdrawWithClearance` takes: the fields, then the signature for this vault on this chain."""
        domain = {
            "name": "ParalleliX CreditVault",
            "version": "1",
            "chainId": boa.env.evm.patch.chain_id if chain_id is None else chain_id,
            "verifyingContract": vault,
        }
        message = {
            "account": self.account,
            "amount": self.amount,
            "cumulativeSpent": self.cumulative_spent,
            "nonce": self.nonce,
            "expiry": self.expiry,
        }
        signed = signer.sign_message(encode_typed_data(domain, {"Clearance": CLEARANCE_FIELDS}, message))
        r, s = signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")
        return self.amount, self.cumulative_spent, self.nonce, self.expiry, signed.v, r, s


def permit_of(owner: LocalAccount, token: Any, spender: str, amount_wei: int, deadline: int) -> Signature:
    """A permit over PRLX with the owner's next nonce."""
    permit = Permit(
        token=token.address,
        chain_id=boa.env.evm.patch.chain_id,
        owner=owner.address,
        spender=spender,
        amount=amount_wei,
        nonce=token.nonces(owner.address),
        deadline=deadline,
    )
    return permit.signed_by(owner)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VaultScene:
    token: Any
    vault: Any
    owner: str
    guardian: str
    rewards: str
    treasury: str
    infrastructure: str
    accounts: list[str]
    """Whoever was funded here, so that `everything` looks at them."""

    @property
    def settler(self) -> str:
        return SETTLER.address

    def fund(self, account: str, amount_wei: int) -> None:
        """Gives the account PRLX and has it approve the vault for whatever it holds."""
        self.accounts.append(account)
        self.token.transfer(account, amount_wei, sender=self.owner)
        self.token.approve(self.vault.address, 2**256 - 1, sender=account)

    def depositor(self, name: str, deposit_wei: int) -> str:
        account = boa.env.generate_address(name)
        self.fund(account, deposit_wei)
        self.vault.deposit(deposit_wei, sender=account)
        return account

    def settle(self, *entries: tuple[str, int]) -> None:
        self.vault.settle(list(entries), sender=self.settler)

    def clearance(self, account: str, amount_wei: int, spent_wei: int = 0, *, seconds: int = 600) -> Clearance:
        """The next clearance of the account, which holds for so many seconds."""
        return Clearance(
            account=account,
            amount=amount_wei,
            cumulative_spent=spent_wei,
            nonce=self.vault.nonces(account),
            expiry=boa.env.timestamp + seconds,
        )

    def withdraw_cleared(self, clearance: Clearance) -> None:
        self.vault.withdrawWithClearance(*clearance.arguments(self.vault.address), sender=clearance.account)

    def shares(self) -> tuple[int, int, int]:
        """What operators, treasury and infrastructure hold."""
        balance = self.token.balanceOf
        return balance(self.rewards), balance(self.treasury), balance(self.infrastructure)

    def everything(self) -> dict[str, Any]:
        """All that a call to the vault could have changed."""
        vault = self.vault
        holders = {vault.address, self.owner, self.rewards, self.treasury, self.infrastructure, *self.accounts}
        return {
            "totals": (vault.totalDeposits(), vault.paused(), vault.settler(), vault.guardian()),
            "ownership": (vault.owner(), vault.pending_owner()),
            "accounts": {account: self.account(account) for account in self.accounts},
            "balances": {holder: self.token.balanceOf(holder) for holder in sorted(holders)},
        }

    def account(self, account: str) -> tuple[Any, ...]:
        vault = self.vault
        views = (vault.deposits, vault.settled, vault.settledToday, vault.nonces, vault.pendingWithdrawal)
        limits = (vault.dailyLimit, vault.pendingDailyLimit)
        return tuple(view(account) for view in (*views, *limits))

    @contextlib.contextmanager
    def refused(self, reason: str) -> Generator[None]:
        """The call inside must revert with exactly this reason and change nothing."""
        before = self.everything()
        with pytest.raises(boa.BoaError) as caught:
            yield
        assert revert_reason(caught.value) == reason
        assert self.everything() == before


def deploy_vault(
    *, exempt: bool = True, delay_seconds: int = DELAY_SECONDS, limit_wei: int = DEFAULT_LIMIT_WEI
) -> VaultScene:
    """PRLX and a vault that is exempt from its tax, unless told otherwise."""
    owner = boa.env.generate_address("owner")
    treasury = boa.env.generate_address("treasury")
    with boa.env.prank(owner):
        token = deployer_of("PRLX")(treasury)
    scene = deploy_vault_of(token, owner, treasury, delay_seconds=delay_seconds, limit_wei=limit_wei)
    if exempt:
        token.addExemption(scene.vault.address, sender=owner)
    return scene


def deploy_vault_of_hostile_token() -> VaultScene:
    """The same with `HostileToken`, whose `behave` and `callBack` say what it does."""
    owner = boa.env.generate_address("owner")
    with boa.env.prank(owner):
        token = hostile_deployer("HostileToken")()
    return deploy_vault_of(token, owner, boa.env.generate_address("treasury"))


def deploy_vault_of(
    token: Any,
    owner: str,
    treasury: str,
    *,
    delay_seconds: int = DELAY_SECONDS,
    limit_wei: int = DEFAULT_LIMIT_WEI,
) -> VaultScene:
    rewards, infrastructure, guardian = (
        boa.env.generate_address(name) for name in ("rewards", "infrastructure", "guardian")
    )
    with boa.env.prank(owner):
        vault = deployer_of("CreditVault")(
            token.address, rewards, treasury, infrastructure, SETTLER.address, guardian, delay_seconds, limit_wei
        )
    return VaultScene(
        token=token,
        vault=vault,
        owner=owner,
        guardian=guardian,
        rewards=rewards,
        treasury=treasury,
        infrastructure=infrastructure,
        accounts=[],
    )


def go_to(*, days: int = 0, second: int = 0) -> None:
    """Travels to this second of the UTC day that is so many days away; 0 means the next day that has it ahead."""
    midnight = (boa.env.timestamp // DAY_SECONDS + days) * DAY_SECONDS
    if midnight + second <= boa.env.timestamp:
        midnight += DAY_SECONDS
    boa.env.time_travel(seconds=midnight + second - boa.env.timestamp)
