"""Everything that can be asked of the token: what is not here, no key can do.

Nothing here removes an exemption, raises the tax or names another recipient of it, pauses or blocks a transfer, mints,
burns or gives ownership up.
"""

from __future__ import annotations

from typing import Any

import boa
import pytest
from eth.exceptions import Revert
from eth_utils.crypto import keccak
from prlx_scene import DEPLOYER

CALLS = {
    "accept_ownership()",
    "addExemption(address)",
    "approve(address,uint256)",
    "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
    "transfer(address,uint256)",
    "transferFrom(address,address,uint256)",
    "transfer_ownership(address)",
}
VIEWS = {
    "DOMAIN_SEPARATOR()",
    "TAX_BPS()",
    "allowance(address,address)",
    "balanceOf(address)",
    "decimals()",
    "eip712Domain()",
    "isExempt(address)",
    "name()",
    "nonces(address)",
    "owner()",
    "pending_owner()",
    "symbol()",
    "taxOn(address,address,uint256)",
    "taxRecipient()",
    "totalSupply()",
}


def signatures(token: Any, *mutability: str) -> set[str]:
    entries = [each for each in token.abi if each["type"] == "function" and each["stateMutability"] in mutability]
    return {f"{each['name']}({','.join(one['type'] for one in each['inputs'])})" for each in entries}


def test_nothing_but_these_changes_the_token(token: Any) -> None:
    assert signatures(token, "nonpayable", "payable") == CALLS


def test_nothing_but_these_can_be_asked(token: Any) -> None:
    assert signatures(token, "view", "pure") == VIEWS


def test_it_takes_no_ether_and_answers_no_other_call(token: Any) -> None:
    assert not [each for each in token.abi if each["type"] in {"fallback", "receive"}]
    assert signatures(token, "payable") == set()


@pytest.mark.parametrize(
    "function",
    [
        "mint(address,uint256)",
        "burn(uint256)",
        "burn_from(address,uint256)",
        "set_minter(address,bool)",
        "is_minter(address)",
        "renounce_ownership()",
    ],
)
def test_what_the_libraries_could_do_besides_is_not_in_the_code(token: Any, function: str) -> None:
    with pytest.raises(Revert) as refusal:
        boa.env.raw_call(token.address, sender=DEPLOYER, data=keccak(text=function)[:4] + bytes(64))

    assert refusal.value.args == (b"",)
