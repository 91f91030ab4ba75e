"""A real daemon with a real model proves itself on a challenge, and its operator reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from http_network import NODE_ID, StartNetwork, eventually

import services
from parallelix.devnet.model import MODEL, demonstration_catalogue
from parallelix.engine import challenges
from parallelix.node import state
from parallelix.node.home import Home
from parallelix.node.runtimes.llama_cpp import LlamaCpp

FLOORED = f'{demonstration_catalogue()}\nspeed_floors = {{"1" = 0.01}}\n'
"""So low that a busy machine reaches it too."""


async def test_a_node_is_challenged_answers_and_is_proven(
    start_network: StartNetwork, node_homes: tuple[Path, ...]
) -> None:
    runtime = LlamaCpp([services.REPOSITORY / "models" / f"{MODEL}.gguf"], slots=4)
    settings = {
        "challenge_lead_seconds": 0.5,
        "challenge_retry_seconds": 0.5,
        "challenge_tokens": 16,
        "heartbeat_seconds": 0.2,
        "batch_seconds": 0.1,
    }
    try:
        async with start_network(runtime, catalogue=FLOORED, **settings) as network:
            engine = network.coordinator.engine

            async def proven() -> bool:
                trust = engine.trust.known(NODE_ID)
                return trust is not None and trust.proven_at > 0

            async def told() -> bool:
                notice = state.read(Home(node_homes[0])).notice
                return notice is not None and notice.proven_at > 0 and not notice.benched

            async def anchored() -> bool:
                return engine.recorder.confirmed_through >= 0

            async with asyncio.timeout(60):
                await eventually(proven)
                await eventually(told)
                await eventually(anchored)
            (row,) = [
                row
                for name, fields in network.logged
                if name == "node.challenged"
                and (row := await network.coordinator.readers.request(fields["request_id"]))
                if row.completion_tokens >= challenges.MEASURABLE_TOKENS
            ]
            assert (row.account, row.state, row.charge_wei) == (challenges.ACCOUNT, "completed", "0")
            async with network.customer() as other:
                answer = await other.get(f"/api/v1/requests/{row.request_id}")
                assert answer.status_code == 404, "nobody else reads it"
    finally:
        await runtime.aclose()
