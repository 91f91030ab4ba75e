"""The engine's view of the rewards contract, held against the contract itself: reports, voids, restarts, strangers."""

from __future__ import annotations

import random

from chain_scene import Ethereum
from operators_scene import Operators

from parallelix.chain.abi import Happened, read_log, table_of
from parallelix.chain.bindings import operator_stake_rewards
from parallelix.chain.bindings.operator_stake_rewards import (
    LivenessReported,
    NodeOffline,
    NodeOnline,
    OperatorStakeRewardsV2Views,
    SlotsVoided,
)
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import Rpc
from parallelix.coordinator.onchain.decoding import fact_of
from parallelix.engine.liveness import Liveness
from parallelix.engine.rows import NodeLivenessRow

HEARD = (NodeOnline, NodeOffline, SlotsVoided, LivenessReported)
NAMES = table_of(operator_stake_rewards.EVENTS)


class Coordinator:
    """What a coordinator keeps of liveness, and the blocks that it has read. `crash` leaves it its table."""

    def __init__(self, operators: Operators) -> None:
        self.operators = operators
        self.read_until = 0
        self.table: dict[str, NodeLivenessRow] = {}
        self.rejected: dict[int, int] = {}
        self.crash()

    @property
    def slot(self) -> int:
        return self.operators.now // 10

    def crash(self) -> None:
        self.liveness = Liveness(online_after_slots=3, offline_after_slots=3)
        rows, now = self.table.values(), self.operators.now
        self.liveness.restore(rows, batch=None, chain_time=now, since_slot=now // 10)

    def reject(self, node: int, slots: int) -> None:
        self.rejected[node] = self.rejected.get(node, 0) + slots
        self.liveness.void(node, slots)
        self.keep()

    def beat(self, *nodes: int) -> None:
        for slot in range(self.slot - 3, self.slot + 1):
            for node in nodes:
                self.liveness.credit(node, slot)

    async def report(self, *, after: int) -> None:
        made = self.liveness.report(slot=self.slot, limit=3, is_active=lambda _: True, may_earn=lambda _: True)
        if made is not None:
            await self.operators.report(*made.changes, after=after)
            await self.read()

    async def read(self) -> None:
        operators = self.operators
        head = await operators.rpc.block_number()
        logs = await operators.rpc.logs(
            addresses=[operators.rewards.address],
            topics=[event.LAYOUT.topic for event in HEARD],
            first_block=self.read_until + 1,
            last_block=head,
        )
        for log in logs:
            event = read_log(log, NAMES)
            assert event is not None
            at = await operators.rpc.block_time(log.block_number)
            self.liveness.apply(fact_of(Happened(event=event, log=log), at=at))
        self.liveness.advance(operators.now)
        self.read_until = head
        self.keep()

    def keep(self) -> None:
        self.table |= {row.node_id: row for row in self.liveness.take_rows()}


async def test_each_voided_slot_is_taken_once_and_in_full_and_who_earns_is_known_throughout(
    ethereum: Ethereum, rpc: Rpc, deployed: Deployment
) -> None:
    chance = random.Random(11)
    operators = Operators(ethereum, rpc, deployed, watched=False)
    await operators.stake()
    coordinator = Coordinator(operators)
    views = OperatorStakeRewardsV2Views(rpc, operators.rewards.address)
    voided: dict[int, int] = {}
    for step in range(30):
        if chance.random() < 0.4:
            coordinator.reject(chance.choice(operators.nodes), chance.choice([2, 40, 1_300, 9_000]))
        if chance.random() < 0.3:
            coordinator.crash()
        # Whoever is left out has been silent since the last report.
        coordinator.beat(*chance.sample(operators.nodes, 3))
        before = {node: coordinator.liveness.voids_pending(node) for node in operators.nodes}
        await coordinator.report(after=chance.choice([12, 600, 7_200, 40_000]))
        if step % 9 == 0:
            await operators.send("anybody", operators.rewards.sync(chance.choice(operators.nodes)))
            await coordinator.read()
        for node in operators.nodes:
            voided[node] = voided.get(node, 0) + before[node] - coordinator.liveness.voids_pending(node)
            held = await views.node(node)
            assert coordinator.liveness.is_earning(node) == held.earning
            row = coordinator.table.get(str(node))
            assert (row.void_until if row is not None else 0) == held.void_until, "none was cut off"
    owed = {node: coordinator.liveness.voids_pending(node) for node in operators.nodes}
    assert {node: voided[node] + owed[node] for node in coordinator.rejected} == coordinator.rejected
    assert sum(voided.values()) > 10_000
