"""How values cross to a contract and back: selectors, encoded arguments, decoded results and events.

Addresses are checksummed 0x-hex, amounts and numbers `int`, `bytes32` is `bytes`, structs are frozen classes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

import msgspec
from eth_abi.codec import ABICodec
from eth_abi.decoding import AddressDecoder
from eth_abi.exceptions import DecodingError, EncodingError
from eth_abi.registry import BaseEquals
from eth_abi.registry import registry as standard_registry
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from parallelix.chain.errors import BadArgument, BadResult

Address: TypeAlias = str
WORD_BYTES = 32
E_ = TypeVar("E_", bound="Event")


class _ChecksummedAddress(AddressDecoder):
    decoder_fn = staticmethod(to_checksum_address)


def _codec() -> ABICodec:
    registry = standard_registry.copy()
    registry.unregister_decoder("address")
    registry.register_decoder(BaseEquals("address"), _ChecksummedAddress, label="address")
    return ABICodec(registry)


_CODEC = _codec()


def encode(types: Sequence[str], values: Sequence[object], *, what: str) -> bytes:
    """Raises `BadArgument` for a value that its type cannot hold."""
    try:
        return _CODEC.encode(types, [_plain(value) for value in values])
    except (EncodingError, TypeError, ValueError, OverflowError) as error:
        raise BadArgument(what, str(error)) from error


def decode(types: Sequence[str], data: bytes, *, what: str) -> tuple[Any, ...]:
    """Raises `BadResult` for bytes that are not values of these types."""
    try:
        return _CODEC.decode(types, data)
    except (DecodingError, OverflowError, ValueError) as error:
        raise BadResult(what, str(error)) from error


def _plain(value: object) -> object:
    """Structs as the tuples that they are to a contract, in lists too."""
    if isinstance(value, msgspec.Struct):
        return tuple(_plain(each) for each in msgspec.structs.astuple(value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Sequence[object]", value)]
    return value


@dataclass(frozen=True, slots=True)
class Function:
    """One external function by its ABI types."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(self.inputs)})"

    def encode(self, arguments: Sequence[object]) -> bytes:
        return _selector(self.signature) + encode(self.inputs, arguments, what=self.signature)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        return decode(self.outputs, data, what=self.signature)


@functools.cache
def _selector(signature: str) -> bytes:
    return keccak(text=signature)[:4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a transaction asks of a contract. Making one sends nothing."""

    to: Address
    function: Function
    arguments: tuple[object, ...]
    value_wei: int = 0

    @property
    def data(self) -> bytes:
        return self.function.encode(self.arguments)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event."""

    name: str
    type: str
    indexed: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """How an event lies in a log: its indexed fields as topics, the others as data."""

    name: str
    fields: tuple[Field, ...]

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(field.type for field in self.fields)})"

    @property
    def topic(self) -> bytes:
        """The first topic of every such log."""
        return _topic(self.signature)


@functools.cache
def _topic(signature: str) -> bytes:
    return keccak(text=signature)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a contract says has happened; fields in the order of its ABI."""

    LAYOUT: ClassVar[Layout]


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A log as the chain keeps it; `log_index` is its place in the block. `block_hash` is empty where nobody asks."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    transaction_hash: str
    log_index: int
    block_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event, and the log that it was read from."""

    event: Event
    log: Log


def table_of(events: Iterable[type[Event]]) -> dict[bytes, type[Event]]:
    """Events by their first topic, for `read_log`."""
    return {event.LAYOUT.topic: event for event in events}


def read_log(log: Log, events: Mapping[bytes, type[Event]]) -> Event | None:
    """The event that a log is; none when it is not one of `events`. Raises `BadResult` for a malformed log.

    Two of our contracts have an event of one name, so look at `log.address` too, or ask for one contract's events.
    """
    kind = events.get(log.topics[0]) if log.topics else None
    return None if kind is None else _event(kind, log)


def _event(kind: type[E_], log: Log) -> E_:
    layout = kind.LAYOUT
    indexed = [field.type for field in layout.fields if field.indexed]
    if len(log.topics) != len(indexed) + 1:
        raise BadResult(layout.signature, f"{len(log.topics) - 1} indexed fields, expected {len(indexed)}")
    plain = [field.type for field in layout.fields if not field.indexed]
    topics = iter(
        decode([type_], topic, what=layout.signature)[0] for type_, topic in zip(indexed, log.topics[1:], strict=True)
    )
    values = iter(decode(plain, log.data, what=layout.signature))
    return kind(
        **{
            name: next(topics if field.indexed else values)
            for name, field in zip(kind.__struct_fields__, layout.fields, strict=True)
        }
    )


def events_of(logs: Iterable[Log], kind: type[E_], *, address: Address | None = None) -> list[E_]:
    """The events of one kind among `logs`, in order; of one contract when `address` is given."""
    return [
        _event(kind, log)
        for log in logs
        if log.topics and log.topics[0] == kind.LAYOUT.topic and address in (None, log.address)
    ]
