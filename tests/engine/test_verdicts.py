"""The table of verdicts, row by row, through the whole engine: what becomes of the record, the money, and the nodes."""

from __future__ import annotations

from typing import Any

import pytest
from world import SECOND, World

from parallelix.engine import effects
from parallelix.engine.rows import AuditRow
from parallelix.engine.verdicts import TABLE, AskSecond, AskThird, Ends, NoSuchCase, RunWhole, ruling
from parallelix.protocol.records import AuditRecord
from parallelix.protocol.spot_check import RERUN_UNAUDITABLE

EXECUTOR, FIRST, THIRD = 1, 2, 3
MISSING = ("no_node", "no_answer")


class Scene(World):
    """Three nodes; the first executes, and one request of its is drawn."""

    def __init__(self, **changes: Any) -> None:
        # At this floor every pass counts in favour.
        chosen: dict[str, Any] = {
            "prepared_percent": 0,
            "conviction_millinats": 10**9,
            "sampling_floor_percent": 100,
        }
        super().__init__(audited=True, **(chosen | changes))
        self.fund()
        self.issue_key()
        self.attach(EXECUTOR, slots=4)
        self.request_id = self.ask()
        self.attach(FIRST)
        self.acknowledge(self.attempt_of(self.request_id))

    def stay(self, *node_ids: int) -> None:
        """Only these go on."""
        for node_id in {EXECUTOR, FIRST, THIRD} - set(node_ids):
            self.heartbeat(node_id, paused=True)

    def drawn(self, *, spot_check: bool = True) -> str:
        """The executor returns; gives the audit's id."""
        attempt_id = self.attempt_of(self.request_id)
        self.complete(attempt_id, spot_check=spot_check)
        # Only now, so that it is not drawn first.
        self.attach(THIRD)
        return self.audit(self.request_id).audit_id

    def missing(self, audit_id: str, what: str) -> None:
        """No node takes the audit in time; or those that do never answer."""
        if what == "no_node":
            self.stay()
            unit = self.engine.audits[audit_id].unit
            attempt = unit.open_attempt
            if attempt is not None:
                self.returned(attempt.attempt_id, "declined", code="node.busy")
            self.advance(self.settings.audit_queue_ms)
            return
        while audit_id in self.engine.audits:
            attempt = self.engine.audits[audit_id].unit.open_attempt
            if attempt is None:
                node_id = 4 + len(self.engine.registrations)
                self.attach(node_id)
                continue
            self.returned(attempt.attempt_id, "failed", code="node.runtime_failed")

    def reach(self, stage: str) -> str:
        audit_id = self.drawn(spot_check=stage != "whole")
        if stage == "third":
            self.answer_audit(audit_id, "disagree")
        elif stage == "second":
            self.answer_audit(audit_id, "unusable")
        elif stage == "prepared":
            self.answer_audit(audit_id, "agree")
            (audit_id,) = self.engine.audits
        return audit_id

    def weighed(self) -> dict[str, str]:
        """`good` or `bad`, of each that something was learned of."""
        found: dict[str, str] = {}
        for name, node_id, role in (
            ("executor", EXECUTOR, "executor"),
            ("comparable", EXECUTOR, "unusable"),
            ("auditor", FIRST, "auditor"),
            ("prepared", THIRD, "auditor"),
        ):
            change = self.engine.trust.of(node_id).millinats(role) - BEFORE  # pyright: ignore[reportArgumentType]
            if change:
                found[name] = "bad" if change > 0 else "good"
        return found

    def doubt_everybody(self) -> None:
        """So that a pass shows too."""
        for node_id in (EXECUTOR, FIRST, THIRD):
            trust = self.engine.trust.of(node_id)
            trust.executor_millinats = trust.auditor_millinats = trust.unusable_millinats = BEFORE


BEFORE = 10_000


