"""Records on a chain: made, cut into batches, and anchored by the validator of a deployment."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web
from chain_scenario import record
from chain_scene import Ethereum, funded, key

import services
from bench.record_edits import batch_of, cut
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import Wallet
from parallelix.protocol.records import GENESIS_HASH, AuditRecord, Batch, Record, record_hash

__all__ = ["anchor", "batch_of", "chain_of", "cut", "retold"]


def chain_of(count: int) -> list[Record]:
    """Of every seven records the sixth is the audit of the one before it."""
    records: list[Record] = []
    for sequence in range(count):
        head = record_hash(records[-1]) if records else GENESIS_HASH
        records.append(audit_of(sequence, head) if sequence % 7 == 5 else record(sequence, head))
    return records


def audit_of(sequence: int, previous_hash: str) -> AuditRecord:
    """The audit of the execution that stands before it."""
    return AuditRecord(
        sequence=sequence,
        previous_hash=previous_hash,
        execution_hash=previous_hash,
        verdict="agree",
        reason="within",
        finished_at=1_790_000_000_900 + sequence,
    )


async def anchor(ethereum: Ethereum, rpc: Rpc, deployment: Deployment, batches: Sequence[Batch]) -> None:
    """Under epoch 0, which is committed to with the first batch."""
    calls = ExecutionAnchorCalls(deployment.address("ExecutionAnchor"))
    validator = Wallet(rpc, funded(ethereum.anvil, key("validator")))
    if batches and batches[0].first == 0:
        await validator.send(calls.commit_sampling(0, hashlib.sha256(b"a secret").digest()))
    for batch in batches:
        await validator.send(
            calls.anchor_batch(
                bytes.fromhex(batch.previous_hash[2:]),
                bytes.fromhex(batch.head_hash[2:]),
                batch.first,
                batch.last,
                bytes.fromhex(batch.merkle_root[2:]),
                batch.count,
                0,
            )
        )


@asynccontextmanager
async def retold(url: str, retell: Callable[[Any, Any], Any]) -> AsyncGenerator[str]:
    """An endpoint that answers what `retell` makes of each question and its true answer."""
    async with ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            question: dict[str, Any] = await request.json()
            async with session.post(url, json=question) as asked:
                told: dict[str, Any] = await asked.json()
            return web.json_response(retell(question, told))

        application = web.Application()
        application.router.add_post("/", answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        port = services.free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()
