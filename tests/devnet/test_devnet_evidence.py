from __future__ import annotations

from dataclasses import replace

import msgspec
import network_scene as scene
import pytest

from parallelix.devnet import evidence
from parallelix.devnet.evidence import CONTROLS, Evidence, Findings, judge

HONEST = scene.evidence()
FIRST = scene.request_id(0)


def test_nothing_is_found_where_everything_is_in_order() -> None:
    assert judge(HONEST).all() == []


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_is_noticed_by_the_check_that_it_is_for(name: str) -> None:
    finding, alter = CONTROLS[name]

    assert getattr(judge(alter(HONEST)), finding) != []


def test_a_judge_that_sees_nothing_fails_every_control(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(_evidence: Evidence) -> Findings:
        return Findings()

    monkeypatch.setattr(evidence, "judge", blind)

    assert [caught for _, caught in evidence.controls(HONEST)] == [False] * len(CONTROLS)


def test_a_control_that_cannot_be_made_was_not_noticed() -> None:
    nothing = replace(HONEST, views={}, receipts={}, chain=(), transfers=())

    assert not any(caught for _, caught in evidence.controls(nothing))


@pytest.mark.parametrize("finding", ["lost", "charged_twice", "chain", "ledger"])
def test_every_kind_of_finding_has_a_control(finding: str) -> None:
    assert finding in {name for name, _ in CONTROLS.values()}


def test_a_request_that_nobody_asked_for_is_found() -> None:
    asked = {key: body for key, body in HONEST.asked.items() if key != FIRST}

    assert judge(replace(HONEST, asked=asked)).lost == [f"{FIRST}: nobody asked for it"]


def test_a_receipt_without_its_batch_is_not_enough() -> None:
    early = msgspec.structs.replace(HONEST.receipts[FIRST], batch=None, proof=None)

    found = judge(replace(HONEST, receipts={**HONEST.receipts, FIRST: early})).chain

    assert len(found) == 1 and "anchored" in found[0]


def test_what_was_charged_and_not_shared_out_is_found() -> None:
    unshared = tuple(each for each in HONEST.transfers if each.debit_account != "usage")

    assert judge(replace(HONEST, transfers=unshared)).ledger == ["usage: 1020 wei were charged and not shared out"]
