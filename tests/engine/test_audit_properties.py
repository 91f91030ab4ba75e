"""The same random lives as in `test_properties.py` and `test_onchain_properties.py`, with audits: results are drawn,
auditors agree, contradict, cannot compare, fail and vanish, epochs begin and are revealed, and everything dies between.

`World` checks after every step that nobody audits the own owner's work, that no charge precedes its verdict, and that
nothing is both charged and refunded. At the end each drawn execution has exactly one record of its audit.
PARALLELIX_ENGINE_EXAMPLES makes it longer.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)
from onchain_world import ALICE, BOB, ChainWorld
from test_onchain_properties import ACCOUNTS, AccountsMachine
from test_properties import NetworkMachine
from world import BIG_DIGEST, DIGEST, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.rows import AuditRow
from parallelix.engine.settings import HOUR_MS
from parallelix.protocol.records import ExecutionRecord

EXAMPLES = max(40, int(os.environ.get("PARALLELIX_ENGINE_EXAMPLES", "120")) // 2)
MANY_EXAMPLES = 500
ACHIEVED: Counter[str] = Counter()
ORDINARY = {
    *("agree", "inconclusive", "unaudited", "prepared", "no_second_node"),
    *("restarted with audits", "charged after its audit", "revealed", "marked"),
}
TO_ACHIEVE = ORDINARY | {
    *("disagree", "auditor_overruled", "unauditable", "refunded"),
    *("no_third_node", "both_upheld", "neither_upheld", "third_unusable", "no_answer", "restarted"),
    *("convicted", "too_many_open", "drawn at 50 %", "drawn at 10 %"),
}
OUTCOMES = st.sampled_from(["agree", "disagree", "agree", "disagree", "unusable"])
CHOSEN: dict[str, Any] = {
    "passes_per_rate": 1,
    "prepared_percent": 30,
    "audits_open_max": 6,
    "audit_attempts_max": 3,
    "conviction_millinats": 6_000,
}


def answer(data: st.DataObject, world: World, audit_id: str) -> None:
    audit = world.engine.audits[audit_id]
    third = data.draw(OUTCOMES) if audit.stage in ("third", "prepared") else None
    world.answer_audit(audit_id, data.draw(OUTCOMES), third)


def offered(world: World) -> list[str]:
    """The open audits that a node has."""
    return sorted(audit_id for audit_id, audit in world.engine.audits.items() if audit.unit.open_attempt is not None)


def turn_the_epoch(world: World) -> None:
    """As the shell does: the next begins once the one before the present is public."""
    engine = world.engine
    for epoch in engine.epochs_revealable():
        world.step(events.EpochRevealed(epoch=epoch, secret="0x" + "5e" * 32))
        ACHIEVED["revealed"] += 1
    if set(engine.epochs) == {engine.epoch}:
        world.begin_epoch(engine.epoch + 1)


def count(world: World) -> None:
    for row in world.rows(AuditRow):
        ACHIEVED.update((row.verdict, row.reason))
        ACHIEVED["prepared"] += bool(row.prepared_from)
        ACHIEVED["refunded"] += row.refunded_wei != "0"
    ACHIEVED["marked"] += len(world.logged("node.marked"))
    ACHIEVED["convicted"] += len(world.logged("node.convicted"))
    for record in world.records.values():
        if isinstance(record, ExecutionRecord):
            ACHIEVED[f"drawn at {record.rate} %"] += any(
                row.execution_sequence == record.sequence for row in world.rows(AuditRow)
            )


class AuditedNetworkMachine(NetworkMachine):
    def new_world(self) -> World:
        world = World(
            seed=7, audited=True, rejections_to_remove=2, rejection_window_ms=HOUR_MS, removal_ms=HOUR_MS, **CHOSEN
        )
        world.owners = {1: 1, 2: 2, 3: 3, 4: 1}
        return world

    @rule(
        data=st.data(),
        tokens=st.lists(st.integers(1, 400), min_size=1, max_size=3),
        doings=st.lists(
            st.sampled_from(["answer", "answer", "answer", "answer", "answer", "restart", "confirm", "epoch"]),
            min_size=1,
            max_size=8,
        ),
    )
    def work_is_done_and_audited(self, data: st.DataObject, tokens: list[int], doings: list[str]) -> None:
        self.everybody_works()
        for count in tokens:
            attempt = self.some_work(data)
            if attempt is not None:
                self.answers(attempt, count, "completed")
        for what in doings:
            if what == "answer":
                self.an_auditor_answers(data)
            elif what == "restart":
                self.restart()
            elif what == "confirm":
                self.world.advance(11 * SECOND)
                self.confirm()
            else:
                self.an_epoch_ends()

    @rule(data=st.data())
    def an_auditor_answers(self, data: st.DataObject) -> None:
        known = offered(self.world)
        if known:
            answer(data, self.world, data.draw(st.sampled_from(known)))

    @rule(data=st.data(), how=st.sampled_from(["rejected", "failed", "declined", "acknowledge"]))
    def an_auditor_does_not_answer(self, data: st.DataObject, how: str) -> None:
        for audit_id in offered(self.world):
            attempt = self.world.engine.audits[audit_id].unit.open_attempt
            assert attempt is not None
            if how == "acknowledge":
                self.world.acknowledge(attempt.attempt_id)
            else:
                self.world.returned(attempt.attempt_id, how, code="malformed_audit")

    @rule()
    def everybody_works(self) -> None:
        """All nodes that may, with a slot free."""
        self.world.now += 1
        for node_id in (1, 2, 3, 4):
            self.world.register(node_id)
            self.world.attach(node_id, slots=3, digests=(DIGEST, BIG_DIGEST), run_id="a")
            self.world.heartbeat(node_id)

    @rule()
    def an_epoch_ends(self) -> None:
        turn_the_epoch(self.world)

    def restart(self) -> None:
        world = self.world
        before = self.real_audits()
        trust = {node_id: world.engine.trust.of(node_id).row() for node_id in world.engine.pool.nodes}
        epochs = world.engine.epoch, dict(world.engine.epochs)
        ACHIEVED["restarted with audits"] += bool(before)
        super().restart()
        assert self.real_audits() == before, "an open audit begins anew"
        assert all(audit.stage in ("first", "whole") for audit in world.engine.audits.values())
        assert {node_id: world.engine.trust.of(node_id).row() for node_id in trust} == trust
        assert (world.engine.epoch, world.engine.epochs) == epochs

    def real_audits(self) -> set[tuple[str, str, int]]:
        audits = self.world.engine.audits.values()
        return {(each.audit_id, each.execution_hash, each.node_id) for each in audits if not each.prepared_from}

    @invariant()
    def an_audit_has_its_unit_and_nothing_else_has(self) -> None:
        engine = self.world.engine
        units = {request_id for request_id, request in engine.requests.items() if request.audit_id}
        assert units == set(engine.audits) and engine.requests_open == len(engine.requests) - len(units)
        assert len(engine.audits) <= self.world.settings.audits_open_max
        assert engine.open_of_account.keys() == {
            request.account for request in engine.requests.values() if not request.audit_id
        }

    @invariant()
    def no_epoch_is_revealed_that_could_be_drawn_in(self) -> None:
        engine = self.world.engine
        opened = {
            request.open_attempt.epoch
            for request in engine.requests.values()
            if request.open_attempt and not request.audit_id
        }
        assert not opened & set(engine.epochs_revealable()) and engine.epoch not in engine.epochs_revealable()

    def teardown(self) -> None:
        super().teardown()
        world = self.world
        settled = world.transfers("charge")
        audited = {row.request_id for row in world.rows(AuditRow) if not row.prepared_from}
        ACHIEVED["charged after its audit"] += bool(audited & settled.keys())
        for row in world.rows(AuditRow):
            if row.verdict != "disagree" and not row.prepared_from and int(world.row(row.request_id).charge_wei):
                assert row.request_id in settled, "what was not overturned is charged"
        ended = Counter(effect.audit_id for effect in world.effects if isinstance(effect, effects.AuditEnded))
        assert ended == Counter({row.audit_id: 1 for row in world.rows(AuditRow)}), "each audit ends once"
        count(world)


class AuditedAccountsMachine(AccountsMachine):
    """Deposits, withdrawals and clearances while charges wait for verdicts and some come back."""

    nodes = 3

    def new_world(self) -> ChainWorld:
        return ChainWorld(audited=True, **CHOSEN)

    @rule(data=st.data(), most=st.integers(1, 4))
    def auditors_answer(self, data: st.DataObject, most: int) -> None:
        for audit_id in offered(self.world)[:most]:
            answer(data, self.world, audit_id)

    @rule(data=st.data(), account=ACCOUNTS, confirmed=st.booleans())
    def work_is_drawn_and_its_audit_ends(self, data: st.DataObject, account: str, confirmed: bool) -> None:
        self.ask_once(account, 100)
        self.nodes_work(100, 4)
        if confirmed:
            self.pass_time(11 * SECOND)
            self.anchor()
            self.follow(1_000)
        for _ in range(3):
            self.auditors_answer(data, 4)

    @rule()
    def an_epoch_ends(self) -> None:
        turn_the_epoch(self.world)

    def teardown(self) -> None:
        super().teardown()
        ACHIEVED["charged after its audit"] += any(self.world.charged(account) for account in (ALICE, BOB))
        count(self.world)


def _run(machine: type[Any], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_random_lives_with_audits_hold_every_invariant_and_achieve_everything_they_try() -> None:
    ACHIEVED.clear()
    _run(AuditedNetworkMachine, EXAMPLES)
    print(dict(ACHIEVED.most_common()))
    never = {name for name in (TO_ACHIEVE if EXAMPLES >= MANY_EXAMPLES else ORDINARY) if not ACHIEVED[name]}
    assert not never, f"never achieved in {EXAMPLES} examples: {sorted(never)}"


def test_random_lives_of_deposits_with_audits_never_pay_a_wei_twice() -> None:
    ACHIEVED.clear()
    _run(AuditedAccountsMachine, EXAMPLES // 2)
    print(dict(ACHIEVED.most_common()))
    assert ACHIEVED["charged after its audit"] and ACHIEVED["agree"]
    assert ACHIEVED["refunded"] or EXAMPLES < MANY_EXAMPLES
