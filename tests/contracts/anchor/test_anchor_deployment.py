from __future__ import annotations

from typing import Any

import boa
from anchor_scene import DEPLOYER, EMPTY, EMPTY_ROOT, VALIDATOR, ZERO_ADDRESS, deploy_anchor
from logs import events_of

CALLS = {
    "accept_ownership()",
    "anchorBatch(bytes32,bytes32,uint64,uint64,bytes32,uint64,uint64)",
    "commitSampling(uint64,bytes32)",
    "revealSampling(uint64,bytes32)",
    "setValidator(address)",
    "transfer_ownership(address)",
}
VIEWS = {
    "batchCount()",
    "commitmentOf(uint64)",
    "committedEpochs()",
    "head()",
    "holds(uint256,bytes32)",
    "newestEpoch()",
    "nextSequence()",
    "owner()",
    "pending_owner()",
    "revealedEpochs()",
    "rootOf(uint256)",
    "secretOf(uint64)",
    "validator()",
    "verify(uint256,bytes32,uint64,uint64,bytes32[])",
}


def signatures(contract: Any, *mutability: str) -> set[str]:
    entries = [each for each in contract.abi if each["type"] == "function" and each["stateMutability"] in mutability]
    return {f"{each['name']}({','.join(one['type'] for one in each['inputs'])})" for each in entries}


def test_a_new_anchor_holds_the_batch_of_no_records_and_nothing_else() -> None:
    anchor = deploy_anchor()

    assert events_of(anchor) == [
        ("OwnershipTransferred", {"previous_owner": ZERO_ADDRESS, "new_owner": DEPLOYER}),
        ("ValidatorChanged", {"previous": ZERO_ADDRESS, "current": VALIDATOR}),
    ]
    assert (anchor.owner(), anchor.validator()) == (DEPLOYER, VALIDATOR)
    assert (anchor.head(), anchor.batchCount(), anchor.nextSequence(), anchor.newestEpoch()) == (EMPTY, 1, 0, 0)
    assert (anchor.committedEpochs(), anchor.revealedEpochs()) == (0, 0)
    assert (anchor.rootOf(0), anchor.rootOf(1)) == (EMPTY_ROOT, EMPTY)


def test_no_validator_is_refused() -> None:
    with boa.reverts(vm_error="anchor: zero address"):
        deploy_anchor(validator=ZERO_ADDRESS)


def test_nothing_but_these_changes_the_anchor(anchor: Any) -> None:
    """None of them takes a batch back, changes one or moves the chain to another head."""
    assert signatures(anchor, "nonpayable", "payable") == CALLS
    assert signatures(anchor, "payable") == set()


def test_nothing_but_these_can_be_asked(anchor: Any) -> None:
    assert signatures(anchor, "view", "pure") == VIEWS
    assert not [each for each in anchor.abi if each["type"] in {"fallback", "receive"}]
