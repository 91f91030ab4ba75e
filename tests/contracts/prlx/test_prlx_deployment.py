from __future__ import annotations

from typing import Any

import boa
from logs import events_of
from prlx_scene import ALICE, BOB, CAROL, DEPLOYER, LOCKER, SUPPLY, TREASURY, ZERO_ADDRESS, deploy_token, moved
from sources import deployer_of


def test_the_deployer_holds_the_whole_supply_and_owns_the_token() -> None:
    token = deploy_token()

    assert (token.name(), token.symbol(), token.decimals()) == ("ParalleliX", "PRLX", 18)
    assert token.totalSupply() == token.balanceOf(DEPLOYER) == SUPPLY
    assert (token.owner(), token.pending_owner()) == (DEPLOYER, ZERO_ADDRESS)
    assert (token.taxRecipient(), token.TAX_BPS()) == (TREASURY, 400)


def test_deployment_logs_the_mint_and_both_exemptions() -> None:
    assert events_of(deploy_token()) == [
        ("OwnershipTransferred", {"previous_owner": ZERO_ADDRESS, "new_owner": DEPLOYER}),
        ("RoleMinterChanged", {"minter": DEPLOYER, "status": True}),
        moved(ZERO_ADDRESS, DEPLOYER, SUPPLY),
        ("ExemptionAdded", {"account": DEPLOYER}),
        ("ExemptionAdded", {"account": TREASURY}),
    ]


def test_only_deployer_and_tax_recipient_are_exempt_from_the_start() -> None:
    token = deploy_token()

    exempt = {account for account in (DEPLOYER, TREASURY, ALICE, BOB, CAROL, LOCKER) if token.isExempt(account)}

    assert exempt == {DEPLOYER, TREASURY}


def test_a_deployer_may_be_the_tax_recipient_too_and_is_exempted_once() -> None:
    token = deploy_token(tax_recipient=DEPLOYER)

    assert [name for name, _ in events_of(token)].count("ExemptionAdded") == 1
    assert token.isExempt(DEPLOYER)


def test_no_tax_recipient_is_refused() -> None:
    with boa.reverts(vm_error="prlx: zero address"):
        deploy_token(tax_recipient=ZERO_ADDRESS)


def test_the_tax_recipient_is_part_of_the_code_and_stands_in_no_storage_slot() -> None:
    layout: dict[str, Any] = deployer_of("PRLX").compiler_data.storage_layout

    assert "TAX_RECIPIENT" in layout["code_layout"]
    assert set(layout["storage_layout"]) == {"exempt", "erc20", "ownable", "ownable_2step"}
