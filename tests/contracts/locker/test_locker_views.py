from __future__ import annotations

import boa
from locker_scene import ACTIVE, COOLDOWN_SECONDS, MINIMUM_STAKE_WEI, NOBODY, WITHDRAWN, LockerScene, key_hash


def test_of_a_node_that_never_was_all_views_are_empty(scene: LockerScene, alice: str) -> None:
    scene.stake(alice)
    for node_id in (0, 2):
        assert scene.locker.ownerOf(node_id) == NOBODY
        assert scene.locker.registration(node_id) == (NOBODY, 0, 0, 0)
        assert scene.locker.nodes(node_id) == (NOBODY, 0, 0, 0, bytes(32), 0)
    assert scene.locker.nodeOfKey(key_hash(1)) == 0


def test_the_views_of_an_active_node_agree(scene: LockerScene, alice: str) -> None:
    scene.stake(alice, tier=3, key=8)

    assert scene.locker.registration(1) == (alice, MINIMUM_STAKE_WEI, 3, ACTIVE)
    assert scene.locker.nodes(1) == (alice, MINIMUM_STAKE_WEI, 3, ACTIVE, key_hash(8), 0)
    assert scene.locker.nodeOfKey(key_hash(8)) == 1


def test_a_withdrawn_node_is_remembered(scene: LockerScene, alice: str) -> None:
    scene.stake(alice, tier=3)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.locker.withdrawStake(1, sender=alice)

    assert scene.locker.ownerOf(1) == alice
    assert scene.locker.registration(1) == (alice, MINIMUM_STAKE_WEI, 3, WITHDRAWN)
