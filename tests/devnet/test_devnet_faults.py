from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from parallelix.devnet.faults import Fault, faulty_node
from parallelix.devnet.gathering import Requester, Store, logged
from parallelix.devnet.model import MODEL, demonstration_catalogue, demonstration_model
from parallelix.devnet.network import Network, Plan, real_node
from parallelix.protocol.requests import ChatMessage, CreateRequest

SETTINGS = {"batch_seconds": 0.2, "heartbeat_seconds": 0.5}
BODY = CreateRequest(
    model=MODEL,
    messages=(ChatMessage(role="user", content="How many days does the cooldown last?"),),
    max_tokens=40,
    deadline_seconds=3,
    queue_seconds=120,
)


@pytest.mark.slow
async def test_a_malformed_proof_and_a_silent_node_cost_a_request_time_but_nothing_else(tmp_path: Path) -> None:
    gguf = demonstration_model()
    plan = Plan(
        folder=tmp_path, catalogue=demonstration_catalogue(), node_command=real_node(gguf), node_count=3,
        settings=SETTINGS,
    )  # fmt: skip
    network = Network(plan)
    network.prepare()
    requester = Requester(network.url, network.new_key())
    try:
        await network.start_coordinator()
        with Store(network) as store:

            async def ended(number: int, state: str) -> str:
                """Waits until the attempt of this number has ended so; which node it was on."""
                async with asyncio.timeout(60):
                    while True:
                        for attempt in store.attempts():
                            if (attempt.number, attempt.state) == (number, state):
                                return attempt.node_id
                        await asyncio.sleep(0.05)

            request_id = await requester.create(BODY)
            network.start_node(1, faulty_node(Fault.MALFORMED, gguf))
            assert await ended(1, "rejected") == "1001"
            network.start_node(2, faulty_node(Fault.SILENT, gguf))
            assert await ended(2, "missed") == "1002"
            network.kill_node(2)
            network.start_node(3)
            assert await ended(3, "completed") == "1003"
            async with asyncio.timeout(60):
                while not (view := await requester.view(request_id)).settled:
                    await asyncio.sleep(0.05)
            moved = [each.transfer_id.partition(":")[0] for each in store.transfers() if each.request_id == request_id]
        assert view.state == "completed" and view.attempts == 3 and view.result is not None and view.result.text
        assert sorted(moved) == ["charge", "hold", "release"]
        reasons = {line["event"]: line["reason"] for line in logged(network) if line["event"] == "attempt.rejected"}
        assert reasons == {"attempt.rejected": "malformed_poe"}
    finally:
        await requester.close()
        await network.stop()
