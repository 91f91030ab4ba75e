"""Random lives of a small network: requests, nodes that work, cheat, stall and vanish, cancels, restarts, time.

Invariants 1, 3, 4, 5, 6 and 10 are `World`'s checks of those numbers, made after every step; 2 is a check on the types
that the engine is given at all; 9 is the rule `restart`, which forgets everything but the tables. At the end everything
is let run out, and nothing may be left open, lost, or charged twice.

Rules that never succeed prove nothing, so each says what it achieved, and a run that never achieves one of them fails.
PARALLELIX_ENGINE_EXAMPLES makes it longer.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)
from world import ACCOUNT, BIG_DIGEST, DIGEST, PRLX, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.entities import Request
from parallelix.engine.ledger import available
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, AttemptState, RequestState
from parallelix.engine.rows import AttemptRow, RecordRow
from parallelix.engine.settings import DAY_MS, HOUR_MS
from parallelix.protocol.sampling import DRAW_BITS

NODES = st.integers(min_value=1, max_value=4)
EXAMPLES = int(os.environ.get("PARALLELIX_ENGINE_EXAMPLES", "120"))
MANY_EXAMPLES = 1_000
"""In so many even the rarest of what is to be achieved comes up a dozen times; below it only the ordinary must."""

ACHIEVED: Counter[str] = Counter()
ORDINARY = {
    *("admitted", "held", "slot credited", "acknowledged", "rejected", "cancelled", "node offline", "request expired"),
    *("request cancelled", "restarted with open work", "stale manifest refused", "repeated"),
}
TO_ACHIEVE = ORDINARY | {
    *("refused: concurrency_exceeded", "refused: insufficient_credits"),
    *("refused: idempotency_key_reused", "refused: invalid_api_key", "charged nothing", "charged the whole hold"),
    *("attached", "attached anew", "restarted daemon", "not staked", "in cooldown"),
    *("slot credited once", "paused", "resumed", "acknowledged twice"),
    *("completed", "failed", "declined", "missed", "withdrawn", "lost"),
    *("partial result", "old result refused", "old result answered alike", "somebody else's refused"),
    *("request completed", "request failed", "batch confirmed", "node removed", "node readmitted", "client came back"),
    *("restarted with records to settle", "least bad served", "given again"),
}


class NetworkMachine(RuleBasedStateMachine):
    """Each rule is something that can happen to a coordinator."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.new_world()
        self.asked: dict[str, str] = {}
        self.logs_read = 0

    def new_world(self) -> World:
        return World(seed=7, rejections_to_remove=2, rejection_window_ms=HOUR_MS, removal_ms=HOUR_MS)

    @initialize(grant=st.sampled_from([PRLX, PRLX, 700_000]), nodes=st.integers(0, 4))
    def begin(self, grant: int, nodes: int) -> None:
        self.world.fund(grant)
        self.world.issue_key(concurrency=6)
        for node_id in range(1, nodes + 1):
            self.world.attach(node_id, slots=2, digests=(DIGEST, BIG_DIGEST), run_id="a")

    def open_attempts(self) -> list[str]:
        """At requests."""
        offers = self.world.offers.items()
        return sorted(each for each, offer in offers if not offer.is_audit and self.world.engine.attempt(each))

    def some_work(self, data: st.DataObject) -> Any:
        """An open attempt, of a new request where there is none; None where no node takes any."""
        if not self.open_attempts():
            self.ask_once("small", 50, 1, "standard", data.draw(st.sampled_from([2, 30])), False, "")
        known = self.open_attempts()
        return self.world.engine.attempt(data.draw(st.sampled_from(known))) if known else None

    @rule(
        model=st.sampled_from(["small", "small", "big"]),
        max_tokens=st.integers(1, 200),
        tier=st.sampled_from([1, 1, 1, 2]),
        priority=st.sampled_from(["standard", "expedited", "urgent"]),
        deadline=st.sampled_from([2, 30, 600]),
        attached=st.booleans(),
        repeat=st.sampled_from(["", "", "a", "b"]),
        times=st.integers(1, 4),
    )
    def ask(
        self,
        model: str,
        max_tokens: int,
        tier: int,
        priority: Any,
        deadline: int,
        attached: bool,
        repeat: str,
        times: int,
    ) -> None:
        for _ in range(times):
            self.ask_once(model, max_tokens, tier, priority, deadline, attached, repeat)

    def ask_once(
        self, model: str, max_tokens: int, tier: int, priority: Any, deadline: int, attached: bool, repeat: str
    ) -> None:
        # Of the two bodies that come with a repeated key one is another body.
        fingerprint = f"{deadline == 2}" if repeat else ""
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
        if isinstance(answer, effects.Refused):
            ACHIEVED[f"refused: {answer.code}"] += 1
            return
        assert isinstance(answer, effects.Admitted)
        ACHIEVED["admitted" if answer.created else "repeated"] += 1
        if repeat and answer.created:
            self.asked[repeat] = answer.request_id
        elif repeat:
            assert self.asked[repeat] == answer.request_id, "one key, one request"

    @rule(amount_wei=st.sampled_from([1, 50_000, 2_000_000]))
    def the_operator_grants_credits_and_revokes_a_key(self, amount_wei: int) -> None:
        before = self.world.balance(available(ACCOUNT))
        self.world.fund(amount_wei)
        assert self.world.balance(available(ACCOUNT)) == before + amount_wei
        self.world.issue_key("key_2")
        self.world.step(events.KeyRevoked(key_id="key_2"))
        answer = self.world.try_ask(key_id="key_2")
        assert isinstance(answer, effects.Refused)
        ACHIEVED[f"refused: {answer.code}"] += 1

    # --- Nodes

    @rule(
        node_id=NODES,
        tier=st.sampled_from([1, 2]),
        slots=st.integers(1, 3),
        run=st.sampled_from(["a", "b"]),
        digests=st.sampled_from([(DIGEST, BIG_DIGEST), (DIGEST, BIG_DIGEST), (DIGEST,), (BIG_DIGEST,)]),
    )
    def attach(self, node_id: int, tier: int, slots: int, run: str, digests: tuple[str, ...]) -> None:
        self.world.now += 1
        before = self.world.engine.pool.find(node_id)
        answer = self.world.attach(node_id, tier=tier, slots=slots, digests=digests, run_id=run)
        if isinstance(answer, effects.Refused):
            ACHIEVED[{"not_staked": "not staked", "in_cooldown": "in cooldown"}.get(answer.code, answer.code)] += 1
        elif before is None:
            ACHIEVED["attached"] += 1
        else:
            ACHIEVED["attached anew" if before.manifest.run_id == run else "restarted daemon"] += 1
        self.replay_a_manifest(node_id)

    def replay_a_manifest(self, node_id: int) -> None:
        node = self.world.engine.pool.find(node_id)
        if node is None or self.world.engine.standing(node_id) is not None or node.tier < node.manifest.hardware_tier:
            return
        answer = self.world.step(
            events.Attached(
                node_id=node_id, session="old", manifest=node.manifest, manifest_json="{}", public_key=node.public_key
            )
        )
        assert isinstance(answer, effects.Refused) and answer.code == "stale_time", answer
        assert self.world.engine.pool.nodes[node_id].session != "old"
        ACHIEVED["stale manifest refused"] += 1

    @rule(node_id=NODES, pauses=st.lists(st.booleans(), min_size=1, max_size=3))
    def heartbeats(self, node_id: int, pauses: list[bool]) -> None:
        for paused in pauses:
            self.heartbeat(node_id, paused)

    def heartbeat(self, node_id: int, paused: bool) -> None:
        node = self.world.engine.pool.find(node_id)
        if node is None:
            return
        was_paused = node.paused
        answer = self.world.heartbeat(node_id, paused=paused)
        if isinstance(answer, effects.SlotCredited):
            again = self.world.heartbeat(node_id, paused=paused)
            assert isinstance(again, effects.SlotCredited) and not again.credited
            ACHIEVED["slot credited" if answer.credited else "slot credited once"] += 1
            if paused != was_paused:
                ACHIEVED["paused" if paused else "resumed"] += 1

    @rule(node_id=NODES, state=st.sampled_from(["active", "active", "cooling", "retired"]))
    def registry(self, node_id: int, state: str) -> None:
        known = self.world.engine.registrations.get(node_id)
        self.world.register(node_id, tier=known.hardware_tier if known else 1, state=state)

    # --- What nodes do with their work

    @rule(
        data=st.data(),
        doings=st.lists(
            st.sampled_from(["acknowledge", "complete", "complete", "reject", "fail", "decline", "cancelled"]),
            min_size=1,
            max_size=5,
        ),
    )
    def nodes_act(self, data: st.DataObject, doings: list[str]) -> None:
        for what in doings:
            attempt = self.some_work(data)
            if attempt is not None:
                self.node_acts(data, what, attempt)

    def node_acts(self, data: st.DataObject, what: str, attempt: Any) -> None:
        attempt_id = attempt.attempt_id
        if what == "acknowledge":
            again = attempt.state is AttemptState.RUNNING
            answer = self.world.acknowledge(attempt_id)
            assert isinstance(answer, effects.Started) and answer.deadline_at == attempt.deadline_at > 0
            ACHIEVED["acknowledged twice" if again else "acknowledged"] += 1
        elif what in {"complete", "cancelled"}:
            self.answers(attempt, data.draw(st.integers(0, 400)), "completed" if what == "complete" else "cancelled")
        else:
            outcome = {"reject": "rejected", "fail": "failed", "decline": "declined"}[what]
            code = data.draw(st.sampled_from(["node.deadline_exceeded", "node.runtime_failed", "poe_mismatch"]))
            self.world.returned(attempt_id, outcome, code=code)

    def answers(self, attempt: Any, tokens: int, outcome: str) -> None:
        asked_to_stop = self.world.request(attempt.request_id).cancelling
        # Usage far beyond what was asked for: billing takes no node's word for more than was held.
        self.world.complete(
            attempt.attempt_id,
            prompt_tokens=10 * tokens,
            completion_tokens=tokens,
            outcome=outcome,
            draw=0 if tokens % 4 else 2**DRAW_BITS - 1,
            spot_check=tokens % 5 != 0,
        )
        row = self.world.row(attempt.request_id)
        if outcome == "cancelled" and not asked_to_stop:
            assert row.record_sequence < 0, "nobody asked it to stop"
            return
        ACHIEVED["partial result"] += outcome == "cancelled"
        ACHIEVED["charged nothing"] += row.charge_wei == "0"
        ACHIEVED["charged the whole hold"] += row.charge_wei == row.hold_wei != "0"

    @rule(data=st.data())
    def replay_an_old_result(self, data: st.DataObject) -> None:
        closed = sorted(row.attempt_id for row in self.world.rows(AttemptRow) if row.finished_at)
        if closed:
            attempt_id = data.draw(st.sampled_from(closed))
            row = self.world.tables["attempts"][(attempt_id,)]
            assert isinstance(row, AttemptRow)
            before = len(self.world.rows(RecordRow))
            answer = self.world.returned(attempt_id, "failed", node_id=int(row.node_id), code="node.runtime_failed")
            assert len(self.world.rows(RecordRow)) == before
            assert self.world.tables["attempts"][(attempt_id,)] == row
            refused = isinstance(answer, effects.Refused)
            ACHIEVED["old result refused" if refused else "old result answered alike"] += 1

    @rule(data=st.data())
    def return_somebody_elses_attempt(self, data: st.DataObject) -> None:
        attempt = self.some_work(data)
        if attempt is None:
            return
        attempt_id = attempt.attempt_id
        stranger, state = attempt.node_id % 4 + 1, attempt.state
        for answer in (
            self.world.acknowledge(attempt_id, node_id=stranger),
            self.world.returned(attempt_id, "failed", node_id=stranger),
        ):
            assert isinstance(answer, effects.Refused) and answer.code == "not_your_attempt"
        assert attempt.state is state
        ACHIEVED["somebody else's refused"] += 1

    # --- Requesters, time, the anchor, and crashes

    @rule(data=st.data(), tokens=st.integers(0, 400))
    def a_node_begins_is_asked_to_stop_and_returns_what_it_has(self, data: st.DataObject, tokens: int) -> None:
        attempt = self.some_work(data)
        if attempt is None:
            return
        self.world.acknowledge(attempt.attempt_id)
        self.world.step(events.Cancel(request_id=attempt.request_id, charged=True, reason="requester"))
        if data.draw(st.booleans()):
            self.answers(attempt, tokens, "cancelled")

    @rule(data=st.data())
    def a_node_begins_and_misses_its_deadline(self, data: st.DataObject) -> None:
        attempt = self.some_work(data)
        if attempt is None:
            return
        self.world.acknowledge(attempt.attempt_id)
        while attempt.open and attempt.deadline_at > self.world.now:
            for node_id in sorted(self.world.engine.pool.nodes):
                self.world.heartbeat(node_id)
            self.world.advance(min(10 * SECOND, attempt.deadline_at - self.world.now))

    @rule(data=st.data(), times=st.integers(1, 4))
    def bad_results_come_back_again_and_again(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            attempt = self.some_work(data)
            if attempt is not None:
                self.world.returned(attempt.attempt_id, "rejected", code="poe_mismatch")

    @rule(data=st.data(), charged=st.booleans())
    def cancel(self, data: st.DataObject, charged: bool) -> None:
        if not self.world.engine.requests and self.some_work(data) is None:
            return
        request_id = data.draw(st.sampled_from(sorted(self.world.engine.requests)))
        self.world.step(events.Cancel(request_id=request_id, charged=charged, reason="requester"))

    @precondition(lambda self: any(map(self.world.engine.orphaned, self.world.engine.requests)))
    @rule(data=st.data())
    def client_comes_back(self, data: st.DataObject) -> None:
        lost = sorted(filter(self.world.engine.orphaned, self.world.engine.requests))
        request_id = data.draw(st.sampled_from(lost))
        self.world.step(events.ClientReturned(request_id=request_id))
        assert not self.world.engine.orphaned(request_id)
        ACHIEVED["client came back"] += 1

    @rule(milliseconds=st.sampled_from([1, 500, 3 * SECOND, 3 * SECOND, 11 * SECOND, 31 * SECOND, 700 * SECOND]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.advance(milliseconds)

    @rule()
    def an_hour_passes_in_which_only_the_nodes_are_heard(self) -> None:
        """Long enough here for a removed node to come back."""
        self.world.advance(HOUR_MS)
        for node_id in sorted(self.world.engine.pool.nodes):
            self.world.heartbeat(node_id)

    @rule()
    def confirm(self) -> None:
        ACHIEVED["batch confirmed"] += len(self.world.unconfirmed)
        self.world.confirm_batches()

    @rule()
    def restart(self) -> None:
        """Invariant 9: what was acknowledged is in the tables, and from them the engine is the same again."""
        before = self.open_requests()
        remembered, running = self.remembered(), set(self.open_attempts())
        ACHIEVED["restarted with open work"] += bool(self.open_attempts())
        ACHIEVED["restarted with records to settle"] += any(
            key.committed_wei for key in self.world.engine.keys.values() if not key.open_requests
        )
        self.world.restart()
        assert self.open_requests() == before, "a restart resumes every open request"
        for name, value in self.remembered().items():
            assert value == remembered[name], name
        # A pause is in no table: until its next heartbeat a paused node may be given what waits.
        assert {each for each in running if self.world.engine.attempt(each) is None} == set[str]()
        for key, request_id in self.asked.items():
            admitted_at = self.world.row(request_id).admitted_at
            assert (key in self.idempotent()) == (admitted_at >= self.world.now - DAY_MS)

    def open_requests(self) -> dict[str, int]:
        """What is held of each that a requester sent."""
        opened = self.world.engine.requests.items()
        return {request_id: request.hold_wei for request_id, request in opened if not request.audit_id}

    def idempotent(self) -> set[str]:
        return {known.idempotency_key for known in self.world.snapshot().idempotent}

    def remembered(self) -> dict[str, Any]:
        engine = self.world.engine
        return {
            "balances": {name: wei for name, wei in engine.ledger.accounts().items() if wei},
            "head": engine.recorder.head_hash,
            "batches": (engine.recorder.batches_closed, engine.recorder.confirmed_through),
            "keys": {
                key.key_id: (key.spent_wei, key.committed_wei, key.open_requests, key.revoked_at)
                for key in engine.keys.values()
            },
            "removed": {node.node_id: node.removed_until for node in engine.pool.nodes.values()},
            "accounts": engine.open_of_account,
        }

    # --- What holds after every rule

    @invariant()
    def slots_are_never_overbooked(self) -> None:
        engine = self.world.engine
        for node in engine.pool.nodes.values():
            for attempt_id in node.reserved:
                attempt = engine.attempt(attempt_id)
                assert attempt is not None and attempt.open and attempt.node_id == node.node_id
        reserved = [attempt_id for node in engine.pool.nodes.values() for attempt_id in node.reserved]
        open_now: list[str] = []
        for request in engine.requests.values():
            assert request.count(AttemptState.OFFERED, AttemptState.RUNNING) <= 1
            for node_id, ends in turns(request).items() if not request.audit_id else ():
                let_pass = ([(AttemptState.LOST, 0)], [(AttemptState.WITHDRAWN, 0)])
                assert ends[:-1] in ([], *let_pass), f"a unit came back to node {node_id}"
            if request.open_attempt:
                open_now.append(request.open_attempt.attempt_id)
        assert sorted(reserved) == sorted(open_now), "a slot leaked, or was given twice"

    @invariant()
    def what_waits_is_queued_and_what_is_queued_waits(self) -> None:
        engine = self.world.engine
        for request_id, request in engine.requests.items():
            assert (request.state == "queued") == (request_id in engine.queue)
        assert len(engine.queue) == sum(request.state == "queued" for request in engine.requests.values())

    @invariant()
    def no_slot_idles_while_work_waits_that_its_node_may_serve(self) -> None:
        engine = self.world.engine
        for request in engine.requests.values():
            if request.state != "queued":
                continue
            if not request.audit_id:
                node = engine._best_node(request)  # pyright: ignore[reportPrivateUsage]
                assert node is None, "it could be served now"
            elif request.auditor is not None:
                free = engine.pool.only(request.auditor, request.need)
                assert free is None or not engine.pool.is_capable(free.node_id, request.need), "its auditor is free"
            else:
                barred = engine._barred(request) | request.failed_nodes  # pyright: ignore[reportPrivateUsage]
                assert not engine.pool.has_free_slot(request.need, barred), "nobody was drawn"

    @invariant()
    def what_happened_is_counted(self) -> None:
        named = {"node.removed": "node removed", "node.readmitted": "node readmitted", "node.offline": "node offline"}
        for name, _ in self.world.log[self.logs_read :]:
            if name in named:
                ACHIEVED[named[name]] += 1
            ACHIEVED["held"] += name == "request.held"
        self.logs_read = len(self.world.log)
        ACHIEVED["least bad served"] += any(node.reserved for node in self.world.engine.pool.penalised())

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
        spent_wei = sum(key.spent_wei for key in world.engine.keys.values())
        parts = ("operators", "treasury", "infrastructure")
        assert spent_wei == sum(world.balance(part) for part in parts) and world.balance("usage") == 0
        assert not any(node.reserved for node in world.engine.pool.nodes.values()), "a slot leaked"
        assert not world.engine.open_of_account and not len(world.engine.queue)
        ACHIEVED.update(row.state for row in world.rows(AttemptRow))
        given = Counter((row.request_id, row.node_id) for row in world.rows(AttemptRow))
        ACHIEVED["given again"] += max(given.values(), default=0) == 2
        ACHIEVED.update(f"request {states[0]}" for states in world.ends.values())


def turns(request: Request) -> dict[int, list[tuple[AttemptState, int]]]:
    """How each node's attempts at the request ended, and when it took them up."""
    ends: dict[int, list[tuple[AttemptState, int]]] = {}
    for attempt in request.attempts:
        ends.setdefault(attempt.node_id, []).append((attempt.state, attempt.started_at))
    return ends


def test_random_lives_of_a_network_hold_every_invariant_and_achieve_everything_they_try() -> None:
    ACHIEVED.clear()
    run_state_machine_as_test(
        NetworkMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    print(dict(ACHIEVED.most_common()))
    never = {name for name in (TO_ACHIEVE if EXAMPLES >= MANY_EXAMPLES else ORDINARY) if not ACHIEVED[name]}
    assert not never, f"never achieved in {EXAMPLES} examples: {sorted(never)}"


def test_invariant_2_the_engine_is_never_given_a_prompt_or_an_answer() -> None:
    """It knows lengths, counts and hashes. Each field that could hold a text is named here with what it holds."""
    texts: dict[type[msgspec.Struct], set[str]] = {
        events.Admit: {"account", "key_id", "workload_class", "kind", "model", "priority", "features"}
        | {"idempotency_key", "fingerprint"},
        events.Cancel: {"request_id", "reason"},
        events.ResultReturned: {"attempt_id", "outcome", "code", "message"},
        events.ExecutionFacts: {"input_hash", "result_hash", "poe_commitment", "model_digest"},
        events.Acknowledged: {"attempt_id"},
        events.ClientReturned: {"request_id"},
        events.Heartbeat: set(),
    }
    for kind, known in texts.items():
        holding = {
            field.name
            for field in msgspec.structs.fields(kind)
            if "str" in repr(field.type) or "Liter" in repr(field.type)
        }
        assert holding - {"facts"} == known, kind


def test_every_final_state_of_a_request_is_among_what_is_to_be_achieved() -> None:
    assert {f"request {state}" for state in FINAL_REQUEST_STATES} <= TO_ACHIEVE
    assert {state.value for state in AttemptState} - {"offered", "running"} <= TO_ACHIEVE
    assert RequestState.QUEUED not in FINAL_REQUEST_STATES
