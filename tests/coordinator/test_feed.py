"""What followers see of a request, however they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelix.coordinator.errors import Unavailable
from parallelix.coordinator.feed import (
    NOTES_MAX,
    Delta,
    Ended,
    Feed,
    Outcome,
    Position,
    Progress,
    Restarted,
    StreamItem,
)
from parallelix.protocol.work import Entry

DONE = Outcome(request_id="req_1", state="completed")
WORDS = st.lists(st.text(min_size=1, max_size=4), max_size=12)


def entries(*texts: str) -> tuple[Entry, ...]:
    return tuple(Entry(text=text, logprob=None) for text in texts)


async def shown(items: AsyncIterator[StreamItem]) -> list[StreamItem]:
    return [item async for item in items]


async def until(items: AsyncIterator[StreamItem], count: int) -> list[StreamItem]:
    found: list[StreamItem] = []
    async for item in items:
        found.append(item)
        if len(found) == count:
            break
    return found


def text_of(items: list[StreamItem]) -> str:
    """As a client keeps it: a restart voids what came before."""
    text = ""
    for item in items:
        if isinstance(item, Restarted):
            text = ""
        elif isinstance(item, Delta):
            assert len(text.encode()) == item.offset_bytes
            text += item.text
    return text


async def test_a_follower_reads_notes_then_text_then_one_end() -> None:
    feed = Feed()
    feed.begin(1)
    feed.note(Progress(kind="dispatched", attempt_number=1))
    feed.add(entries("Hel", "lo"))
    feed.end(DONE)
    items = await shown(feed.follow())
    assert [type(item) for item in items] == [Progress, Delta, Ended]
    assert text_of(items) == "Hello"


@settings(max_examples=60, deadline=None)
@given(words=WORDS, cut=st.integers(0, 12))
def test_a_follower_that_comes_back_gets_exactly_what_it_lacks(words: list[str], cut: int) -> None:
    async def scene() -> None:
        feed = Feed()
        feed.begin(1)
        feed.add(entries(*words[:cut]))
        had = "".join(words[:cut])
        feed.add(entries(*words[cut:]))
        feed.end(DONE)
        after = Position(attempt_number=1, offset_bytes=len(had.encode()))
        rest = "".join(item.text for item in await shown(feed.follow(after)) if isinstance(item, Delta))
        assert had + rest == "".join(words)

    asyncio.run(scene())


async def test_text_of_a_dead_attempt_is_voided_for_whoever_saw_some() -> None:
    feed = Feed()
    feed.begin(1)
    feed.add(entries("wrong"))
    reader = feed.follow()
    seen = [await anext(reader)]
    feed.begin(2)
    feed.add(entries("right"))
    feed.end(DONE)
    seen += [item async for item in reader]
    assert [type(item) for item in seen] == [Delta, Restarted, Delta, Ended]
    assert text_of(seen) == "right"


async def test_whoever_saw_no_text_hears_of_no_restart() -> None:
    feed = Feed()
    feed.begin(1)
    reader = shown(feed.follow())
    feed.begin(2)
    feed.add(entries("right"))
    feed.end(DONE)
    assert [type(item) for item in await reader] == [Delta, Ended]


async def test_a_place_in_a_dead_attempt_begins_the_new_one_from_its_start() -> None:
    feed = Feed()
    feed.begin(1)
    feed.add(entries("wrong"))
    feed.begin(2)
    feed.add(entries("right"))
    feed.end(DONE)
    items = await shown(feed.follow(Position(attempt_number=1, offset_bytes=5)))
    assert [type(item) for item in items] == [Restarted, Delta, Ended]
    assert text_of(items) == "right"


async def test_a_feed_that_begins_anew_shows_a_follower_only_what_it_lacks() -> None:
    """After a restart of the coordinator the node sends its text once more, from its beginning."""
    feed = Feed()
    feed.begin(1)
    following = feed.follow(Position(attempt_number=1, offset_bytes=4))
    task = asyncio.create_task(shown(following))
    for part in (("ab", "cd"), ("ef",), ("gh",)):
        await asyncio.sleep(0)
        feed.add(entries(*part))
    await asyncio.sleep(0)
    feed.end(DONE)
    deltas = [item for item in await task if isinstance(item, Delta)]
    assert "".join(delta.text for delta in deltas) == "efgh"
    assert deltas[0].offset_bytes == 4


async def test_a_stop_ends_every_follower_and_every_later_one() -> None:
    feed = Feed()
    feed.begin(1)
    feed.add(entries("ab"))
    followers = [asyncio.create_task(shown(feed.follow())), asyncio.create_task(feed.wait_end())]
    await asyncio.sleep(0)
    feed.stop()
    late = asyncio.create_task(shown(feed.follow(Position(attempt_number=1, offset_bytes=2))))
    for each in (*followers, late):
        with pytest.raises(Unavailable) as refused:
            await each
        assert refused.value.code == "stopping"
    assert feed.followers == 0


async def test_an_older_attempt_cannot_begin_again() -> None:
    feed = Feed()
    feed.begin(2)
    feed.add(entries("right"))
    feed.begin(1)
    assert (feed.attempt_number, feed.text()) == (2, "right")


async def test_waiting_followers_wake_for_each_piece_and_for_the_end() -> None:
    feed = Feed()
    feed.begin(1)
    reader = asyncio.create_task(shown(feed.follow()))
    ending = asyncio.create_task(feed.wait_end())
    for text in ("a", "b"):
        await asyncio.sleep(0)
        feed.add(entries(text))
        await asyncio.sleep(0)
    assert not ending.done()
    feed.end(DONE)
    assert [item.text for item in await reader if isinstance(item, Delta)] == ["a", "b"]
    assert await ending is DONE


async def test_a_follower_that_leaves_is_not_counted_and_leaves_nothing_behind() -> None:
    feed = Feed()
    feed.begin(1)
    feed.add(entries("a"))
    reader = asyncio.create_task(shown(feed.follow()))
    await asyncio.sleep(0)
    assert feed.followers == 1
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert feed.followers == 0
    feed.end(DONE)


async def test_notes_are_bounded_and_the_end_still_comes() -> None:
    feed = Feed()
    for number in range(3 * NOTES_MAX):
        feed.note(Progress(kind="held", attempt_number=0, reason=str(number)))
    feed.end(DONE)
    items = await shown(feed.follow())
    assert len(items) == NOTES_MAX + 1
    assert isinstance(items[-1], Ended)


async def test_offsets_count_utf8_bytes() -> None:
    feed = Feed()
    feed.begin(1)
    feed.add(entries("é", "漢", "🙂"))
    assert feed.ends == [2, 5, 9]
    items = await until(feed.follow(Position(attempt_number=1, offset_bytes=5)), 1)
    assert isinstance(items[0], Delta)
    assert (items[0].text, items[0].offset_bytes) == ("🙂", 5)
