"""Anyone may ask what the registry says of a node."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hand_driven import CHAIN_ID, COOLING, UNSTAKED, scene

from parallelix.protocol import messages
from parallelix.protocol.encoding import to_hex


async def test_the_standing_of_a_node_is_told_unsigned(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:

        async def standing(node_id: str) -> messages.Standing:
            answer = await on.first.http.get(f"/operator/standing?nodeId={node_id}")
            assert answer.status_code == 200, answer.text
            return msgspec.json.decode(answer.content, type=messages.Standing)

        node = on.first
        active = await standing(str(node.node_id))
        assert (active.node_id, active.state, active.chain_id) == (str(node.node_id), "active", CHAIN_ID)
        assert (active.node_key_hash, active.hardware_tier) == (to_hex(node.key.key_hash), 2)
        assert (active.contracts, active.block) == ({}, None), "this network is on no chain"
        cooling = await standing(str(COOLING))
        assert cooling.state == "cooling"
        assert cooling.cooldown_ends_at == on.coordinator.engine.registrations[COOLING].cooldown_ends_at
        unknown = await standing(str(UNSTAKED))
        assert (unknown.state, unknown.node_key_hash, unknown.hardware_tier) == ("unknown", "", 0)


async def test_what_is_no_node_id_is_malformed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        for query in ("", "?nodeId=", "?nodeId=-1", "?nodeId=0x1", "?nodeId=" + "9" * 79):
            answer = await on.first.http.get(f"/operator/standing{query}")
            assert (answer.status_code, answer.json()["error"]) == (400, "malformed"), query
