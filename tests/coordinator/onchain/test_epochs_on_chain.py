"""Epochs of sampling on a chain: committed ahead, begun once that counts, revealed when over, across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chained import Chained, chained
from hand_driven import HandNode

from bench.chain_world import ChainWorld
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.coordinator import errors
from parallelix.coordinator.secrets import SecretRefused
from parallelix.protocol import sampling
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import ExecutionRecord, decode_record

pytestmark = pytest.mark.service

SHORT: dict[str, Any] = {"audits": True, "epoch_seconds": 0.2, "audit_queue_seconds": 0.1}
"""Long enough for a test to see; one node has no auditor, so that what it executed is soon unaudited."""
LONG: dict[str, Any] = SHORT | {"epoch_seconds": 86_400}


def views(scene: Chained) -> ExecutionAnchorViews:
    assert scene.coordinator.rpc is not None
    return ExecutionAnchorViews(scene.coordinator.rpc, scene.world.deployed.address("ExecutionAnchor"))


async def executions(scene: Chained) -> list[ExecutionRecord]:
    await scene.coordinator.journal.flushed()
    rows = await scene.coordinator.readers.records_range(0, 1000)
    return [each for each in (decode_record(row.body) for row in rows) if isinstance(each, ExecutionRecord)]


def refusals(scene: Chained) -> list[str]:
    return [name for name, _ in scene.told if name.endswith(".refused") or name == "sampling.foreign"]


async def test_nothing_is_taken_before_the_first_commitment_counts(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, **LONG) as scene:
        assert scene.coordinator.ready() == (False, "starting")
        with pytest.raises(errors.Unavailable) as refusal:
            await scene.offered()
        assert refusal.value.code == "starting"
        await scene.until(lambda: scene.coordinator.engine.epochs)
        committed = await views(scene).commitment_of(0)
        (epoch,) = (await scene.coordinator.epochs(0, 10)).data
        assert (epoch.epoch, epoch.commitment, epoch.secret) == (0, to_hex(committed), "")
        # Its successor follows at once, so that it can be revealed when it is over.
        await scene.until(lambda: scene.transactions("validator") == 2)
        assert await views(scene).committed_epochs() == 2
        assert scene.coordinator.ready() == (True, "ready")
        await scene.executed()


async def test_epochs_follow_each_other_and_every_draw_can_be_recomputed(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, **SHORT) as scene:
        engine = scene.coordinator.engine
        for number in range(3):
            await scene.until(lambda number=number: engine.epochs and engine.epoch >= number)
            await scene.executed()
        await scene.until(lambda: engine.epoch >= 4 and not engine.audits)
        records = await executions(scene)
        assert [record.epoch for record in records] == sorted(record.epoch for record in records)
        assert len({record.epoch for record in records}) == 3
        known = {each.epoch: each for each in (await scene.coordinator.epochs(0, 100)).data}
        for record in records:
            secret = await views(scene).secret_of(record.epoch)
            assert to_hex(sampling.commitment(secret)) == known[record.epoch].commitment
            assert to_hex(secret) == known[record.epoch].secret
            assert record.rate == 100 and sampling.drawn(sampling.draw(secret, record.poe_commitment), record.rate)
        assert refusals(scene) == []


async def test_an_epoch_is_not_revealed_while_an_attempt_of_it_is_open(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, **SHORT) as scene:
        engine = scene.coordinator.engine
        await scene.until(lambda: engine.epochs)
        work = await scene.offered()
        epoch = engine.epoch
        await scene.until(lambda: engine.epoch > epoch)
        block = scene.block
        await scene.until(lambda: scene.block > block + 20)
        assert await views(scene).revealed_epochs() <= epoch
        assert engine.epoch == epoch + 1
        assert (await scene.node.acknowledge(work)).status_code == 200
        assert (await scene.node.return_(scene.node.result(work))).status_code == 200
        await scene.until(lambda: engine.epoch > epoch + 1)
        assert await views(scene).revealed_epochs() > epoch
        (record,) = await executions(scene)
        assert record.epoch == epoch


async def one_epoch_more(scene: Chained) -> None:
    """And something on its way when it ends: here a commitment, there a revelation or a batch."""
    engine = scene.coordinator.engine
    await scene.until(lambda: engine.epochs)
    before = engine.epoch
    await scene.executed()
    await scene.until(lambda: engine.epoch > before)


async def test_a_process_that_dies_anywhere_leaves_nothing_to_be_said_twice(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    for _ in range(2):
        async with chained(staked_world, folder, node, **SHORT) as scene:
            await one_epoch_more(scene)
    async with chained(staked_world, folder, node, **LONG) as scene:
        engine = scene.coordinator.engine
        await scene.until(lambda: not engine.recorder.unconfirmed and len(engine.epochs) == 1 and not engine.audits)

        async def all_said() -> tuple[int, int, int]:
            anchor = views(scene)
            return await anchor.committed_epochs(), await anchor.revealed_epochs(), await anchor.batch_count() - 1

        committed, revealed, batches = await all_said()
        assert (committed, revealed) == (engine.epoch + 2, engine.epoch)
        assert scene.transactions("validator") == committed + revealed + batches
        assert refusals(scene) == []


async def test_another_sampling_key_than_the_one_committed_to_is_refused(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, **LONG) as scene:
        await scene.until(lambda: scene.coordinator.engine.epochs)
    (folder / "sampling.key").write_text("ab" * 32 + "\n")
    with pytest.raises(SecretRefused, match=r"epoch 0 .* restore the file"):
        async with chained(staked_world, folder, node, **LONG):
            pass
    # The way out that the message names.
    without: dict[str, Any] = LONG | {"audits": False}
    async with chained(staked_world, folder, node, **without) as scene:
        await scene.executed()
        await scene.until(lambda: scene.coordinator.engine.recorder.confirmed_through == 0)


async def test_an_epoch_that_somebody_else_committed_to_does_not_begin(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    calls = ExecutionAnchorCalls(staked_world.deployed.address("ExecutionAnchor"))
    staked_world.do(staked_world.roles["validator"], calls.commit_sampling(0, b"\x07" * 32))
    async with chained(staked_world, folder, node, **LONG) as scene:
        told = await scene.until_told("sampling.foreign")
        assert "epoch 0" in told["error"] and "audits = false" in told["error"]
        assert not scene.coordinator.engine.epochs


async def test_the_epochs_that_are_public_are_those_of_the_chain(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, **SHORT) as scene:
        engine = scene.coordinator.engine
        await scene.until(lambda: engine.epochs and engine.epoch >= 2 and len(engine.epochs) == 1)
        anchor = views(scene)
        for epoch in (await scene.coordinator.epochs(0, 100)).data:
            assert from_hex(epoch.commitment, name="commitment", length_bytes=32) == await anchor.commitment_of(
                epoch.epoch
            )
            shown = await anchor.secret_of(epoch.epoch)
            assert epoch.secret == (to_hex(shown) if any(shown) else "")
            assert bool(epoch.secret) == bool(epoch.revealed_at)
