from __future__ import annotations

from contextlib import closing

import pytest
import store_scenes as scenes

from parallelix.coordinator.store.store import Store
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, RequestState
from parallelix.engine.rows import BalanceRow, ChainCursorRow, NodeLivenessRow, NodeTrustRow, RegistrationRow, Row
from parallelix.engine.snapshot import Idempotent, Snapshot
from parallelix.engine.uptime import HOURS_KEPT

DAY_MS = 24 * scenes.HOUR_MS
THIS_HOUR = scenes.NOW // scenes.HOUR_MS


def reloaded(url: str, store: Store) -> Snapshot:
    store.close()
    with closing(Store.open(url)) as again:
        again.acquire("after the restart")
        return again.load(now=scenes.NOW)


def test_an_empty_store_loads_as_an_empty_snapshot(store: Store) -> None:
    assert store.load(now=scenes.NOW) == Snapshot()


@pytest.mark.parametrize("state", RequestState)
def test_a_request_without_a_record_is_loaded_until_its_state_is_final(store: Store, state: RequestState) -> None:
    request, attempt = scenes.request(1, state=state.value), scenes.attempt(1, of=1)
    store.commit([request, attempt])
    snapshot = store.load(now=scenes.NOW)
    is_final = state in FINAL_REQUEST_STATES
    assert (snapshot.requests, snapshot.attempts) == (((), ()) if is_final else ((request,), (attempt,)))


def test_a_recorded_request_is_loaded_until_a_confirmed_batch_covers_it(store: Store) -> None:
    requests = [scenes.request(number, state="completed", record_sequence=number) for number in range(6)]
    store.commit([*requests, *(scenes.record(number, of=number) for number in range(6))])
    assert store.load(now=scenes.NOW).requests == tuple(requests)
    store.commit([scenes.batch(0, first=0, last=1, confirmed_at=1), scenes.batch(1, first=2, last=3)])
    assert store.load(now=scenes.NOW).requests == tuple(requests[2:])
    store.commit([scenes.batch(1, first=2, last=3, confirmed_at=2)])
    assert store.load(now=scenes.NOW).requests == tuple(requests[4:])


def test_all_attempts_of_a_loaded_request_come_in_order(store: Store) -> None:
    attempts = [scenes.attempt(9 - number, of=1, number=number, state="failed") for number in range(1, 4)]
    store.commit([scenes.request(1), scenes.request(2, state="failed"), scenes.attempt(10, of=2), *reversed(attempts)])
    assert store.load(now=scenes.NOW).attempts == tuple(attempts)


def test_the_unconfirmed_the_last_confirmed_and_the_last_batch_are_loaded(store: Store) -> None:
    confirmed = [scenes.batch(number, first=number, last=number, confirmed_at=1) for number in range(3)]
    store.commit(confirmed)
    assert store.load(now=scenes.NOW).batches == (confirmed[2],)
    unconfirmed = [scenes.batch(number, first=number, last=number) for number in (3, 4)]
    store.commit(unconfirmed)
    assert store.load(now=scenes.NOW).batches == (confirmed[2], *unconfirmed)


def test_records_in_no_batch_are_loaded_and_the_head_always(store: Store) -> None:
    records = [scenes.record(sequence, of=0) for sequence in range(4)]
    store.commit([scenes.request(0), *records, scenes.batch(0, first=0, last=1)])
    snapshot = store.load(now=scenes.NOW)
    assert (snapshot.records, snapshot.head) == (tuple(records[2:]), records[3])
    store.commit([scenes.batch(1, first=2, last=3)])
    snapshot = store.load(now=scenes.NOW)
    assert (snapshot.records, snapshot.head) == ((), records[3])


def test_faults_and_idempotency_keys_are_loaded_for_a_day(store: Store) -> None:
    old, recent = scenes.NOW - DAY_MS - 1, scenes.NOW - DAY_MS
    requests = [
        scenes.request(1, admitted_at=old, idempotency_key="old", state="failed"),
        scenes.request(2, admitted_at=recent, idempotency_key="recent", fingerprint="f", state="failed"),
        scenes.request(3, admitted_at=recent, state="failed"),
    ]
    attempts = [scenes.attempt(number, of=1) for number in (1, 2)]
    store.commit([*requests, *attempts, scenes.fault(1, at=old), scenes.fault(2, at=recent)])
    snapshot = store.load(now=scenes.NOW)
    assert snapshot.faults == (scenes.fault(2, at=recent),)
    assert snapshot.idempotent == (
        Idempotent(
            account="ada",
            idempotency_key="recent",
            fingerprint="f",
            request_id=scenes.request_id(2),
            admitted_at=recent,
        ),
    )


