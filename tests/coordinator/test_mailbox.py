"""A node's inbox delivers everything at least once, and to a node that asks twice."""

from __future__ import annotations

import asyncio

import pytest

from parallelix.coordinator.mailbox import NOTICES_MAX, REDELIVERY_MS, Mailbox
from parallelix.protocol.messages import Cancellation, Rejection, Work

NOW = 1_000_000
LONG_SECONDS = 60.0


def unit(number: int) -> Work:
    return Work(
        attempt_id=f"att_{number:032x}",
        attempt_number=1,
        unit_id=f"req_{number:064x}",
        workload_class="ai.inference",
        model="m",
        model_digest="0" * 64,
        deadline_seconds=10.0,
        payload="p",
        envelope="e",
    )


def cancellation(number: int) -> Cancellation:
    return Cancellation(attempt_id=f"att_{number:032x}", reason="cancelled", partial=True)


def delivered(mailbox: Mailbox, *, slots: int = 8, now: int = NOW) -> list[int]:
    inbox = mailbox.take(slots, now)
    return [] if inbox is None else [int(work.attempt_id[4:], 16) for work in inbox.work]


def test_work_comes_in_order_and_at_most_as_much_as_there_are_slots() -> None:
    mailbox = Mailbox()
    for number in range(5):
        mailbox.put_work(unit(number))
    assert delivered(mailbox, slots=0) == []
    assert delivered(mailbox, slots=2) == [0, 1]
    assert delivered(mailbox, slots=8) == [2, 3, 4]
    assert delivered(mailbox) == []


@pytest.mark.parametrize(("waited_ms", "again"), [(REDELIVERY_MS - 1, []), (REDELIVERY_MS, [7])])
def test_work_whose_delivery_may_be_lost_comes_again(waited_ms: int, again: list[int]) -> None:
    mailbox = Mailbox()
    mailbox.put_work(unit(7))
    assert delivered(mailbox) == [7]
    assert delivered(mailbox, now=NOW + waited_ms) == again


def test_acknowledged_work_never_comes_again() -> None:
    mailbox = Mailbox()
    mailbox.put_work(unit(7))
    assert delivered(mailbox) == [7]
    mailbox.drop_work(unit(7).attempt_id)
    assert delivered(mailbox, now=NOW + 10 * REDELIVERY_MS) == []


def test_work_that_was_never_delivered_is_withdrawn_without_a_word() -> None:
    mailbox = Mailbox()
    mailbox.put_work(unit(7))
    mailbox.cancel(cancellation(7))
    assert mailbox.take(8, NOW) is None


def test_a_node_that_has_the_work_is_told_to_stop_even_when_it_is_full() -> None:
    mailbox = Mailbox()
    mailbox.put_work(unit(7))
    assert delivered(mailbox) == [7]
    mailbox.cancel(cancellation(7))
    inbox = mailbox.take(0, NOW)
    assert inbox is not None
    assert (inbox.work, inbox.cancellations) == ((), (cancellation(7),))
    assert mailbox.take(8, NOW + 10 * REDELIVERY_MS) is None


def test_notices_are_bounded_and_the_newest_stay() -> None:
    mailbox = Mailbox()
    for number in range(NOTICES_MAX + 3):
        mailbox.tell(Rejection(attempt_id=f"att_{number:032x}", unit_id="req_1", reason="node.bad_poe", at=NOW))
    inbox = mailbox.take(0, NOW)
    assert inbox is not None
    assert [int(each.attempt_id[4:], 16) for each in inbox.rejections] == list(range(3, NOTICES_MAX + 3))


async def test_a_waiting_poll_ends_as_soon_as_work_is_there() -> None:
    mailbox = Mailbox()
    waiting = asyncio.create_task(mailbox.wait(LONG_SECONDS))
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.put_work(unit(1))
    await waiting
    assert delivered(mailbox) == [1]


async def test_a_second_poll_ends_the_first() -> None:
    mailbox = Mailbox()
    first = asyncio.create_task(mailbox.wait(LONG_SECONDS))
    await asyncio.sleep(0)
    second = asyncio.create_task(mailbox.wait(LONG_SECONDS))
    await first
    assert not second.done()
    mailbox.wake()
    await second


async def test_a_poll_ends_when_its_time_is_over() -> None:
    mailbox = Mailbox()
    await mailbox.wait(0.001)
    assert mailbox.take(8, NOW) is None
