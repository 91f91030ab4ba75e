from __future__ import annotations

from typing import Any

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import events
from vault_scene import (
    DAY_SECONDS,
    DEFAULT_LIMIT_WEI,
    DEPOSIT_GONE,
    LIMIT_REACHED,
    PRLX,
    STALE,
    VaultScene,
    deploy_vault,
    go_to,
)


def logged(scene: VaultScene) -> list[tuple[str, dict[str, Any]]]:
    return events(scene.vault, scene.vault)


def settled_event(account: str, amount: int, *, total: int, deposit: int) -> tuple[str, dict[str, Any]]:
    fields = {"account": account, "amount": amount, "cumulativeSettled": total, "deposit": deposit}
    return "SpendSettled", fields


def short_event(account: str, spent: int, *, settled: int, reason: int) -> tuple[str, dict[str, Any]]:
    return "SettlementShort", {"account": account, "cumulativeSpent": spent, "settled": settled, "reason": reason}


def split_event(operators: int, treasury: int, infrastructure: int) -> tuple[str, dict[str, Any]]:
    return "SpendSplit", {"operators": operators, "treasury": treasury, "infrastructure": infrastructure}


def test_spending_leaves_the_deposit_and_is_split(scene: VaultScene, alice: str, bob: str) -> None:
    scene.settle((alice, 20 * PRLX))

    assert logged(scene) == [
        settled_event(alice, 20 * PRLX, total=20 * PRLX, deposit=80 * PRLX),
        split_event(17 * PRLX, 2 * PRLX, PRLX),
    ]
    assert scene.account(alice)[:3] == (80 * PRLX, 20 * PRLX, 20 * PRLX)
    assert scene.shares() == (17 * PRLX, 2 * PRLX, PRLX)
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 90 * PRLX


def test_only_what_is_new_since_the_last_settlement_is_taken(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 20 * PRLX))
    scene.settle((alice, 23 * PRLX))

    assert logged(scene)[0] == settled_event(alice, 3 * PRLX, total=23 * PRLX, deposit=77 * PRLX)
    assert sum(scene.shares()) == 23 * PRLX


def test_many_accounts_are_settled_with_one_split(scene: VaultScene, alice: str, bob: str) -> None:
    scene.settle((alice, 7), (bob, 12))

    assert logged(scene) == [
        settled_event(alice, 7, total=7, deposit=100 * PRLX - 7),
        settled_event(bob, 12, total=12, deposit=10 * PRLX - 12),
        split_event(19 - 1 - 0, 1, 0),
    ]


@pytest.mark.parametrize(
    ("total_wei", "operators", "treasury", "infrastructure"),
    [
        (1, 1, 0, 0),
        (9, 9, 0, 0),
        (10, 9, 1, 0),
        (19, 18, 1, 0),
        (20, 17, 2, 1),
        (39, 35, 3, 1),
        (99, 86, 9, 4),
        (100, 85, 10, 5),
        (10**18 + 1, 85 * 10**16 + 1, 10**17, 5 * 10**16),
        (10**18 - 1, 85 * 10**16 + 1, 10**17 - 1, 5 * 10**16 - 1),
    ],
)
def test_the_shares_add_up_to_the_wei(
    scene: VaultScene, alice: str, total_wei: int, operators: int, treasury: int, infrastructure: int
) -> None:
    scene.settle((alice, total_wei))

    assert logged(scene)[-1] == split_event(operators, treasury, infrastructure)
    assert scene.shares() == (operators, treasury, infrastructure)
    assert sum(scene.shares()) == total_wei


def test_500_entries_are_settled_at_once_whatever_state_they_are_in(scene: VaultScene) -> None:
    deposits_wei = [400 + 20 * number for number in range(25)]
    accounts = [scene.depositor(f"account {number}", wei) for number, wei in enumerate(deposits_wei)]
    scene.settle((accounts[0], 300), (accounts[-1], 300))

    scene.settle(*((account, 30 * round_number) for round_number in range(1, 21) for account in accounts))

    names = [name for name, _ in logged(scene)]
    already_settled = [300] + [0] * 23 + [300]
    rounds = range(1, 21)
    stale = sum(30 * each <= wei for each in rounds for wei in already_settled)
    uncovered = sum(30 * each > wei for each in rounds for wei in deposits_wei)
    emptied_by_a_cut = sum(wei % 30 != 0 for wei in deposits_wei if wei < 600)
    assert names.count("SettlementShort") == stale + uncovered
    assert names.count("SpendSettled") == 500 - stale - uncovered + emptied_by_a_cut
    assert [scene.vault.settled(account) for account in accounts] == [min(600, wei) for wei in deposits_wei]
    assert sum(scene.shares()) == sum(min(600, wei) for wei in deposits_wei)


