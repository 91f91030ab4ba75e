"""Random lives of a small network: requests, nodes that work, cheat, stall and vanish, cancels, restarts, time.

`World.check` holds the invariants after every step; at the end everything is let run out, and nothing may be left open,
lost, or charged twice.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import BIG_DIGEST, DIGEST, PRLX, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.lifecycle import AttemptState
from parallelix.engine.rows import AttemptRow, RecordRow

NODES = st.integers(min_value=1, max_value=4)
EXAMPLES = int(os.environ.get("PARALLELIX_ENGINE_EXAMPLES", "60"))


class NetworkMachine(RuleBasedStateMachine):
    """Each rule is something that can happen to a coordinator."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(seed=7, rejections_to_remove=2)
        self.asked: dict[str, str] = {}
        self.ever_offered: set[str] = set()

    @initialize(grant=st.sampled_from([10_000, 400_000, PRLX]))
    def begin(self, grant: int) -> None:
        self.world.fund(grant)
        self.world.issue_key(concurrency=12)

    def open_attempts(self) -> list[str]:
        return sorted(each for each in self.world.offers if self.world.engine.attempt(each) is not None)

    @rule(
        model=st.sampled_from(["small", "big"]),
        max_tokens=st.integers(1, 200),
        tier=st.sampled_from([1, 1, 2]),
        priority=st.sampled_from(["standard", "expedited", "urgent"]),
        deadline=st.sampled_from([2, 30, 600]),
        attached=st.booleans(),
        repeat=st.sampled_from(["", "", "a", "b"]),
    )
    def ask(
        self, model: str, max_tokens: int, tier: int, priority: Any, deadline: int, attached: bool, repeat: str
    ) -> None:
        fingerprint = f"{model}{max_tokens}{tier}{priority}{deadline}" if repeat else ""
        answer = self.world.try_ask(
            model=model,
            max_tokens=max_tokens,
            hardware_tier=tier,
            priority=priority,
            deadline_ms=deadline * SECOND,
            attached=attached,
            idempotency_key=repeat,
            fingerprint=fingerprint,
        )
        if repeat and isinstance(answer, effects.Admitted):
            known = self.asked.setdefault(repeat, answer.request_id)
            assert known == answer.request_id, "one key, one request"

    @rule(node_id=NODES, tier=st.sampled_from([1, 2]), slots=st.integers(1, 3), run=st.sampled_from(["a", "b"]))
    def attach(self, node_id: int, tier: int, slots: int, run: str) -> None:
        self.world.now += 1
        self.world.attach(node_id, tier=tier, slots=slots, digests=(DIGEST, BIG_DIGEST), run_id=run)

    @rule(node_id=NODES, paused=st.booleans())
    def heartbeat(self, node_id: int, paused: bool) -> None:
        if self.world.engine.pool.find(node_id) is not None:
            self.world.heartbeat(node_id, paused=paused)

    @rule(node_id=NODES, state=st.sampled_from(["active", "cooling", "retired"]))
    def registry(self, node_id: int, state: str) -> None:
        known = self.world.engine.registrations.get(node_id)
        self.world.register(node_id, tier=known.hardware_tier if known else 1, state=state)

    @precondition(lambda self: self.open_attempts())
    @rule(data=st.data(), what=st.sampled_from(["acknowledge", "complete", "reject", "fail", "decline", "cancelled"]))
    def node_acts(self, data: st.DataObject, what: str) -> None:
        attempt_id = data.draw(st.sampled_from(self.open_attempts()))
        if what == "acknowledge":
            self.world.acknowledge(attempt_id)
        elif what == "complete":
            self.world.complete(attempt_id, completion_tokens=data.draw(st.integers(0, 400)))
        elif what == "cancelled":
            self.world.complete(attempt_id, completion_tokens=1, outcome="cancelled")
        else:
            outcome = {"reject": "rejected", "fail": "failed", "decline": "declined"}[what]
            code = data.draw(st.sampled_from(["node.deadline_exceeded", "node.runtime_failed", "poe_mismatch"]))
            self.world.returned(attempt_id, outcome, code=code)

    @rule(data=st.data())
    def replay_an_old_result(self, data: st.DataObject) -> None:
        closed = sorted(row.attempt_id for row in self.world.rows(AttemptRow) if row.state == "completed")
        if closed:
            attempt_id = data.draw(st.sampled_from(closed))
            row = self.world.tables["attempts"][(attempt_id,)]
            assert isinstance(row, AttemptRow)
            before = len(self.world.rows(RecordRow))
            self.world.returned(attempt_id, "failed", node_id=int(row.node_id), code="node.runtime_failed")
            assert len(self.world.rows(RecordRow)) == before

    @precondition(lambda self: self.world.engine.requests)
    @rule(data=st.data(), charged=st.booleans())
    def cancel(self, data: st.DataObject, charged: bool) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.world.engine.requests)))
        self.world.step(events.Cancel(request_id=request_id, charged=charged, reason="requester"))

    @rule(milliseconds=st.sampled_from([1, 500, 3 * SECOND, 11 * SECOND, 31 * SECOND, 700 * SECOND]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.advance(milliseconds)

    @rule()
    def confirm(self) -> None:
        self.world.confirm_batches()

    @rule()
    def restart(self) -> None:
        before = {request_id: request.state for request_id, request in self.world.engine.requests.items()}
        balances = {name: wei for name, wei in self.world.engine.ledger.accounts().items() if wei}
        head = self.world.engine.recorder.head_hash
        self.world.restart()
        assert set(self.world.engine.requests) == set(before), "a restart resumes every open request"
        assert {name: wei for name, wei in self.world.engine.ledger.accounts().items() if wei} == balances
        assert self.world.engine.recorder.head_hash == head

    @invariant()
    def slots_are_never_overbooked(self) -> None:
        engine = self.world.engine
        for node in engine.pool.nodes.values():
            for attempt_id in node.reserved:
                attempt = engine.attempt(attempt_id)
                assert attempt is not None and attempt.open and attempt.node_id == node.node_id
        open_by_request: dict[str, int] = {}
        for request in engine.requests.values():
            open_by_request[request.request_id] = request.count(AttemptState.OFFERED, AttemptState.RUNNING)
            assert len(request.attempts) == len(request.failed_nodes), "a unit came back to a node"
        assert all(count <= 1 for count in open_by_request.values())

    @invariant()
    def what_waits_is_queued_and_what_is_queued_waits(self) -> None:
        engine = self.world.engine
        for request_id, request in engine.requests.items():
            assert (request.state == "queued") == (request_id in engine.queue)

    def teardown(self) -> None:
        world = self.world
        for _ in range(40):
            world.advance(1200 * SECOND)
            world.confirm_batches()
        world.advance(60 * SECOND)
        world.confirm_batches()
        world.check_all_ended()
        world.check_chain()
        for key in world.engine.keys.values():
            assert key.open_requests == 0 and key.committed_wei == 0
            assert key.spent_wei == world.balance("operators") + world.balance("treasury") + world.balance(
                "infrastructure"
            )
        assert not any(node.reserved for node in world.engine.pool.nodes.values()), "a slot leaked"


NetworkMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestNetwork = NetworkMachine.TestCase
