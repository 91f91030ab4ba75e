from __future__ import annotations

import boa
import pytest
from locker_scene import events
from vault_scene import (
    DAY_SECONDS,
    DEFAULT_LIMIT_WEI,
    DELAY_SECONDS,
    LIMIT_WEI_MAX,
    PRLX,
    VaultScene,
    deploy_vault,
    go_to,
)


def test_who_set_no_limit_has_the_default(scene: VaultScene, mallory: str) -> None:
    assert scene.vault.dailyLimit(mallory) == DEFAULT_LIMIT_WEI
    assert scene.vault.pendingDailyLimit(mallory) == (0, 0)


def test_raising_acts_at_once(scene: VaultScene, alice: str, bob: str) -> None:
    scene.vault.setDailyLimit(60 * PRLX, sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("DailyLimitSet", {"account": alice, "limit": 60 * PRLX, "effectiveFrom": boa.env.timestamp})
    ]
    assert scene.vault.dailyLimit(alice) == 60 * PRLX
    assert scene.vault.dailyLimit(bob) == DEFAULT_LIMIT_WEI


@pytest.mark.parametrize(
    ("second", "days"), [(0, 2), (1, 3), (43_200, 3), (DAY_SECONDS - 1, 3)], ids=["midnight", "after", "noon", "before"]
)
def test_lowering_acts_at_the_first_midnight_after_the_delay_and_a_day(
    scene: VaultScene, alice: str, second: int, days: int
) -> None:
    go_to(second=second)
    acts_at = boa.env.timestamp - second + days * DAY_SECONDS

    scene.vault.setDailyLimit(5 * PRLX, sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("DailyLimitSet", {"account": alice, "limit": 5 * PRLX, "effectiveFrom": acts_at})
    ]
    assert acts_at - boa.env.timestamp >= DELAY_SECONDS + DAY_SECONDS
    assert scene.vault.pendingDailyLimit(alice) == (5 * PRLX, acts_at)
    boa.env.time_travel(seconds=acts_at - 1 - boa.env.timestamp)
    assert scene.vault.dailyLimit(alice) == DEFAULT_LIMIT_WEI
    boa.env.time_travel(seconds=1)
    assert scene.vault.dailyLimit(alice) == 5 * PRLX
    assert scene.vault.pendingDailyLimit(alice) == (0, 0)


def test_with_the_shortest_delay_a_whole_day_is_still_left_to_settle() -> None:
    with boa.env.anchor():
        scene = deploy_vault(delay_seconds=1)
        alice = scene.depositor("alice", 100 * PRLX)
        go_to(second=DAY_SECONDS - 2)
        midnight = boa.env.timestamp + 2
        scene.vault.setDailyLimit(0, sender=alice)
        assert scene.vault.pendingDailyLimit(alice) == (0, midnight + DAY_SECONDS)


def test_lowering_again_waits_anew(scene: VaultScene, alice: str) -> None:
    go_to(second=0)
    scene.vault.setDailyLimit(5 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DAY_SECONDS)
    midnight = boa.env.timestamp

    scene.vault.setDailyLimit(4 * PRLX, sender=alice)

    assert scene.vault.pendingDailyLimit(alice) == (4 * PRLX, midnight + 2 * DAY_SECONDS)
    go_to(days=1)
    assert scene.vault.dailyLimit(alice) == DEFAULT_LIMIT_WEI


def test_less_lowering_is_still_lowering(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(5 * PRLX, sender=alice)
    scene.vault.setDailyLimit(6 * PRLX, sender=alice)
    assert scene.vault.dailyLimit(alice) == DEFAULT_LIMIT_WEI
    assert scene.vault.pendingDailyLimit(alice)[0] == 6 * PRLX


@pytest.mark.parametrize("limit_wei", [DEFAULT_LIMIT_WEI, DEFAULT_LIMIT_WEI + 1])
def test_the_limit_of_now_or_more_takes_a_lowering_back(scene: VaultScene, alice: str, limit_wei: int) -> None:
    scene.vault.setDailyLimit(5 * PRLX, sender=alice)
    scene.vault.setDailyLimit(limit_wei, sender=alice)

    assert scene.vault.pendingDailyLimit(alice) == (0, 0)
    go_to(days=4)
    assert scene.vault.dailyLimit(alice) == limit_wei


def test_a_lowered_limit_is_raised_at_once(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(5 * PRLX, sender=alice)
    go_to(days=4)
    scene.vault.setDailyLimit(6 * PRLX, sender=alice)
    assert scene.vault.dailyLimit(alice) == 6 * PRLX


def test_a_limit_of_nothing_is_a_limit(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(0, sender=alice)
    go_to(days=4)
    assert scene.vault.dailyLimit(alice) == 0
    scene.vault.setDailyLimit(0, sender=alice)
    assert scene.vault.dailyLimit(alice) == 0


def test_the_largest_limit_fits(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(LIMIT_WEI_MAX, sender=alice)
    assert scene.vault.dailyLimit(alice) == LIMIT_WEI_MAX
    scene.vault.setDailyLimit(LIMIT_WEI_MAX - 1, sender=alice)
    assert scene.vault.dailyLimit(alice) == LIMIT_WEI_MAX
    assert scene.vault.pendingDailyLimit(alice)[0] == LIMIT_WEI_MAX - 1


@pytest.mark.parametrize("limit_wei", [LIMIT_WEI_MAX + 1, 2**256 - 1])
def test_a_limit_that_has_no_room_is_refused(scene: VaultScene, alice: str, limit_wei: int) -> None:
    with scene.refused("vault: daily limit out of range"):
        scene.vault.setDailyLimit(limit_wei, sender=alice)


def test_a_limit_can_be_set_while_the_vault_is_paused(scene: VaultScene, alice: str) -> None:
    scene.vault.pause(sender=scene.guardian)
    scene.vault.setDailyLimit(60 * PRLX, sender=alice)
    assert scene.vault.dailyLimit(alice) == 60 * PRLX
