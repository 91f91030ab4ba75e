from __future__ import annotations

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import (
    ACTIVE,
    COOLDOWN_SECONDS,
    MINIMUM_STAKE_WEI,
    LockerScene,
    deploy_locker,
    events,
    key_hash,
)


def test_registering_books_the_stake_and_says_so(scene: LockerScene, alice: str) -> None:
    stake_wei = 61_000 * 10**18 + 7
    scene.fund(alice, stake_wei)

    node_id = scene.locker.registerNode(stake_wei, 3, key_hash(5), sender=alice)

    assert events(scene.locker, scene.locker) == [
        (
            "NodeRegistered",
            {
                "nodeId": 1,
                "owner": alice,
                "nodeKeyHash": key_hash(5),
                "stake": stake_wei,
                "hardwareTier": 3,
                "totalPrincipal": stake_wei,
            },
        )
    ]
    assert node_id == 1
    assert scene.locker.nodes(1) == (alice, stake_wei, 3, ACTIVE, key_hash(5), 0)
    assert scene.locker.totalPrincipal() == scene.token.balanceOf(scene.locker.address) == stake_wei


def test_ids_count_from_one_and_are_never_used_again(scene: LockerScene, alice: str) -> None:
    assert scene.locker.nodeCount() == 0
    assert [scene.stake(alice), scene.stake(alice)] == [1, 2]
    scene.retire(2)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.locker.withdrawStake(2, sender=alice)

    assert scene.stake(alice) == scene.locker.nodeCount() == 3


def test_an_account_has_as_many_nodes_as_it_stakes_for(scene: LockerScene, alice: str) -> None:
    ids = [scene.stake(alice, tier=tier) for tier in (1, 2, 3, 4, 4, 4, 1)]

    assert [scene.locker.ownerOf(node_id) for node_id in ids] == [alice] * 7
    assert scene.locker.totalPrincipal() == 7 * MINIMUM_STAKE_WEI


def test_anybody_may_register_without_being_let_in(scene: LockerScene, alice: str, mallory: str) -> None:
    assert scene.stake(mallory) == 1
    assert scene.stake(alice) == 2


@pytest.mark.parametrize("tier", [0, 5, 2**256 - 1])
def test_a_tier_that_does_not_exist_is_refused(scene: LockerScene, alice: str, tier: int) -> None:
    scene.fund(alice, MINIMUM_STAKE_WEI)
    with scene.refused("locker: tier is not 1 to 4"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI, tier, key_hash(1), sender=alice)


@pytest.mark.parametrize("stake_wei", [0, 1, MINIMUM_STAKE_WEI - 1])
def test_less_than_the_minimum_is_refused(scene: LockerScene, alice: str, stake_wei: int) -> None:
    scene.fund(alice, MINIMUM_STAKE_WEI)
    with scene.refused("locker: below minimum stake"):
        scene.locker.registerNode(stake_wei, 1, key_hash(1), sender=alice)


def test_an_empty_key_hash_is_refused(scene: LockerScene, alice: str) -> None:
    scene.fund(alice, MINIMUM_STAKE_WEI)
    with scene.refused("locker: node key hash is empty"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, bytes(32), sender=alice)


def test_the_key_of_an_active_node_is_refused_to_everybody(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice, key=9)
    for account in (alice, mallory):
        scene.fund(account, MINIMUM_STAKE_WEI)
        with scene.refused("locker: node key is in use"):
            scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(9), sender=account)


def test_a_key_is_free_again_when_its_node_retires(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice, key=9)
    scene.retire(1)
    assert scene.locker.nodeOfKey(key_hash(9)) == 0

    assert scene.stake(mallory, key=9) == scene.locker.nodeOfKey(key_hash(9)) == 2


def test_the_second_life_of_a_key_survives_the_withdrawal_of_its_first_node(scene: LockerScene, alice: str) -> None:
    scene.stake(alice, key=9)
    scene.retire(1)
    scene.stake(alice, key=9)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.locker.withdrawStake(1, sender=alice)

    assert scene.locker.nodeOfKey(key_hash(9)) == 2


def test_without_an_exemption_no_stake_is_taken(alice: str) -> None:
    taxed = deploy_locker(exempt=False)
    taxed.fund(alice, MINIMUM_STAKE_WEI)
    with taxed.refused("locker: not exempt from the transfer tax"):
        taxed.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=alice)

    taxed.token.addExemption(taxed.locker.address, sender=taxed.deployer)
    assert taxed.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=alice) == 1


def test_without_an_allowance_the_token_refuses(scene: LockerScene, alice: str) -> None:
    scene.token.transfer(alice, MINIMUM_STAKE_WEI, sender=scene.deployer)
    with scene.refused("erc20: insufficient allowance"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=alice)


def test_without_the_tokens_the_token_refuses(scene: LockerScene, alice: str) -> None:
    scene.fund(alice, MINIMUM_STAKE_WEI)
    with scene.refused("erc20: transfer amount exceeds balance"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI + 1, 1, key_hash(1), sender=alice)


def test_what_a_taxing_token_leaves_of_50000_is_below_the_minimum(hostile_token_scene: LockerScene, alice: str) -> None:
    scene = hostile_token_scene
    scene.fund(alice, MINIMUM_STAKE_WEI)
    scene.token.behave(TokenMode.TAX_IN)
    with scene.refused("locker: below minimum stake"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=alice)


def test_what_arrived_is_booked_and_not_what_was_asked_for(hostile_token_scene: LockerScene, alice: str) -> None:
    scene = hostile_token_scene
    scene.fund(alice, 52_084 * 10**18)
    scene.token.behave(TokenMode.TAX_IN)

    scene.locker.registerNode(52_084 * 10**18, 1, key_hash(1), sender=alice)

    arrived_wei = 50_000_64 * 10**16
    assert scene.locker.nodes(1).stake == scene.locker.totalPrincipal() == arrived_wei
    assert scene.token.balanceOf(scene.locker.address) == arrived_wei


def test_what_lay_here_before_is_nobodys_stake(scene: LockerScene, alice: str) -> None:
    scene.token.transfer(scene.locker.address, 10 * MINIMUM_STAKE_WEI, sender=scene.deployer)

    scene.stake(alice)

    assert scene.locker.nodes(1).stake == scene.locker.totalPrincipal() == MINIMUM_STAKE_WEI


def test_a_token_that_says_it_failed_is_believed(hostile_token_scene: LockerScene, alice: str) -> None:
    scene = hostile_token_scene
    scene.fund(alice, MINIMUM_STAKE_WEI)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("locker: token transfer failed"):
        scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=alice)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("registerNode", (MINIMUM_STAKE_WEI, 1, key_hash(2))),
        ("recoverSurplus", ()),
        ("requestUnstake", (1,)),
        ("withdrawStake", (2,)),
    ],
)
def test_a_token_that_calls_back_meets_the_lock(
    hostile_token_scene: LockerScene, function: str, arguments: tuple[object, ...]
) -> None:
    scene = hostile_token_scene
    owner = scene.token.address
    scene.stake(owner, key=1)
    scene.stake(owner)
    scene.retire(2)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.fund(owner, 2 * MINIMUM_STAKE_WEI)
    scene.token.transfer(scene.locker.address, 1, sender=scene.deployer)
    scene.token.callBack(scene.locker.address, getattr(scene.locker, function).prepare_calldata(*arguments))

    assert scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(3), sender=owner) == 3

    assert (scene.token.callsTried(), scene.token.callsDone()) == (1, 0)
    assert scene.locker.totalPrincipal() == 3 * MINIMUM_STAKE_WEI
