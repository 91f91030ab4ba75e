"""Identifiers: 32 bytes for a unit, 16 for an attempt, the on-chain uint256 for a node.

The first six bytes of the two that the coordinator makes are the time, the rest is random (`fresh_bytes`). A
request's id is `req_` and 64 hex digits, a sub-task's `sub_` and 64. A proof hashes the raw bytes; both widths are
fixed, so no two different (unit, node) pairs concatenate alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NewType

from parallelix.protocol.errors import Malformed

RequestId = NewType("RequestId", str)
UnitId = NewType("UnitId", str)
"""What one node executes. For inference it is the request's id, else a sub-task's."""
AttemptId = NewType("AttemptId", str)
NodeId = NewType("NodeId", int)

UNIT_ID_BYTES = 32
ATTEMPT_ID_BYTES = 16
TIME_BYTES = 6
"""Unix milliseconds, until the year 10889."""
NODE_ID_MAX = 2**256 - 1

_UNIT = re.compile(r"(?:req|sub)_([0-9a-f]{64})")
_ATTEMPT = re.compile(r"att_[0-9a-f]{32}")


def fresh_bytes(count: int, now: int, random_bytes: Callable[[int], bytes]) -> bytes:
    """`count` bytes for a new id: the time `now` in Unix milliseconds, and random ones.

    With the time first, what is made together lies together in every index of the store: a commit touches a few pages
    at their ends, not one random page for each row of each index. 80 random bits and more remain.
    """
    return now.to_bytes(TIME_BYTES, "big") + random_bytes(count - TIME_BYTES)


def request_id(raw: bytes) -> RequestId:
    assert len(raw) == UNIT_ID_BYTES, len(raw)
    return RequestId("req_" + raw.hex())


def sub_task_id(raw: bytes) -> UnitId:
    assert len(raw) == UNIT_ID_BYTES, len(raw)
    return UnitId("sub_" + raw.hex())


def attempt_id(raw: bytes) -> AttemptId:
    assert len(raw) == ATTEMPT_ID_BYTES, len(raw)
    return AttemptId("att_" + raw.hex())


def unit_bytes(unit_id: str) -> bytes:
    """The 32 raw bytes of a request's or sub-task's id. Raises `Malformed`."""
    match = _UNIT.fullmatch(unit_id)
    if match is None:
        raise Malformed(f"id {unit_id[:80]!r}: expected req_ or sub_ and 64 lower-case hex digits")
    return bytes.fromhex(match[1])


def node_bytes(node_id: int) -> bytes:
    """The node id as 32 big-endian bytes. Raises `Malformed` outside uint256."""
    if not 0 <= node_id <= NODE_ID_MAX:
        raise Malformed(f"node id of {node_id.bit_length()} bits: expected 0 to 2^256 - 1")
    return node_id.to_bytes(32, "big")


def is_unit_id(text: str) -> bool:
    return _UNIT.fullmatch(text) is not None


def is_attempt_id(text: str) -> bool:
    return _ATTEMPT.fullmatch(text) is not None
