"""Bindings of PRLX, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from typing import ClassVar

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views

CONTRACT = "PRLX"

CONSTRUCTOR = ("address",)


class ExemptionAdded(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("ExemptionAdded", (Field("account", "address", True),))

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


class RoleMinterChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "RoleMinterChanged",
        (
            Field("minter", "address", True),
            Field("status", "bool", False),
        ),
    )

    minter: Address
    status: bool


class Transfer(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "Transfer",
        (
            Field("sender", "address", True),
            Field("receiver", "address", True),
            Field("value", "uint256", False),
        ),
    )

    sender: Address
    receiver: Address
    value: int


class Approval(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "Approval",
        (
            Field("owner", "address", True),
            Field("spender", "address", True),
            Field("value", "uint256", False),
        ),
    )

    owner: Address
    spender: Address
    value: int


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
    ExemptionAdded,
    OwnershipTransferred,
    RoleMinterChanged,
    Transfer,
    Approval,
    OwnershipTransferStarted,
)

_DOMAIN_SEPARATOR = Function("DOMAIN_SEPARATOR", (), ("bytes32",))
_ALLOWANCE = Function("allowance", ("address", "address"), ("uint256",))
_APPROVE = Function("approve", ("address", "uint256"), ("bool",))
_BALANCE_OF = Function("balanceOf", ("address",), ("uint256",))
_DECIMALS = Function("decimals", (), ("uint8",))
_EIP712_DOMAIN = Function(
    "eip712Domain", (), ("bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]")
)
_NAME = Function("name", (), ("string",))
_NONCES = Function("nonces", ("address",), ("uint256",))
_PERMIT = Function("permit", ("address", "address", "uint256", "uint256", "uint8", "bytes32", "bytes32"))
_SYMBOL = Function("symbol", (), ("string",))
_TOTAL_SUPPLY = Function("totalSupply", (), ("uint256",))
_ACCEPT_OWNERSHIP = Function("accept_ownership", ())
_OWNER = Function("owner", (), ("address",))
_PENDING_OWNER = Function("pending_owner", (), ("address",))
_TRANSFER_OWNERSHIP = Function("transfer_ownership", ("address",))
_TRANSFER = Function("transfer", ("address", "uint256"), ("bool",))
_TRANSFER_FROM = Function("transferFrom", ("address", "address", "uint256"), ("bool",))
_TAX_RECIPIENT = Function("taxRecipient", (), ("address",))
_IS_EXEMPT = Function("isExempt", ("address",), ("bool",))
_TAX_ON = Function("taxOn", ("address", "address", "uint256"), ("uint256",))
_ADD_EXEMPTION = Function("addExemption", ("address",))
_TAX_BPS = Function("TAX_BPS", (), ("uint256",))


class PRLXViews(Views):
    """What PRLX tells anybody."""

    async def domain_separator(self) -> bytes:
        return await self._one(_DOMAIN_SEPARATOR)

    async def allowance(self, owner: Address, spender: Address) -> int:
        return await self._one(_ALLOWANCE, owner, spender)

    async def balance_of(self, account: Address) -> int:
        return await self._one(_BALANCE_OF, account)

    async def decimals(self) -> int:
        return await self._one(_DECIMALS)

    async def eip712_domain(self) -> tuple[bytes, str, str, int, Address, bytes, tuple[int, ...]]:
        return await self._all(_EIP712_DOMAIN)

    async def name(self) -> str:
        return await self._one(_NAME)

    async def nonces(self, account: Address) -> int:
        return await self._one(_NONCES, account)

    async def symbol(self) -> str:
        return await self._one(_SYMBOL)

    async def total_supply(self) -> int:
        return await self._one(_TOTAL_SUPPLY)

    async def owner(self) -> Address:
        return await self._one(_OWNER)

    async def pending_owner(self) -> Address:
        return await self._one(_PENDING_OWNER)

    async def tax_recipient(self) -> Address:
        """Who receives the tax; the same for as long as the token exists."""
        return await self._one(_TAX_RECIPIENT)

    async def is_exempt(self, account: Address) -> bool:
        """Whether transfers from and to an account pay no tax; once True, for good."""
        return await self._one(_IS_EXEMPT, account)

    async def tax_on(self, sender: Address, receiver: Address, amount: int) -> int:
        """What a transfer would pay as tax."""
        return await self._one(_TAX_ON, sender, receiver, amount)

    async def tax_bps(self) -> int:
        return await self._one(_TAX_BPS)


class PRLXCalls(Calls):
    """What an account can ask PRLX to do."""

    def approve(self, spender: Address, amount: int) -> Call:
        return self._call(_APPROVE, spender, amount)

    def permit(self, owner: Address, spender: Address, amount: int, deadline: int, v: int, r: bytes, s: bytes) -> Call:
        return self._call(_PERMIT, owner, spender, amount, deadline, v, r, s)

    def accept_ownership(self) -> Call:
        return self._call(_ACCEPT_OWNERSHIP)

    def transfer_ownership(self, new_owner: Address) -> Call:
        return self._call(_TRANSFER_OWNERSHIP, new_owner)

    def transfer(self, receiver: Address, amount: int) -> Call:
        """Takes `amount` from the caller; `receiver` gets it less the tax, which is `taxOn(caller, receiver,
        amount)`."""
        return self._call(_TRANSFER, receiver, amount)

    def transfer_from(self, sender: Address, receiver: Address, amount: int) -> Call:
        """Takes `amount` from `sender` and from what it allowed the caller; `receiver` gets it less the tax."""
        return self._call(_TRANSFER_FROM, sender, receiver, amount)

    def add_exemption(self, account: Address) -> Call:
        """Frees all transfers from and to `account` from the tax, for good."""
        return self._call(_ADD_EXEMPTION, account)
