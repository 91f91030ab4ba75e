from __future__ import annotations

import asyncio

import psycopg
import pytest
import store_scenes as scenes

from parallelix.coordinator.errors import BadRequest
from parallelix.coordinator.store.readers import (
    COMMAND_KEPT_MS,
    INTENT_KEPT_MS,
    PAYLOAD_KEPT_MS,
    Readers,
)
from parallelix.coordinator.store.rows import ClaimRow, CommandRow, EnvelopeRow, IntentRow, PayloadRow, ResultRow
from parallelix.coordinator.store.statements import Delete
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import RequestRow


async def pages(readers: Readers, *, limit: int, state: str = "") -> list[tuple[RequestRow, ...]]:
    found: list[tuple[RequestRow, ...]] = []
    cursor = ""
    while True:
        page = await readers.requests_of("ada", state=state, limit=limit, cursor=cursor)
        found.append(page.requests)
        if not page.next_cursor:
            return found
        cursor = page.next_cursor


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (7, [6])])
async def test_a_list_is_cut_into_pages_newest_first(
    store: Store, readers: Readers, limit: int, sizes: list[int]
) -> None:
    # Two at a time were admitted in the same millisecond.
    mine = [scenes.request(number, admitted_at=scenes.NOW + number // 2) for number in range(6)]
    store.commit([*mine, *(scenes.request(number, account="ben") for number in range(6, 9))])
    found = await pages(readers, limit=limit)
    assert [len(page) for page in found] == sizes
    assert [row for page in found for row in page] == list(reversed(mine))


async def test_what_is_admitted_while_somebody_leafs_moves_no_page(store: Store, readers: Readers) -> None:
    mine = [scenes.request(number) for number in range(4)]
    store.commit(mine)
    first = await readers.requests_of("ada", limit=2)
    store.commit([scenes.request(number) for number in range(4, 9)])
    second = await readers.requests_of("ada", limit=2, cursor=first.next_cursor)
    assert [*first.requests, *second.requests] == list(reversed(mine))


async def test_a_list_can_be_of_one_state(store: Store, readers: Readers) -> None:
    rows = [scenes.request(number, state=("queued", "failed")[number % 2]) for number in range(6)]
    store.commit(rows)
    assert [row for page in await pages(readers, limit=2, state="failed") for row in page] == [
        rows[5],
        rows[3],
        rows[1],
    ]


@pytest.mark.parametrize("cursor", ["x", "1-", "-", f"x-{scenes.request_id(1)}", f"{'9' * 30}-{scenes.request_id(1)}"])
async def test_a_cursor_that_no_list_gave_is_refused(readers: Readers, cursor: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        await readers.requests_of("ada", limit=2, cursor=cursor)
    assert (refusal.value.code, refusal.value.param) == ("invalid_request", "cursor")


async def test_what_is_not_there_is_none(readers: Readers) -> None:
    nothing = "nothing"
    assert await readers.request(nothing) is None
    assert await readers.payload(nothing) is None
    assert await readers.envelope(nothing) is None
    assert await readers.result(nothing) is None
    assert await readers.record_by_hash(nothing) is None
    assert await readers.record_of_request(nothing) is None
    assert await readers.batch(0) is None
    assert await readers.batch_of(0) is None
    assert await readers.audit_of_request(nothing) is None
    assert await readers.claim(nothing) is None
    assert await readers.epochs() == []

    assert await readers.attempts_of(nothing) == []
    assert await readers.records_range(0, 10) == []
    assert [transfer async for transfer in readers.transfers()] == []


async def test_the_audit_of_a_request_is_not_the_one_that_tests_its_auditor(store: Store, readers: Readers) -> None:
    audit, claim = scenes.audit(1, of=1, verdict="agree"), scenes.claim(1)
    store.commit([scenes.request(1), audit, scenes.audit(2, of=1, prepared_from=scenes.audit_id(1)), claim])
    assert await readers.audit_of_request(scenes.request_id(1)) == audit
    assert await readers.claim(scenes.audit_id(1)) == claim
    store.commit([Delete(row_type=ClaimRow, key=(audit.audit_id,))])
    assert await readers.claim(audit.audit_id) is None


async def test_epochs_come_in_order_a_page_at_a_time(store: Store, readers: Readers) -> None:
    epochs = [scenes.epoch(number, revealed_at=number // 2) for number in range(12)]
    store.commit(list(reversed(epochs)))
    assert await readers.epochs(limit=5) == epochs[:5]
    assert await readers.epochs(first=9) == epochs[9:]


async def test_each_row_is_found_by_its_key(store: Store, readers: Readers) -> None:
    attempts = [scenes.attempt(number, of=1, number=number) for number in (1, 2)]
    result = scenes.result(1, expires_at=scenes.NOW)
    store.commit([scenes.request(1), *attempts, scenes.envelope(2, of=1), result])
    assert await readers.attempts_of(scenes.request_id(1)) == attempts
    assert await readers.envelope(scenes.attempt_id(2)) == scenes.envelope(2, of=1)
    assert await readers.result(scenes.request_id(1)) == result


async def test_a_record_is_found_by_hash_by_request_and_by_range(store: Store, readers: Readers) -> None:
    requests = [scenes.request(number, record_sequence=number) for number in range(4)]
    records = [scenes.record(number, of=number) for number in range(4)]
    store.commit([*requests, *records, scenes.request(9)])
    assert await readers.record_by_hash(records[2].record_hash) == records[2]
    assert await readers.record_of_request(scenes.request_id(0)) == records[0]
    assert await readers.record_of_request(scenes.request_id(9)) is None
    assert await readers.records_range(1, 2) == records[1:3]


async def test_a_record_is_found_in_its_batch(store: Store, readers: Readers) -> None:
    # The second batch is empty, and repeats the last sequence of the first.
    batches = [scenes.batch(0, first=0, last=2), scenes.batch(1, first=3, last=2), scenes.batch(2, first=3, last=5)]
    store.commit(batches)
    found = [await readers.batch_of(sequence) for sequence in range(7)]
    assert [row.number if row else None for row in found] == [0, 0, 0, 2, 2, 2, None]
    assert await readers.batch(1) == batches[1]


async def test_transfers_are_walked_across_pages(store: Store, readers: Readers) -> None:
    written = {f"hold:{number:06}" for number in range(2500)}
    store.commit([scenes.transfer(transfer_id) for transfer_id in written])
    walked = [transfer.transfer_id async for transfer in readers.transfers()]
    assert len(walked) == len(written)
    assert set(walked) == written


async def test_what_is_past_its_time_is_deleted_in_slices(store: Store, readers: Readers) -> None:
    now, forgotten = scenes.NOW, scenes.NOW - PAYLOAD_KEPT_MS
    store.commit(
        [
            *(scenes.request(number) for number in range(5)),
            *(scenes.result(number, expires_at=now - 3 + number) for number in range(5)),
            scenes.attempt(1, of=1),
            scenes.envelope(1, of=1),
            scenes.payload(1, created_at=forgotten),
            scenes.attempt(2, of=2),
            scenes.envelope(2, of=2),
            scenes.payload(2, created_at=forgotten + 1),
        ]
    )
    first = await readers.expired(now=now, limit=3)
    oldest = [Delete(row_type=ResultRow, key=(scenes.request_id(number),)) for number in range(3)]
    left_over = [
        Delete(row_type=EnvelopeRow, key=(scenes.attempt_id(1),)),
        Delete(row_type=PayloadRow, key=(scenes.request_id(1),)),
    ]
    assert first == [*oldest, *left_over]
    store.commit(first)
    second = await readers.expired(now=now, limit=3)
    assert second == [Delete(row_type=ResultRow, key=(scenes.request_id(3),))]
    store.commit(second)
    assert await readers.expired(now=now, limit=3) == []
    assert await readers.result(scenes.request_id(4)) is not None
    assert await readers.payload(scenes.request_id(2)) is not None


async def test_a_command_is_left_by_any_process_answered_by_the_leader_and_forgotten(
    url: str, store: Store, readers: Readers
) -> None:
    commands = [
        CommandRow(command_id=f"cmd_{number}", kind="grant", body=b"{}", created_at=scenes.NOW - number)
        for number in range(3)
    ]
    stranger = Store.open(url)
    for command in commands:
        stranger.insert_command(command)
    assert await readers.pending_commands() == list(reversed(commands))
    answered = CommandRow(
        command_id="cmd_1", kind="grant", body=b"{}", created_at=scenes.NOW, applied_at=scenes.NOW, answer=b"done"
    )
    store.commit([answered])
    assert stranger.command("cmd_1") == answered
    stranger.close()
    assert await readers.pending_commands() == [commands[2], commands[0]]
    assert await readers.expired(now=scenes.NOW + COMMAND_KEPT_MS - 1, limit=9) == []
    assert await readers.expired(now=scenes.NOW + COMMAND_KEPT_MS, limit=9) == [
        Delete(row_type=CommandRow, key=("cmd_1",))
    ]


async def test_intents_that_are_over_go_after_a_month_and_open_ones_never(store: Store, readers: Readers) -> None:
    def intent(intent_id: str, state: str) -> IntentRow:
        return IntentRow(
            intent_id=intent_id, role="settler", nonce=1, to_address="0x0", data=b"", attempts="[]", state=state,
            mined_block=0, created_at=scenes.NOW, reference="",
        )  # fmt: skip

    rows = [intent(state, state) for state in ("new", "signed", "mined", "final", "dead")]
    store.commit(rows)

    assert await readers.open_intents() == [intent(state, state) for state in ("mined", "new", "signed")]
    assert await readers.intent("dead") == rows[-1] and await readers.intent("another") is None
    assert await readers.expired(now=scenes.NOW + INTENT_KEPT_MS - 1, limit=9) == []
    gone = await readers.expired(now=scenes.NOW + INTENT_KEPT_MS, limit=9)
    assert sorted(gone, key=lambda each: each.key) == [
        Delete(row_type=IntentRow, key=(each,)) for each in ("dead", "final")
    ]
    store.commit(gone)
    assert await readers.intent("dead") is None


async def test_many_reads_at_once_each_get_their_own_answer(store: Store, readers: Readers) -> None:
    rows = [scenes.request(number) for number in range(100)]
    store.commit(rows)
    assert await asyncio.gather(*(readers.request(row.request_id) for row in rows)) == rows


async def test_a_read_survives_its_connection(postgresql_url: str) -> None:
    store, readers = Store.open(postgresql_url), Readers.open(postgresql_url, threads=1)
    store.acquire("the test")
    store.commit([scenes.request(1)])
    assert await readers.request(scenes.request_id(1)) is not None
    with psycopg.connect(postgresql_url, autocommit=True) as administrator:
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                              " AND datname = current_database()")  # fmt: skip
    assert await readers.request(scenes.request_id(1)) is not None
    await readers.close()
    store.close()