def test_more_than_500_entries_are_refused(scene: VaultScene, alice: str) -> None:
    before = scene.everything()
    with pytest.raises(boa.BoaError):
        scene.settle(*[(alice, 1)] * 501)
    assert scene.everything() == before

    scene.settle(*[(alice, 1)] * 500)
    assert scene.vault.settled(alice) == 1


def test_a_settlement_of_nobody_moves_nothing(scene: VaultScene, alice: str) -> None:
    before = scene.everything()
    scene.settle()
    assert logged(scene) == []
    assert scene.everything() == before


@pytest.mark.parametrize("spent_wei", [0, 1, 20 * PRLX - 1, 20 * PRLX])
def test_a_stale_entry_takes_nothing_and_the_others_go_on(
    scene: VaultScene, alice: str, bob: str, spent_wei: int
) -> None:
    scene.settle((alice, 20 * PRLX))

    scene.settle((alice, spent_wei), (bob, 100))

    assert logged(scene) == [
        short_event(alice, spent_wei, settled=20 * PRLX, reason=STALE),
        settled_event(bob, 100, total=100, deposit=10 * PRLX - 100),
        split_event(85, 10, 5),
    ]
    assert scene.account(alice)[:3] == (80 * PRLX, 20 * PRLX, 20 * PRLX)


