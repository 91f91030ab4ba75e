from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from parallelix.devnet.faults import Fault, faulty_node
from parallelix.devnet.gathering import Requester, Store, logged
from parallelix.devnet.model import MODEL, demonstration_catalogue, demonstration_model
from parallelix.devnet.network import Network, Plan, real_node
from parallelix.engine.rows import AttemptRow
from parallelix.protocol.requests import ChatMessage, CreateRequest

SETTINGS = {"batch_seconds": 0.2, "heartbeat_seconds": 0.5, "acknowledge_seconds": 60.0}
GGUF = demonstration_model()
BODY = CreateRequest(
    model=MODEL,
    messages=(ChatMessage(role="user", content="How many days does the cooldown last?"),),
    max_tokens=40,
    deadline_seconds=60,
    queue_seconds=300,
)


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    """A coordinator, and seats for two nodes that nobody has taken yet."""
    plan = Plan(
        folder=tmp_path,
        catalogue=demonstration_catalogue(),
        node_command=real_node(GGUF),
        node_count=2,
        settings=SETTINGS,
    )
    prepared = Network(plan)
    prepared.prepare()
    try:
        yield prepared
    finally:
        await prepared.stop()


@pytest.mark.slow
async def test_a_malformed_proof_is_rejected_and_a_silent_node_is_not_waited_for(network: Network) -> None:
    requester = Requester(network.url, network.new_key())
    await network.start_coordinator()
    with Store(network) as store:
        network.start_node(1, faulty_node(Fault.MALFORMED, GGUF))
        rejected = await requester.create(BODY)
        assert (await ended(store, rejected)).state == "rejected"
        assert await network.stop_node(1) == 0

        # The unit does not go back to the seat that failed it, whoever sits there now.
        network.start_node(1, faulty_node(Fault.SILENT, GGUF))
        missed = await requester.create(msgspec.structs.replace(BODY, deadline_seconds=1))
        assert (await ended(store, missed)).state == "missed"
        network.kill_node(1)

        network.start_node(2)
        async with asyncio.timeout(60):
            while not (view := await requester.view(rejected)).settled:
                await asyncio.sleep(0.05)
            # What memory knows is in the store a commit later.
            while "charge" not in (moved := postings(store, rejected)):
                await asyncio.sleep(0.05)
    assert view.state == "completed" and view.attempts == 2 and view.result is not None and view.result.text
    assert sorted(moved) == ["charge", "hold", "release"]
    told = {(line["event"], line["reason"]) for line in logged(network) if line["event"].startswith("attempt.")}
    assert {("attempt.rejected", "malformed_poe"), ("attempt.redispatched", "malformed_poe")} <= told
    assert ("attempt.redispatched", "node.deadline_exceeded") in told
    await requester.close()


def postings(store: Store, request_id: str) -> list[str]:
    return [each.transfer_id.partition(":")[0] for each in store.transfers() if each.request_id == request_id]


async def ended(store: Store, request_id: str) -> AttemptRow:
    """The first attempt of a request, once it has."""
    async with asyncio.timeout(90):
        while True:
            for attempt in store.attempts():
                if attempt.request_id == request_id and attempt.finished_at:
                    return attempt
            await asyncio.sleep(0.05)
