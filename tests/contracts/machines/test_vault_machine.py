from __future__ import annotations

from harness import run_machine
from vault_machine import VaultMachine

REFUSALS = {
    "ecdsa: invalid signature `s` value",
    "ecdsa: invalid signature",
    "erc20: insufficient allowance",
    "erc20: transfer amount exceeds balance",
    "ownable: caller is not the owner",
    "ownable_2step: caller is not the new owner",
    "vault: already paused",
    "vault: amount is zero",
    "vault: caller is not the guardian",
    "vault: caller is not the settler",
    "vault: clearance exceeds the deposit",
    "vault: clearance has expired",
    "vault: clearance is not from the settler",
    "vault: clearance nonce is not the next",
    "vault: daily limit out of range",
    "vault: deposits are paused",
    "vault: no surplus",
    "vault: no withdrawal was requested",
    "vault: not exempt from the transfer tax",
    "vault: not paused",
    "vault: nothing left to withdraw",
    "vault: settlement is paused",
    "vault: withdrawal delay is not over",
    "vault: zero address",
}
"""Every one a call can meet, but for a token that says it failed."""

RULES = {
    "accept_ownership",
    "cancelWithdrawal",
    "deposit",
    "depositWithPermit",
    "pause",
    "recoverSurplus",
    "requestWithdrawal",
    "setDailyLimit",
    "setGuardian",
    "setSettler",
    "settle",
    "transfer_ownership",
    "unpause",
    "withdraw",
    "withdrawWithClearance",
}


def test_the_vault_and_its_model_agree_after_every_call() -> None:
    tally = run_machine(VaultMachine, calls=1_500, seed=1)

    tally.require_both_outcomes()
    assert set(tally.rules) == RULES
    assert set(tally.reasons) == REFUSALS
