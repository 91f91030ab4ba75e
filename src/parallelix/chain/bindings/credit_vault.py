"""Bindings of CreditVault, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views

CONTRACT = "CreditVault"

CONSTRUCTOR = ("address", "address", "address", "address", "address", "address", "uint256", "uint256")


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    account: Address
    cumulative_spent: int


class Deposited(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "Deposited",
        (
            Field("account", "address", True),
            Field("amount", "uint256", False),
            Field("deposit", "uint256", False),
        ),
    )

    account: Address
    amount: int
    deposit: int


class WithdrawalRequested(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "WithdrawalRequested",
        (
            Field("account", "address", True),
            Field("amount", "uint256", False),
            Field("availableAt", "uint256", False),
        ),
    )

    account: Address
    amount: int
    available_at: int


class WithdrawalCancelled(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("WithdrawalCancelled", (Field("account", "address", True),))

    account: Address


class Withdrawn(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "Withdrawn",
        (
            Field("account", "address", True),
            Field("amount", "uint256", False),
            Field("deposit", "uint256", False),
            Field("nonce", "uint256", False),
            Field("cleared", "bool", False),
        ),
    )

    account: Address
    amount: int
    deposit: int
    nonce: int
    cleared: bool


class DailyLimitSet(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "DailyLimitSet",
        (
            Field("account", "address", True),
            Field("limit", "uint256", False),
            Field("effectiveFrom", "uint256", False),
        ),
    )

    account: Address
    limit: int
    effective_from: int


class SpendSettled(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SpendSettled",
        (
            Field("account", "address", True),
            Field("amount", "uint256", False),
            Field("cumulativeSettled", "uint256", False),
            Field("deposit", "uint256", False),
        ),
    )

    account: Address
    amount: int
    cumulative_settled: int
    deposit: int


class SettlementShort(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SettlementShort",
        (
            Field("account", "address", True),
            Field("cumulativeSpent", "uint256", False),
            Field("settled", "uint256", False),
            Field("reason", "uint256", False),
        ),
    )

    account: Address
    cumulative_spent: int
    settled: int
    reason: int


class SpendSplit(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SpendSplit",
        (
            Field("operators", "uint256", False),
            Field("treasury", "uint256", False),
            Field("infrastructure", "uint256", False),
        ),
    )

    operators: int
    treasury: int
    infrastructure: int


class SurplusRecovered(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("SurplusRecovered", (Field("amount", "uint256", False),))

    amount: int


class SettlerChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SettlerChanged",
        (
            Field("previous", "address", True),
            Field("current", "address", True),
        ),
    )

    previous: Address
    current: Address


class GuardianChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "GuardianChanged",
        (
            Field("previous", "address", True),
            Field("current", "address", True),
        ),
    )

    previous: Address
    current: Address


class Paused(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("Paused", (Field("account", "address", True),))

    account: Address


class Unpaused(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("Unpaused", (Field("account", "address", True),))

    account: Address


class OwnershipTransferred(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "OwnershipTransferred",
        (
            Field("previous_owner", "address", True),
            Field("new_owner", "address", True),
        ),
    )

    previous_owner: Address
    new_owner: Address


class OwnershipTransferStarted(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "OwnershipTransferStarted",
        (
            Field("previous_owner", "address", True),
            Field("new_owner", "address", True),
        ),
    )

    previous_owner: Address
    new_owner: Address


EVENTS: tuple[type[Event], ...] = (
    Deposited,
    WithdrawalRequested,
    WithdrawalCancelled,
    Withdrawn,
    DailyLimitSet,
    SpendSettled,
    SettlementShort,
    SpendSplit,
    SurplusRecovered,
    SettlerChanged,
    GuardianChanged,
    Paused,
    Unpaused,
    OwnershipTransferred,
    OwnershipTransferStarted,
)

_OWNER = Function("owner", (), ("address",))
_PENDING_OWNER = Function("pending_owner", (), ("address",))
_TRANSFER_OWNERSHIP = Function("transfer_ownership", ("address",))
_ACCEPT_OWNERSHIP = Function("accept_ownership", ())
_EIP712_DOMAIN = Function(
    "eip712Domain", (), ("bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]")
)
_DEPOSIT = Function("deposit", ("uint256",))
_DEPOSIT_WITH_PERMIT = Function("depositWithPermit", ("uint256", "uint256", "uint8", "bytes32", "bytes32"))
_WITHDRAW_WITH_CLEARANCE = Function(
    "withdrawWithClearance", ("uint256", "uint256", "uint256", "uint256", "uint8", "bytes32", "bytes32")
)
_REQUEST_WITHDRAWAL = Function("requestWithdrawal", ("uint256",))
_CANCEL_WITHDRAWAL = Function("cancelWithdrawal", ())
_WITHDRAW = Function("withdraw", ())
_SET_DAILY_LIMIT = Function("setDailyLimit", ("uint256",))
_RECOVER_SURPLUS = Function("recoverSurplus", (), ("uint256",))
_DEPOSITS = Function("deposits", ("address",), ("uint256",))
_SETTLED = Function("settled", ("address",), ("uint256",))
_SETTLED_TODAY = Function("settledToday", ("address",), ("uint256",))
_PENDING_WITHDRAWAL = Function("pendingWithdrawal", ("address",), ("uint256", "uint256"))
_DAILY_LIMIT = Function("dailyLimit", ("address",), ("uint256",))
_PENDING_DAILY_LIMIT = Function("pendingDailyLimit", ("address",), ("uint256", "uint256"))
_DOMAIN_SEPARATOR = Function("DOMAIN_SEPARATOR", (), ("bytes32",))
_SETTLE = Function("settle", ("(address,uint256)[]",))
_PAUSE = Function("pause", ())
_UNPAUSE = Function("unpause", ())
_SET_SETTLER = Function("setSettler", ("address",))
_SET_GUARDIAN = Function("setGuardian", ("address",))
_TOKEN = Function("token", (), ("address",))
_REWARDS = Function("rewards", (), ("address",))
_TREASURY = Function("treasury", (), ("address",))
_INFRASTRUCTURE = Function("infrastructure", (), ("address",))
_WITHDRAWAL_DELAY_SECONDS = Function("withdrawalDelaySeconds", (), ("uint256",))
_DEFAULT_DAILY_LIMIT = Function("defaultDailyLimit", (), ("uint256",))
_SETTLER = Function("settler", (), ("address",))
_GUARDIAN = Function("guardian", (), ("address",))
_PAUSED = Function("paused", (), ("bool",))
_TOTAL_DEPOSITS = Function("totalDeposits", (), ("uint256",))
_NONCES = Function("nonces", ("address",), ("uint256",))


class CreditVaultViews(Views):
    """What CreditVault tells anybody."""

    async def owner(self) -> Address:
        return await self._one(_OWNER)

    async def pending_owner(self) -> Address:
        return await self._one(_PENDING_OWNER)

    async def eip712_domain(self) -> tuple[bytes, str, str, int, Address, bytes, tuple[int, ...]]:
        return await self._all(_EIP712_DOMAIN)

    async def deposits(self, account: Address) -> int:
        """What the account has here, requested withdrawals included, spending not yet settled not taken off."""
        return await self._one(_DEPOSITS, account)

    async def settled(self, account: Address) -> int:
        """What was ever taken from the account's deposits for its spending."""
        return await self._one(_SETTLED, account)

    async def settled_today(self, account: Address) -> int:
        """What batches have taken from the account in this UTC day."""
        return await self._one(_SETTLED_TODAY, account)

    async def pending_withdrawal(self, account: Address) -> tuple[int, int]:
        """The account's open withdrawal request, never more than its deposit."""
        return await self._all(_PENDING_WITHDRAWAL, account)

    async def daily_limit(self, account: Address) -> int:
        """How much of the account's deposit batches may settle in this UTC day, unless the account raises it."""
        return await self._one(_DAILY_LIMIT, account)

    async def pending_daily_limit(self, account: Address) -> tuple[int, int]:
        """The lower limit that the account has set and that does not act yet."""
        return await self._all(_PENDING_DAILY_LIMIT, account)

    async def domain_separator(self) -> bytes:
        """The EIP-712 domain that clearances are signed in, for the present chain id."""
        return await self._one(_DOMAIN_SEPARATOR)

    async def token(self) -> Address:
        return await self._one(_TOKEN)

    async def rewards(self) -> Address:
        return await self._one(_REWARDS)

    async def treasury(self) -> Address:
        return await self._one(_TREASURY)

    async def infrastructure(self) -> Address:
        return await self._one(_INFRASTRUCTURE)

    async def withdrawal_delay_seconds(self) -> int:
        return await self._one(_WITHDRAWAL_DELAY_SECONDS)

    async def default_daily_limit(self) -> int:
        return await self._one(_DEFAULT_DAILY_LIMIT)

    async def settler(self) -> Address:
        return await self._one(_SETTLER)

    async def guardian(self) -> Address:
        return await self._one(_GUARDIAN)

    async def paused(self) -> bool:
        return await self._one(_PAUSED)

    async def total_deposits(self) -> int:
        return await self._one(_TOTAL_DEPOSITS)

    async def nonces(self, account: Address) -> int:
        return await self._one(_NONCES, account)


