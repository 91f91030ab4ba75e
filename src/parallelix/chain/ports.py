"""What bindings need of a chain. `rpc.Rpc` is it over JSON-RPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from parallelix.chain.abi import Address, Call, Function, Log


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block's place in its chain. Hashes are 0x-hex, `time` is Unix seconds, `bloom` tells what its logs may be of
    (empty where the endpoint gives none)."""

    number: int
    hash: str
    parent_hash: str
    time: int
    bloom: bytes = b""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that is in a block and did not revert. `contract` is the address that it created, if any."""

    transaction_hash: str
    block_number: int
    gas_used: int
    contract: Address | None = None
    logs: tuple[Log, ...] = ()


class Chain(Protocol):
    """Reads of a chain."""

    async def call(
        self, to: Address, data: bytes, *, sender: Address | None = None, value_wei: int = 0, block: int | None = None
    ) -> bytes:
        """What a contract answers, at the newest block or at `block`. Raises `Reverted` and `ChainUnreachable`."""
        ...

    async def logs(
        self, *, addresses: Sequence[Address], topics: Sequence[bytes], first_block: int, last_block: int
    ) -> list[Log]:
        """Logs of these contracts whose first topic is one of `topics` (any, when empty), in the chain's order."""
        ...


class Sender(Protocol):
    """Somebody who can sign and pay for transactions."""

    @property
    def address(self) -> Address: ...

    async def send(self, call: Call) -> Receipt:
        """Sends, and waits until it is in a block. Raises `Reverted`, `NotMined` and `ChainUnreachable`."""
        ...


class Views:
    """The views of one deployed contract, at the newest block or at `block`."""

    def __init__(self, chain: Chain, address: Address, *, block: int | None = None) -> None:
        self.chain = chain
        self.address = address
        self.block = block

    async def _all(self, function: Function, *arguments: object) -> tuple[Any, ...]:
        data = await self.chain.call(self.address, function.encode(arguments), block=self.block)
        return function.decode(data)

    async def _one(self, function: Function, *arguments: object) -> Any:
        (value,) = await self._all(function, *arguments)
        return value


class Calls:
    """The functions of one deployed contract that change something, as calls to hand to a `Sender`."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def _call(self, function: Function, *arguments: object, value_wei: int = 0) -> Call:
        return Call(to=self.address, function=function, arguments=arguments, value_wei=value_wei)


async def answer(chain: Chain, call: Call, *, sender: Address, block: int | None = None) -> Any:
    """What a call would return if `sender` sent it now: a value, or a tuple of several. Nothing is sent."""
    data = await chain.call(call.to, call.data, sender=sender, value_wei=call.value_wei, block=block)
    values = call.function.decode(data)
    return values[0] if len(values) == 1 else values
