from __future__ import annotations

from harness import run_machine
from prlx_machine import PrlxMachine

REFUSALS = {
    "ecdsa: invalid signature `s` value",
    "erc20: approve to the zero address",
    "erc20: expired deadline",
    "erc20: insufficient allowance",
    "erc20: invalid signature",
    "erc20: transfer amount exceeds balance",
    "erc20: transfer to the zero address",
    "ownable: caller is not the owner",
    "ownable_2step: caller is not the new owner",
    "prlx: already exempt",
    "prlx: zero address",
}


def test_the_token_and_its_model_agree_after_every_call() -> None:
    tally = run_machine(PrlxMachine, calls=1_500, seed=1)

    tally.require_both_outcomes()
    assert set(tally.rules) == {
        "accept_ownership",
        "addExemption",
        "approve",
        "permit",
        "transfer",
        "transferFrom",
        "transfer_ownership",
    }
    assert set(tally.reasons) == REFUSALS