class CreditVaultCalls(Calls):
    """What an account can ask CreditVault to do."""

    def transfer_ownership(self, new_owner: Address) -> Call:
        return self._call(_TRANSFER_OWNERSHIP, new_owner)

    def accept_ownership(self) -> Call:
        return self._call(_ACCEPT_OWNERSHIP)

    def deposit(self, amount: int) -> Call:
        """Moves `amount` of the caller's tokens into the caller's deposit."""
        return self._call(_DEPOSIT, amount)

    def deposit_with_permit(self, amount: int, deadline: int, v: int, r: bytes, s: bytes) -> Call:
        """Deposits with a signed EIP-2612 permit in place of an earlier approval."""
        return self._call(_DEPOSIT_WITH_PERMIT, amount, deadline, v, r, s)

    def withdraw_with_clearance(
        self, amount: int, cumulative_spent: int, nonce: int, expiry: int, v: int, r: bytes, s: bytes
    ) -> Call:
        """Settles the caller's spending and pays out `amount` at once, with the settler's signature."""
        return self._call(_WITHDRAW_WITH_CLEARANCE, amount, cumulative_spent, nonce, expiry, v, r, s)

    def request_withdrawal(self, amount: int) -> Call:
        """Asks for `amount` without anybody's consent; `withdraw` pays it after the delay."""
        return self._call(_REQUEST_WITHDRAWAL, amount)

    def cancel_withdrawal(self) -> Call:
        """Takes the caller's withdrawal request back."""
        return self._call(_CANCEL_WITHDRAWAL)

    def withdraw(self) -> Call:
        """Pays the caller's request once the delay is over, or what settlement has left of it."""
        return self._call(_WITHDRAW)

    def set_daily_limit(self, limit: int) -> Call:
        """Sets how much a day batches may settle of the caller's deposit."""
        return self._call(_SET_DAILY_LIMIT, limit)

    def recover_surplus(self) -> Call:
        """Sends to the treasury what was sent here by a plain transfer and so belongs to no deposit."""
        return self._call(_RECOVER_SURPLUS)

    def settle(self, entries: Sequence[Spend]) -> Call:
        """Takes what accounts have spent from their deposits and splits it."""
        return self._call(_SETTLE, entries)

    def pause(self) -> Call:
        """Stops deposits and batches; no exit."""
        return self._call(_PAUSE)

    def unpause(self) -> Call:
        """Lets deposits and batches go on."""
        return self._call(_UNPAUSE)

    def set_settler(self, current: Address) -> Call:
        """Replaces the settler at once; every clearance that the previous one signed is void."""
        return self._call(_SET_SETTLER, current)

    def set_guardian(self, current: Address) -> Call:
        """Replaces the guardian at once."""
        return self._call(_SET_GUARDIAN, current)
