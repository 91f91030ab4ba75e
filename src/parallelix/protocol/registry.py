"""One entry of the registry of nodes: what was staked, by whom, for which key."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import whole

MINIMUM_STAKE_WEI = 50_000 * 10**18


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """`stake_wei` is a decimal string; `cooldown_ends_at` is Unix seconds, 0 while the stake is active."""

    node_id: Annotated[str, whole("0|[1-9][0-9]{0,77}")]
    owner: Annotated[str, whole("0x[0-9a-fA-F]{40}")]
    stake_wei: Annotated[str, whole("0|[1-9][0-9]{0,77}")]
    hardware_tier: Annotated[int, Meta(ge=1, le=4)]
    node_key_hash: Annotated[str, whole("0x[0-9a-f]{64}")]
    state: Literal["active", "cooling", "retired"]
    cooldown_ends_at: Count = 0