def cases() -> list[Any]:
    return [pytest.param(*case, TABLE[case], id="-".join(map(str, case))) for case in TABLE]


@pytest.mark.parametrize(("stage", "outcome", "third", "expected"), cases())
def test_every_row_of_the_table_is_what_the_engine_does(stage: str, outcome: str, third: Any, expected: Any) -> None:
    world = Scene(prepared_percent=100 if stage == "prepared" else 0)
    audit_id = world.reach(stage)
    world.doubt_everybody()
    charge_wei = int(world.row(world.request_id).charge_wei)
    told = len(world.effects)
    if outcome in MISSING:
        world.missing(audit_id, outcome)
    else:
        unauditable = outcome == "unauditable"
        reason = RERUN_UNAUDITABLE if unauditable else "of_the_finding"
        world.answer_audit(audit_id, "unusable" if unauditable else outcome, third, reason=reason)
    if isinstance(expected, AskThird):
        assert world.engine.audits[audit_id].stage == "third"
        assert world.auditors[audit_id][-1] not in {EXECUTOR, FIRST} and len(world.auditors[audit_id]) == 2
        return
    if isinstance(expected, AskSecond):
        assert world.engine.audits[audit_id].stage == "second"
        assert world.auditors[audit_id] == [FIRST, THIRD]
        return
    if isinstance(expected, RunWhole):
        assert world.engine.audits[audit_id].stage == "whole"
        assert effects.RunAgain(audit_id=audit_id) in world.effects[told:]
        assert world.engine.audits[audit_id].unit.need.tokens == 100, "the unit is asked for whole"
        return
    row = world.tables["audits"][(audit_id,)]
    assert isinstance(row, AuditRow) and audit_id not in world.engine.audits
    assert (row.verdict, row.reason) == (expected.verdict, expected.reason or "of_the_finding")
    ended = [effect for effect in world.effects[told:] if isinstance(effect, effects.AuditEnded)]
    assert [(effect.audit_id, effect.verdict) for effect in ended] == [(audit_id, expected.verdict)]
    overturned = expected.verdict == "disagree" and stage != "prepared"
    assert int(row.refunded_wei) == ended[0].refunded_wei == (charge_wei if overturned else 0)
    whom = "prepared" if stage in ("prepared", "second") else "auditor"
    said = {"executor": expected.executor, "comparable": expected.comparable, whom: expected.auditor}
    assert world.weighed() == {name: what for name, what in said.items() if what}
    rejected = {effect.node_id for effect in world.effects[told:] if isinstance(effect, effects.TellRejection)}
    assert rejected == {
        *({EXECUTOR} if expected.executor == "bad" else ()),
        *({THIRD if stage == "prepared" else FIRST} if expected.auditor == "bad" else ()),
    }
    assert world.logged("audit.ended")[-1]["flagged"] == expected.flagged
    verdicts = [record for record in world.records.values() if isinstance(record, AuditRecord)]
    assert len(verdicts) == 1, "one record of an audit, whatever is asked of auditors besides"
    if stage != "prepared":
        assert (verdicts[0].verdict, verdicts[0].reason) == (row.verdict, row.reason)
        world.advance(10 * SECOND)
        world.confirm_batches()
        charged = world.transfers("charge")
        assert charged == ({} if overturned else {world.request_id: charge_wei})
        world.check_all_ended()


def test_whatever_is_not_in_the_table_raises() -> None:
    with pytest.raises(NoSuchCase, match="stage first cannot be answered agree with agree"):
        ruling("first", "agree", "agree")


def test_a_verdict_against_somebody_rests_on_two_of_three() -> None:
    """Nobody is found bad by one answer alone."""
    for (stage, outcome, third), follows in TABLE.items():
        if isinstance(follows, Ends) and "bad" in (follows.executor, follows.auditor):
            assert stage in ("third", "prepared"), (stage, outcome)
            assert stage == "prepared" or (outcome == "agree") != (third == "agree")