def test_as_many_hours_of_uptime_are_loaded_as_an_engine_keeps(store: Store) -> None:
    hours = [scenes.uptime("7", hour=THIS_HOUR - age) for age in range(HOURS_KEPT + 1, -1, -1)]
    store.commit(hours)
    assert store.load(now=scenes.NOW).uptime == tuple(hours[1:])


def test_what_is_known_of_the_chain_is_loaded_with_the_open_clearances_only(store: Store) -> None:
    cursor = ChainCursorRow(id=1, block=2**40, block_hash="0xab", block_time=scenes.NOW // 1000, anchor_halt="why")
    accounts = [scenes.vault_account(f"0x{number:040x}") for number in range(3)]
    nodes = [scenes.filled(RegistrationRow, node_id=str(2**256 - 1), state="cooling", cooldown_ends_at=2**33)]
    liveness = [scenes.filled(NodeLivenessRow, node_id="7", online=True, voids_pending=2, void_until=2**33)]
    states = enumerate(("used", "released", "open"))
    clearances = [scenes.clearance(accounts[0].account, nonce=nonce, state=state) for nonce, state in states]
    store.commit([scenes.filled(ChainCursorRow, id=1), cursor, *accounts, *nodes, *liveness, *clearances])
    snapshot = store.load(now=scenes.NOW)
    assert snapshot.cursor == cursor
    assert sorted(snapshot.vault_accounts, key=lambda row: row.account) == accounts
    assert (list(snapshot.registrations), list(snapshot.liveness)) == (nodes, liveness)
    assert list(snapshot.clearances) == clearances[2:]


def test_a_request_whose_audit_is_open_is_loaded_though_a_confirmed_batch_covers_it(store: Store) -> None:
    requests = [scenes.request(number, state="completed", record_sequence=number) for number in range(3)]
    audits = [scenes.audit(number, of=number, verdict=("agree", "", "")[number]) for number in range(3)]
    store.commit([*requests, *(scenes.record(number, of=number) for number in range(3)), *reversed(audits)])
    store.commit([scenes.batch(0, first=0, last=2, confirmed_at=1)])
    snapshot = store.load(now=scenes.NOW)
    assert (snapshot.requests, snapshot.audits) == (tuple(requests[1:]), tuple(audits[1:]))


def test_a_request_is_not_loaded_again_for_its_audits_record(store: Store) -> None:
    store.commit([scenes.request(0, state="completed", record_sequence=0), scenes.record(0, of=0)])
    store.commit([scenes.batch(0, first=0, last=0, confirmed_at=1)])
    store.commit([scenes.audit(0, of=0, verdict="agree", audit_sequence=1), scenes.record(1, of=0)])
    snapshot = store.load(now=scenes.NOW)
    assert (snapshot.requests, snapshot.records) == ((), (scenes.record(1, of=0),))


def test_the_present_epoch_is_loaded_with_those_not_revealed(store: Store) -> None:
    store.commit([scenes.epoch(0, revealed_at=1), scenes.epoch(1), scenes.epoch(2, revealed_at=2), scenes.epoch(3)])
    assert store.load(now=scenes.NOW).epochs == (scenes.epoch(1), scenes.epoch(3))
    store.commit([scenes.epoch(1, revealed_at=3), scenes.epoch(3, revealed_at=3)])
    assert store.load(now=scenes.NOW).epochs == (scenes.epoch(3, revealed_at=3),)


def test_what_is_known_of_each_nodes_honesty_is_loaded(store: Store) -> None:
    trust = [scenes.filled(NodeTrustRow, node_id=str(number), executor_millinats=-(2**40)) for number in range(2)]
    store.commit(trust)
    assert sorted(store.load(now=scenes.NOW).trust, key=lambda row: row.node_id) == trust


def test_everything_survives_a_restart(url: str, store: Store) -> None:
    live: list[Row] = [
        scenes.request(1, attached=True, cancelling=True),
        scenes.attempt(1, of=1, state="offered"),
        scenes.node("7"),
        scenes.node(str(2**256 - 1)),
        scenes.key("key_1"),
        BalanceRow(account="source:grants", balance_wei=str(-(10**30))),
        BalanceRow(account="available:ada", balance_wei=str(10**30)),
        scenes.record(0, of=1),
    ]
    store.commit([*live, scenes.transfer("grant:1"), scenes.payload(1), scenes.envelope(1, of=1)])
    before = store.load(now=scenes.NOW)
    assert {type(row): row for part in (before.requests, before.nodes, before.keys) for row in part}
    assert reloaded(url, store) == before
    loaded = {*before.requests, *before.attempts, *before.nodes, *before.keys, *before.balances, *before.records}
    assert loaded == set(live)
