from __future__ import annotations

from anchor_machine import AnchorMachine
from harness import run_machine

REFUSALS = {
    "anchor: already revealed",
    "anchor: caller is not the validator",
    "anchor: commitment is empty",
    "anchor: count does not match first and last",
    "anchor: empty batch",
    "anchor: too many records",
    "anchor: epoch before last is not revealed",
    "anchor: epoch goes backwards",
    "anchor: epoch has no successor yet",
    "anchor: epoch is not committed",
    "anchor: epoch is not the next",
    "anchor: first is not the next record",
    "anchor: head hash is empty",
    "anchor: merkle root is empty",
    "anchor: previous hash is not the head",
    "anchor: secret does not match",
    "anchor: zero address",
    "ownable: caller is not the owner",
    "ownable_2step: caller is not the new owner",
}


def test_the_anchor_and_its_model_agree_after_every_call() -> None:
    tally = run_machine(AnchorMachine, calls=1_500, seed=1)

    tally.require_both_outcomes()
    assert set(tally.rules) == {
        "accept_ownership",
        "anchorBatch",
        "commitSampling",
        "revealSampling",
        "setValidator",
        "transfer_ownership",
    }
    assert set(tally.reasons) == REFUSALS