@pytest.mark.parametrize("spent_wei", [10 * PRLX + 1, 2**96, 2**160, 2**256 - 1])
def test_an_entry_beyond_the_deposit_takes_what_is_there_and_the_others_go_on(
    scene: VaultScene, alice: str, bob: str, spent_wei: int
) -> None:
    scene.settle((bob, spent_wei), (alice, 100))

    assert logged(scene) == [
        settled_event(bob, 10 * PRLX, total=10 * PRLX, deposit=0),
        short_event(bob, spent_wei, settled=10 * PRLX, reason=DEPOSIT_GONE),
        settled_event(alice, 100, total=100, deposit=100 * PRLX - 100),
        split_event(*(share * (PRLX // 10) + share for share in (85, 10, 5))),
    ]


def test_an_account_without_a_deposit_pays_nothing_and_stops_nobody(
    scene: VaultScene, alice: str, mallory: str
) -> None:
    nobody = "0x" + "00" * 20
    scene.settle((mallory, 5), (nobody, 2**256 - 1), (scene.vault.address, 5), (alice, 100))

    assert [event for event in logged(scene) if event[0] == "SettlementShort"] == [
        short_event(mallory, 5, settled=0, reason=DEPOSIT_GONE),
        short_event(nobody, 2**256 - 1, settled=0, reason=DEPOSIT_GONE),
        short_event(scene.vault.address, 5, settled=0, reason=DEPOSIT_GONE),
    ]
    assert scene.vault.settled(alice) == 100


def test_what_a_short_entry_left_open_is_settled_from_a_later_deposit(scene: VaultScene, bob: str) -> None:
    scene.settle((bob, 15 * PRLX))
    scene.fund(bob, 10 * PRLX)
    scene.vault.deposit(10 * PRLX, sender=bob)

    scene.settle((bob, 15 * PRLX))

    assert scene.account(bob)[:2] == (5 * PRLX, 15 * PRLX)


def test_a_day_takes_no_more_than_its_limit(scene: VaultScene, alice: str) -> None:
    go_to(second=0)
    scene.settle((alice, 30 * PRLX))
    scene.settle((alice, 90 * PRLX))

    assert logged(scene) == [
        settled_event(alice, 20 * PRLX, total=50 * PRLX, deposit=50 * PRLX),
        short_event(alice, 90 * PRLX, settled=50 * PRLX, reason=LIMIT_REACHED),
        split_event(17 * PRLX, 2 * PRLX, PRLX),
    ]
    boa.env.time_travel(seconds=DAY_SECONDS - 1)
    scene.settle((alice, 90 * PRLX))
    assert logged(scene) == [short_event(alice, 90 * PRLX, settled=50 * PRLX, reason=LIMIT_REACHED)]

    boa.env.time_travel(seconds=1)
    assert scene.vault.settledToday(alice) == 0
    scene.settle((alice, 90 * PRLX))
    assert scene.account(alice)[:3] == (10 * PRLX, 90 * PRLX, 40 * PRLX)


def test_when_the_deposit_ends_with_the_limit_the_deposit_is_the_reason(scene: VaultScene) -> None:
    carol = scene.depositor("carol", DEFAULT_LIMIT_WEI)
    scene.settle((carol, DEFAULT_LIMIT_WEI + 1))
    assert logged(scene)[1] == short_event(carol, DEFAULT_LIMIT_WEI + 1, settled=DEFAULT_LIMIT_WEI, reason=DEPOSIT_GONE)


def test_the_limit_counts_for_each_account_alone(scene: VaultScene, alice: str) -> None:
    carol = scene.depositor("carol", 100 * PRLX)
    scene.settle((alice, 60 * PRLX), (carol, 60 * PRLX))
    assert scene.vault.settledToday(alice) == scene.vault.settledToday(carol) == 50 * PRLX


def test_a_raise_in_the_middle_of_a_day_leaves_room_for_the_difference(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 70 * PRLX))
    scene.vault.setDailyLimit(60 * PRLX, sender=alice)

    scene.settle((alice, 70 * PRLX))

    assert scene.account(alice)[:3] == (40 * PRLX, 60 * PRLX, 60 * PRLX)


def test_spending_already_made_is_settled_although_the_limit_was_lowered(scene: VaultScene, alice: str) -> None:
    go_to(second=DAY_SECONDS - 1)
    scene.vault.setDailyLimit(0, sender=alice)

    scene.settle((alice, 80 * PRLX))
    boa.env.time_travel(seconds=1)
    scene.settle((alice, 80 * PRLX))

    assert scene.vault.settled(alice) == 80 * PRLX


def test_a_limit_of_nothing_settles_nothing_once_it_acts(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(0, sender=alice)
    go_to(days=3)

    scene.settle((alice, 1))

    assert logged(scene) == [short_event(alice, 1, settled=0, reason=LIMIT_REACHED)]


def test_an_account_named_twice_is_settled_in_order(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 30 * PRLX), (alice, 10 * PRLX), (alice, 30 * PRLX), (alice, 40 * PRLX), (alice, 60 * PRLX))

    assert logged(scene) == [
        settled_event(alice, 30 * PRLX, total=30 * PRLX, deposit=70 * PRLX),
        short_event(alice, 10 * PRLX, settled=30 * PRLX, reason=STALE),
        short_event(alice, 30 * PRLX, settled=30 * PRLX, reason=STALE),
        settled_event(alice, 10 * PRLX, total=40 * PRLX, deposit=60 * PRLX),
        settled_event(alice, 10 * PRLX, total=50 * PRLX, deposit=50 * PRLX),
        short_event(alice, 60 * PRLX, settled=50 * PRLX, reason=LIMIT_REACHED),
        split_event(425 * PRLX // 10, 5 * PRLX, 25 * PRLX // 10),
    ]


def test_a_figure_that_was_too_high_is_made_good_by_later_spending(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 2**256 - 1))
    for honest_wei in (10 * PRLX, 50 * PRLX):
        scene.settle((alice, honest_wei))
        assert logged(scene) == [short_event(alice, honest_wei, settled=50 * PRLX, reason=STALE)]
    boa.env.time_travel(seconds=DAY_SECONDS)

    scene.settle((alice, 51 * PRLX))

    assert scene.vault.settled(alice) == 51 * PRLX


def test_a_receiver_may_be_a_requester_too(scene: VaultScene) -> None:
    scene.fund(scene.treasury, 100)
    scene.vault.deposit(100, sender=scene.treasury)

    scene.settle((scene.treasury, 100))

    assert scene.shares() == (85, 10, 5)
    assert scene.vault.deposits(scene.treasury) == 0


def test_nobody_but_the_settler_settles(scene: VaultScene, alice: str, mallory: str) -> None:
    for stranger in (mallory, alice, scene.owner, scene.guardian, scene.rewards):
        with scene.refused("vault: caller is not the settler"):
            scene.vault.settle([(alice, 1)], sender=stranger)


def test_a_paused_vault_settles_nothing(scene: VaultScene, alice: str) -> None:
    scene.vault.pause(sender=scene.guardian)
    with scene.refused("vault: settlement is paused"):
        scene.settle((alice, 1))

    scene.vault.unpause(sender=scene.owner)
    scene.settle((alice, 1))
    assert scene.vault.settled(alice) == 1


def test_a_token_that_says_it_failed_settles_nothing(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    alice = scene.depositor("alice", PRLX)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("vault: token transfer failed"):
        scene.settle((alice, 1))


def test_a_vault_with_a_default_limit_of_nothing_settles_only_who_set_one() -> None:
    with boa.env.anchor():
        scene = deploy_vault(limit_wei=0)
        alice, bob = scene.depositor("alice", 10), scene.depositor("bob", 10)
        scene.vault.setDailyLimit(4, sender=bob)
        scene.settle((alice, 5), (bob, 5))
        assert (scene.vault.settled(alice), scene.vault.settled(bob)) == (0, 4)
