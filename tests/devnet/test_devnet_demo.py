from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import network_scene as scene
import pytest

import services
from parallelix.devnet import demo
from parallelix.devnet.circle import Claim
from parallelix.devnet.evidence import CONTROLS
from parallelix.devnet.report import Report
from parallelix.engine.rows import AttemptRow
from parallelix.terminal import Console

PAGE = (services.REPOSITORY / "docs" / "devnet.md").read_text()
IN_ORDER = {number: 1000.0 + number for number in range(1, 15)}


def attempt(number: int, state: str, node: int) -> AttemptRow:
    return AttemptRow(
        attempt_id=f"att_{number:032x}",
        request_id=scene.request_id(number),
        number=1,
        node_id=str(node),
        state=state,
        reason="",
        model_digest="ab" * 32,
        dispatched_at=1,
        started_at=2,
        deadline_at=3,
        finished_at=4,
    )


def outcome(*attempts: AttemptRow, steps: dict[int, float] | None = None) -> demo.Outcome:
    killed = demo.Killed(
        number=1, node_id="1001", request_id=scene.request_id(0), attempt_id=attempt(0, "", 0).attempt_id
    )
    by_request = {scene.request_id(0): steps if steps is not None else IN_ORDER}
    return demo.Outcome(
        evidence=scene.evidence(),
        attempts=list(attempts),
        steps=by_request,
        killed=killed,
        seconds=1.0,
        audited=demo.Audited(removed=True, served=7, opened=2, verdicts={"agree": 1, "disagree": 1}),
    )


LOST, REJECTED = attempt(0, "lost", 1001), attempt(1, "rejected", 1003)


def test_it_has_happened_only_when_a_node_died_at_work_and_a_cheat_was_caught() -> None:
    assert demo.happened(outcome(LOST, REJECTED)) == []
    assert demo.happened(outcome(REJECTED)) == ["the killed node took no request with it"]
    assert demo.happened(outcome(attempt(0, "completed", 1001), REJECTED)) == [
        "the killed node took no request with it"
    ]
    assert demo.happened(outcome(LOST)) == ["no tampered result was rejected"]
    assert len(demo.happened(outcome(LOST, REJECTED, steps={1: 5.0}))) == 1
    stays = replace(outcome(LOST, REJECTED), audited=demo.Audited(removed=False, served=90, opened=9, verdicts={}))
    assert demo.happened(stays) == ["audits did not remove node 4, which runs another model than it says"]


@pytest.mark.parametrize(
    ("changes", "in_order"),
    [({}, True), ({8: 1006.0}, True), ({8: 1000.0}, False), ({14: 1001.0}, False), ({9: None}, False)],
)
def test_the_fourteen_steps_must_all_be_there_one_after_the_other(
    changes: dict[int, float | None], in_order: bool
) -> None:
    steps = {number: at for number, at in (IN_ORDER | changes).items() if at is not None}

    assert demo.steps_in_order(steps) is in_order


def test_every_line_fits_80_columns() -> None:
    found = scene.evidence()
    view = msgspec.structs.replace(found.views[scene.request_id(0)], hold_wei=str(9 * 10**21), charge_wei="1")

    assert max(map(len, [*demo.table(found), *demo.step_lines(view, IN_ORDER)])) <= 80


def test_prompts_differ_and_some_are_long() -> None:
    bodies = demo.prompts(demo.PROMPTS)

    assert len({msgspec.json.encode(body) for body in bodies}) == demo.PROMPTS
    assert Counter(body.response_format is not None for body in bodies)[True] == demo.PROMPTS // 3


CLAIMS = (
    "sign-in", "deposit", "anchor", "receipts", "audits", "settlement", "rewards", "claim", "impostor", "unstake",
    "stake", "withdrawal",
)  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "controls", "code"),
    [
        ([Claim(name="deposit", text="", facts={}, faults=())], [("a stranger's", True)], 0),
        ([Claim(name="deposit", text="", facts={}, faults=("a wei is missing",))], [("a stranger's", True)], 1),
        ([Claim(name="deposit", text="", facts={}, faults=())], [("a stranger's", False)], 1),
    ],
)
def test_it_fails_where_a_claim_about_a_contract_does_not_hold_or_a_fault_went_unnoticed(
    claims: list[Claim],
    controls: list[tuple[str, bool]],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    played = replace(outcome(LOST, REJECTED), claims=tuple(claims), controls=tuple(controls))
    written = Report("demo", "as a test", seed=1)

    assert demo.conclude(Console.standard(json=False), played, tmp_path / "demo.json", written) == code

    report = json.loads((tmp_path / "demo.json").read_text())
    assert report["passed"] is (code == 0)
    assert report["results"]["circle"][0]["name"] == "deposit"
    assert ("deposit: a wei is missing" in capsys.readouterr().out) is bool(claims[0].faults)


@pytest.mark.slow
def test_the_demonstration_succeeds_in_its_reduced_form(tmp_path: Path) -> None:
    services.anvil_binary()
    services.sablier_folder()
    path = tmp_path / "demo.json"
    command = [sys.executable, "-m", "parallelix.devnet.demo", "--requests", "12", "--report", str(path)]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    report = json.loads(path.read_text())
    results = report["results"]
    assert report["passed"] and {control["name"] for control in report["controls"]} > CONTROLS.keys()
    assert len(report["controls"]) == len(CONTROLS) + 24 and "twenty-four on the way" in " ".join(PAGE.split())
    assert [claim["name"] for claim in results["circle"]] == list(CLAIMS)
    assert (results["lost"], results["charged_twice"], results["chain_valid"]) == (0, 0, True)
    assert results["attempts_lost_with_the_killed_node"] and results["attempts_rejected"]
    assert {request["state"] for request in results["requests"]} == {"completed"} and len(results["requests"]) >= 12
    audits = results["audits"]
    assert audits["cheat_removed"] and audits["cheat_requests_until_removed"] <= demo.AUDITED_REQUESTS_MAX
    assert audits["verdicts"]["agree"] and audits["refunded"] == audits["verdicts"].get("disagree", 0)
    wanted = {"id", "state", "steps", "attempts", "tokens", "ms", "record_hash", "charge_wei", "hold_wei"}
    assert all(set(request) == wanted for request in results["requests"])
    assert any(len(request["steps"]) == 14 for request in results["requests"])
