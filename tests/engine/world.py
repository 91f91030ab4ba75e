"""The engine in a world of its own: a clock, seeded randomness, tables that keep its rows, and nodes that do as told.

After every step the invariants of the design are checked, so any test that drives the engine also tests them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, TypeVar, cast

import msgspec
import pytest

from parallelix.engine import catalogue, effects, events
from parallelix.engine.core import Engine, Step
from parallelix.engine.entities import Audit, Request
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, RequestState
from parallelix.engine.rows import (
    AttemptRow,
    AuditRow,
    BalanceRow,
    BatchRow,
    ChainCursorRow,
    ClearanceRow,
    EpochRow,
    FaultRow,
    KeyRow,
    NodeLivenessRow,
    NodeRow,
    NodeTrustRow,
    RecordRow,
    RegistrationRow,
    RequestRow,
    Row,
    TransferRow,
    UptimeRow,
    VaultAccountRow,
)
from parallelix.engine.settings import DAY_MS, HOUR_MS, EngineSettings
from parallelix.engine.snapshot import Idempotent, Snapshot
from parallelix.engine.uptime import HOURS_KEPT
from parallelix.protocol import canonical, merkle
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.messages import Hardware, Manifest, ModelInfo, RuntimeInfo
from parallelix.protocol.records import (
    AuditRecord,
    BrokenChain,
    ExecutionRecord,
    Record,
    decode_record,
    verify_chain,
)
from parallelix.protocol.registry import Registration
from parallelix.protocol.spot_check import Finding
from parallelix.protocol.work import Usage

T = TypeVar("T", bound=Row)

START_MS = 1_800_000_000_000
SECOND = 1_000
ACCOUNT = "0x" + "aa" * 20
DIGEST = "d1" * 32
BIG_DIGEST = "d2" * 32
PRLX = 10**18

CATALOGUE = catalogue.parse(
    f"""
    [factors]
    tier_3 = 20000
    urgent = 30000

    [[models]]
    name = "small"
    digests = ["{DIGEST}"]
    prompt_wei_per_1000 = "1000000"
    completion_wei_per_1000 = "3000000"
    context_tokens = 4096
    max_tokens_default = 100
    max_tokens_max = 1000

    [[models]]
    name = "big"
    digests = ["{BIG_DIGEST}"]
    prompt_wei_per_1000 = "10000000"
    completion_wei_per_1000 = "30000000"
    context_tokens = 8192

    [[models]]
    name = "free"
    digests = ["{DIGEST}"]
    prompt_wei_per_1000 = "0"
    completion_wei_per_1000 = "0"
    context_tokens = 4096
    """
)


def settings(**changes: Any) -> EngineSettings:
    chosen: dict[str, Any] = {"chain_id": 31337, "batch_ms": 10 * SECOND, **changes}
    return EngineSettings(**chosen)


def registration(node_id: int, *, tier: int = 1, state: str = "active", owner: int | None = None) -> Registration:
    """Each node is its own owner's, unless another `owner` is named."""
    return Registration(
        node_id=str(node_id),
        owner="0x" + f"{node_id if owner is None else owner:040x}",
        stake_wei=str(50_000 * PRLX),
        hardware_tier=tier,
        node_key_hash="0x" + f"{node_id:064x}",
        state=cast("Any", state),
    )


class World:
    """One engine and everything around it. `log` holds the (name, fields) of all log events.

    `audited`: an epoch of sampling begins, so that results are drawn. `owners` says whose a node is that attaches.
    """

    def __init__(
        self, *, seed: int = 1, audited: bool = False, catalogue: catalogue.Catalogue = CATALOGUE, **changes: Any
    ) -> None:
        self.now = START_MS
        self.settings = settings(**changes)
        self.catalogue = catalogue
        self.engine = Engine(self.settings, catalogue)
        self.random = random.Random(seed)
        self.tables: dict[str, dict[tuple[Any, ...], Row]] = {}
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.effects: list[effects.Effect] = []
        self.offers: dict[str, effects.Offer] = {}
        self.unconfirmed: list[int] = []
        self.ends: dict[str, list[str]] = {}
        self.told: dict[str, list[tuple[str, int]]] = {}
        self.nodes_offered: dict[str, set[str]] = {}
        self.manifest_times: dict[int, list[int]] = {}
        self.answered_ids: set[str] = set()
        self.owners: dict[int, int] = {}
        self.records: dict[int, Record] = {}
        self.auditors: dict[str, list[int]] = {}
        """The nodes that each audit was offered to, by its id."""
        # As every coordinator begins.
        self._take(self.engine.restore(Snapshot(), (), self.now, self.random.randbytes))
        if audited:
            self.begin_epoch(0)

    # Driving it --------

    def step(self, event: events.Event) -> effects.Answer:
        step = self.engine.step(event, self.now, self.random.randbytes)
        self._take(step)
        return step.answer

    def _take(self, step: Step) -> None:
        self._write(step.rows)
        for effect in step.effects:
            self.effects.append(effect)
            if isinstance(effect, effects.LogEvent):
                self.log.append((effect.name, effect.fields))
            elif isinstance(effect, effects.Offer):
                self.offers[effect.attempt_id] = effect
                again = effect.attempt_id in self.nodes_offered
                self.nodes_offered.setdefault(effect.attempt_id, set()).add(str(effect.node_id))
                if effect.is_audit and not again:
                    self.auditors.setdefault(effect.request_id, []).append(effect.node_id)
                    self.check_whom_an_audit_is_given_to(effect)
            elif isinstance(effect, effects.Withdraw) and not effect.partial:
                self.offers.pop(effect.attempt_id, None)
            elif isinstance(effect, effects.AnchorBatch):
                self.unconfirmed.append(effect.batch.number)
            elif isinstance(effect, effects.RequestProgress):
                self.told.setdefault(effect.request_id, []).append((effect.kind, effect.attempt_number))
                if effect.kind == "finished":
                    self.ends.setdefault(effect.request_id, []).append(effect.state)
        if step.rows or step.effects:
            self.check()

    def advance(self, milliseconds: int) -> None:
        """Lets time pass, with a tick for every timer on the way."""
        end = self.now + milliseconds
        while (due := self.engine.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.step(events.Tick())
        self.now = end

    def restart(self) -> None:
        """Forgets everything but the tables, as kill -9 does, and goes on from them."""
        registrations = self._registrations()
        self.engine = Engine(self.settings, self.catalogue)
        self.offers.clear()
        self.unconfirmed.clear()
        self._take(self.engine.restore(self.snapshot(), registrations, self.now, self.random.randbytes))

    def _registrations(self) -> tuple[Registration, ...]:
        """What another source than the tables tells of the nodes."""
        return tuple(self.engine.registrations.values())

    def snapshot(self) -> Snapshot:
        requests = sorted(self.rows(RequestRow), key=lambda row: row.admitted_at)
        batches = sorted(self.rows(BatchRow), key=lambda row: row.number)
        confirmed_through = max((row.last for row in batches if row.confirmed_at), default=-1)
        batched_through = max((row.last for row in batches), default=-1)
        audits = sorted((row for row in self.rows(AuditRow) if not row.verdict), key=lambda row: row.opened_at)
        drawn = {row.request_id for row in audits}
        live = [
            row
            for row in requests
            if RequestState(row.state) not in FINAL_REQUEST_STATES
            or row.record_sequence > confirmed_through
            or row.request_id in drawn
        ]
        epochs = sorted(self.rows(EpochRow), key=lambda row: row.epoch)
        ids = {row.request_id for row in live}
        attempts = sorted(self.rows(AttemptRow), key=lambda row: (row.request_id, row.number))
        return Snapshot(
            requests=tuple(live),
            attempts=tuple(row for row in attempts if row.request_id in ids),
            nodes=tuple(self.rows(NodeRow)),
            balances=tuple(self.rows(BalanceRow)),
            keys=tuple(self.rows(KeyRow)),
            faults=tuple(row for row in self.rows(FaultRow) if row.at > self.now - DAY_MS),
            batches=tuple(
                row for row in batches if not row.confirmed_at or row is batches[-1] or row.last == confirmed_through
            ),
            records=tuple(
                sorted(
                    (row for row in self.rows(RecordRow) if row.sequence > batched_through),
                    key=lambda row: row.sequence,
                )
            ),
            idempotent=tuple(
                Idempotent(
                    account=row.account,
                    idempotency_key=row.idempotency_key,
                    fingerprint=row.fingerprint,
                    request_id=row.request_id,
                    admitted_at=row.admitted_at,
                )
                for row in requests
                if row.idempotency_key
            ),
            uptime=tuple(row for row in self.rows(UptimeRow) if row.hour >= self.now // HOUR_MS - HOURS_KEPT),
            liveness=tuple(self.rows(NodeLivenessRow)),
            cursor=next(iter(self.rows(ChainCursorRow)), None),
            vault_accounts=tuple(self.rows(VaultAccountRow)),
            clearances=tuple(row for row in self.rows(ClearanceRow) if row.state == "open"),
            registrations=tuple(self.rows(RegistrationRow)),
            audits=tuple(audits),
            trust=tuple(self.rows(NodeTrustRow)),
            epochs=tuple(row for row in epochs if not row.secret or row is epochs[-1]),
        )

    # The people --------

    def fund(self, amount_wei: int = PRLX, account: str = ACCOUNT) -> None:
        self.step(events.Grant(grant_id=f"g{len(self.rows(TransferRow))}", account=account, amount_wei=amount_wei))

    def issue_key(self, key_id: str = "key_1", account: str = ACCOUNT, **limits: Any) -> str:
        self.step(events.KeyIssued(key_id=key_id, key_hash=key_id, account=account, name=key_id, **limits))
        return key_id

    def attach(
        self,
        node_id: int,
        *,
        tier: int = 1,
        slots: int = 1,
        digests: Iterable[str] = (DIGEST,),
        run_id: str = "run",
        context_tokens: int = 4096,
        features: tuple[str, ...] = ("chat", "logprobs", "probe"),
        classes: tuple[str, ...] = ("ai.inference",),
        runtime: str = "ollama",
    ) -> effects.Answer:
        """Registers the node where it is not, and attaches it."""
        if node_id not in self.engine.registrations:
            self.register(node_id, tier=tier)
        manifest = Manifest(
            node_id=str(node_id),
            chain_id=31337,
            mode="cpu",
            hardware_tier=tier,
            hardware=Hardware(cpu_cores=2),
            workload_classes=classes,
            runtimes=(RuntimeInfo(name=runtime, version="1"),),
            models=tuple(
                ModelInfo(name=f"m{digest[:2]}", digest=digest, context_tokens=context_tokens, features=features)
                for digest in digests
            ),
            slots=slots,
            envelope_key="e",
            poe_key="p",
            client_version="0",
            issued_at=self.now + len(self.effects),
            run_id=run_id,
        )
        answer = self.step(
            events.Attached(
                node_id=node_id,
                session=f"s{self.now}-{node_id}-{run_id}",
                manifest=manifest,
                manifest_json=canonical.encode(manifest).decode(),
                public_key="0x" + "11" * 64,
            )
        )
        if answer is None:
            self.manifest_times.setdefault(node_id, []).append(manifest.issued_at)
        return answer

    def heartbeat(self, node_id: int, *, paused: bool = False) -> effects.Answer:
        return self.step(events.Heartbeat(node_id=node_id, unix_ms=self.now, paused=paused))

    def register(self, node_id: int, *, tier: int = 1, state: str = "active") -> None:
        registered = registration(node_id, tier=tier, state=state, owner=self.owners.get(node_id))
        self.step(events.RegistryChanged(registrations=(registered,)))

    def ask(self, *, model: str = "small", account: str = ACCOUNT, key_id: str = "key_1", **fields: Any) -> str:
        """Sends a request that must be admitted; gives its id."""
        answer = self.try_ask(model=model, account=account, key_id=key_id, **fields)
        assert isinstance(answer, effects.Admitted), answer
        return answer.request_id

    def try_ask(
        self, *, model: str = "small", account: str = ACCOUNT, key_id: str = "key_1", **fields: Any
    ) -> effects.Answer:
        given: dict[str, Any] = {"workload_class": "ai.inference", "kind": "chat", "prompt_bytes": 40, **fields}
        answer = self.step(events.Admit(account=account, key_id=key_id, model=model, **given))
        if isinstance(answer, effects.Admitted):
            self.answered_ids.add(answer.request_id)
        return answer

    def acknowledge(self, attempt_id: str, node_id: int | None = None) -> effects.Answer:
        node = node_id if node_id is not None else self.offers[attempt_id].node_id
        return self.step(events.Acknowledged(attempt_id=attempt_id, node_id=node))

    def complete(
        self,
        attempt_id: str,
        *,
        prompt_tokens: int = 10,
        completion_tokens: int = 20,
        outcome: str = "completed",
        draw: int = 0,
        spot_check: bool = True,
    ) -> effects.Answer:
        """With a `draw` of 0 every result is drawn that can be."""
        offer = self.offers[attempt_id]
        facts = events.ExecutionFacts(
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
            entries_counted=completion_tokens,
            input_hash="0x" + "01" * 32,
            result_hash="0x" + "02" * 32,
            poe_commitment="0x" + "03" * 32,
            model_digest=offer.model_digest,
            draw=draw,
            spot_check=spot_check,
        )
        return self.returned(attempt_id, outcome, facts=facts)

    def returned(self, attempt_id: str, outcome: str, **fields: Any) -> effects.Answer:
        node_id = fields.pop("node_id", None) or self.offers[attempt_id].node_id
        return self.step(
            events.ResultReturned(attempt_id=attempt_id, node_id=node_id, outcome=cast("Any", outcome), **fields)
        )

    # Audits --------

    def begin_epoch(self, epoch: int) -> None:
        self.step(events.EpochBegan(epoch=epoch, commitment="0x" + f"{epoch:064x}"))

    def work(self, **fields: Any) -> str:
        """A request that a node completes, and that is drawn where it can be."""
        request_id = self.ask()
        attempt_id = self.attempt_of(request_id)
        self.acknowledge(attempt_id)
        self.complete(attempt_id, **fields)
        return request_id

    def audit(self, request_id: str) -> Audit:
        """The open audit of a request's result."""
        (audit,) = (
            each
            for each in self.engine.audits.values()
            if each.request.request_id == request_id and not each.prepared_from
        )
        return audit

    def audit_row(self, request_id: str) -> AuditRow:
        (row,) = (row for row in self.rows(AuditRow) if row.request_id == request_id and not row.prepared_from)
        return row

    def answer_audit(
        self, audit_id: str, outcome: str, third: str | None = None, *, reason: str = ""
    ) -> effects.Answer:
        """Whoever has the audit answers it."""
        attempt = self.engine.audits[audit_id].unit.open_attempt
        assert attempt is not None, f"nobody has audit {audit_id}"
        return self.step(
            events.AuditAnswered(
                attempt_id=attempt.attempt_id,
                node_id=attempt.node_id,
                finding=Finding(outcome=cast("Any", outcome), reason=reason or outcome),
                third=Finding(outcome=cast("Any", third), reason=third) if third is not None else None,
            )
        )

    def confirm_batches(self) -> None:
        for number in list(self.unconfirmed):
            self.unconfirmed.remove(number)
            self.step(events.BatchConfirmed(number=number, reference=f"local:{number}"))

    # Looking at it --------

    def rows(self, kind: type[T]) -> list[T]:
        return cast("list[T]", list(self.tables.get(kind.table, {}).values()))

    def request(self, request_id: str) -> Request:
        return self.engine.requests[request_id]

    def row(self, request_id: str) -> RequestRow:
        return cast("RequestRow", self.tables["requests"][(request_id,)])

    def attempt_of(self, request_id: str) -> str:
        """The id of the request's open attempt."""
        attempt = self.request(request_id).open_attempt
        assert attempt is not None, f"{request_id} has no open attempt"
        return attempt.attempt_id

    def node_of(self, request_id: str) -> int:
        attempt = self.request(request_id).open_attempt
        assert attempt is not None
        return attempt.node_id

    def logged(self, name: str) -> list[dict[str, Any]]:
        return [fields for logged, fields in self.log if logged == name]

    def balance(self, account: str) -> int:
        return self.engine.ledger.balance_wei(account)

    # What always holds, by its numbers in docs/engine.md --------

    def _write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            table = self.tables.setdefault(row.table, {})
            key = tuple(getattr(row, name) for name in row.key)
            assert not (row.append_only and key in table), f"{row.table}: {key} is written twice"
            table[key] = row

    def check(self) -> None:
        """After every step, over what would be durable by then."""
        self.check_1_credits_precede_work()
        self.check_3_one_end_and_at_most_one_charge()
        self.check_4_postings_sum_to_zero_and_replay_to_every_balance()
        self.check_5_a_charge_posts_only_from_a_confirmed_batch()
        self.check_6_a_message_of_a_node_counts_once()
        self.check_10_a_requester_is_told_to_discard_what_was_not_hashed()

    def transfers(self, purpose: str) -> dict[str, int]:
        """Wei by request, of the transfers made for `purpose`."""
        made: dict[str, int] = {}
        for transfer in self.rows(TransferRow):
            if transfer.transfer_id.startswith(purpose + ":"):
                assert transfer.request_id not in made, f"{transfer.request_id}: two transfers to {purpose}"
                made[transfer.request_id] = int(transfer.amount_wei)
        return made

    def check_1_credits_precede_work(self) -> None:
        held = self.transfers("hold")
        for row in self.rows(RequestRow):
            assert held.get(row.request_id, 0) == int(row.hold_wei), "an id without its hold"
        for offer in self.offers.values():
            table = "audits" if offer.is_audit else "requests"
            assert (offer.request_id,) in self.tables[table], "work before its request is durable"

    def check_3_one_end_and_at_most_one_charge(self) -> None:
        for request_id, states in self.ends.items():
            assert len(states) == 1, f"{request_id} ended {len(states)} times"
            assert self.row(request_id).state == states[0]
        for request_id in self.answered_ids:
            row = self.row(request_id)
            assert (RequestState(row.state) in FINAL_REQUEST_STATES) == (request_id not in self.engine.requests)
        held = self.transfers("hold")
        for request_id, amount_wei in self.transfers("charge").items():
            assert amount_wei == int(self.row(request_id).charge_wei) <= held[request_id], "charged more than was held"
            assert self.row(request_id).state in {"completed", "cancelled"}
        refunds = self.transfers("refund")
        assert not refunds.keys() & self.transfers("charge").keys(), "charged and refunded"
        overturned = {row.request_id: row for row in self.rows(AuditRow) if row.verdict == "disagree"}
        for request_id, amount_wei in refunds.items():
            assert amount_wei == int(overturned[request_id].refunded_wei) <= held[request_id]
            assert self.row(request_id).charge_wei == "0"

    def check_4_postings_sum_to_zero_and_replay_to_every_balance(self) -> None:
        balances: dict[str, int] = {}
        for transfer in self.rows(TransferRow):
            amount_wei = int(transfer.amount_wei)
            assert amount_wei > 0
            balances[transfer.debit_account] = balances.get(transfer.debit_account, 0) - amount_wei
            balances[transfer.credit_account] = balances.get(transfer.credit_account, 0) + amount_wei
        assert sum(balances.values()) == 0
        assert all(balance >= 0 for account, balance in balances.items() if not account.startswith("source:"))
        stored = {row.account: int(row.balance_wei) for row in self.rows(BalanceRow)}
        remembered = self.engine.ledger.accounts()
        for known in (stored, remembered):
            assert {account: wei for account, wei in balances.items() if wei} == {
                account: wei for account, wei in known.items() if wei
            }

    def check_5_a_charge_posts_only_from_a_confirmed_batch(self) -> None:
        confirmed = [(row.first, row.last) for row in self.rows(BatchRow) if row.confirmed_at]
        for request_id in self.transfers("charge"):
            sequence = self.row(request_id).record_sequence
            assert any(first <= sequence <= last for first, last in confirmed), "charged before its batch was confirmed"
        waiting = {each.request.request_id for each in self.engine.audits.values() if not each.prepared_from}
        assert not waiting & self.transfers("charge").keys(), "charged before its audit has ended"

    def check_6_a_message_of_a_node_counts_once(self) -> None:
        for row in self.rows(RecordRow):
            if row.sequence not in self.records:
                self.records[row.sequence] = decode_record(row.body)
        executed = [each.request_id for each in self.records.values() if isinstance(each, ExecutionRecord)]
        assert len(executed) == len(set(executed)), "two records of one request"
        audited = [each.execution_hash for each in self.records.values() if isinstance(each, AuditRecord)]
        assert len(audited) == len(set(audited)), "two verdicts on one execution"
        for row in self.rows(AttemptRow):
            assert self.nodes_offered.get(row.attempt_id, {row.node_id}) == {row.node_id}, "offered to two nodes"
        for node_id, times in self.manifest_times.items():
            assert times == sorted(set(times)), f"node {node_id}: an old manifest opened a session"

    def check_whom_an_audit_is_given_to(self, offer: effects.Offer) -> None:
        """Nobody audits what a node of the same owner made, or decides where one of the same owner has spoken."""
        audit, registrations = self.engine.audits.get(offer.request_id), self.engine.registrations
        if audit is None:
            # Its time was over in the same step.
            return
        involved = {audit.node_id} | ({audit.auditor_id} if audit.stage == "third" else set[int]())
        if audit.prepared_from:
            known = cast("AuditRow", self.tables["audits"][(audit.prepared_from,)])
            involved.add(int(known.auditor_id))
        owners = {registrations[node_id].owner for node_id in involved if node_id in registrations}
        assert offer.node_id not in involved and registrations[offer.node_id].owner not in owners
        assert not self.engine.pool.nodes[offer.node_id].removed_until, "a removed node audits"

    def check_10_a_requester_is_told_to_discard_what_was_not_hashed(self) -> None:
        """Text of one attempt only ever stands before a requester: a new attempt begins after the word to discard."""
        for request_id, told in self.told.items():
            showing = 0
            for kind, number in told:
                if kind == "running":
                    assert showing in {0, number}, f"{request_id}: attempt {number} runs while {showing} is shown"
                    showing = number
                elif kind == "restarted":
                    showing = 0
                elif kind == "finished" and self.row(request_id).record_sequence >= 0:
                    assert showing == number == max(self.numbers(request_id)), "the record is of another attempt"

    def numbers(self, request_id: str) -> list[int]:
        return [row.number for row in self.rows(AttemptRow) if row.request_id == request_id]

    def check_chain(self) -> None:
        """Invariant 5 over the whole chain of records: it holds, each batch's root too, and no edit goes unseen."""
        rows = sorted(self.rows(RecordRow), key=lambda row: row.sequence)
        records = [decode_record(row.body) for row in rows]
        head = self.engine.recorder.head_hash
        assert verify_chain(records) == head
        for at, record in enumerate(records):
            edited = msgspec.structs.replace(record, finished_at=record.finished_at + 1)
            for changed in ([*records[:at], edited, *records[at + 1 :]], [*records[:at], *records[at + 1 :]]):
                with pytest.raises(BrokenChain):
                    verify_chain(changed, head_hash=head)
        hashes = [from_hex(row.record_hash, name="record_hash", length_bytes=32) for row in rows]
        for batch in self.rows(BatchRow):
            assert to_hex(merkle.root(hashes[batch.first : batch.last + 1])) == batch.merkle_root
            assert rows[batch.last].record_hash == batch.head_hash

    def check_what_was_drawn_was_audited(self) -> None:
        """Exactly one record of an audit for each row of one, of the right execution; prepared ones leave none."""
        rows = self.rows(AuditRow)
        assert all(row.verdict for row in rows)
        recorded = {
            record.execution_hash: (sequence, record.verdict, record.reason)
            for sequence, record in self.records.items()
            if isinstance(record, AuditRecord)
        }
        hashes = {row.sequence: row.record_hash for row in self.rows(RecordRow)}
        real = [row for row in rows if not row.prepared_from]
        assert {row.execution_hash for row in real} == recorded.keys() and len(real) == len(recorded)
        for row in real:
            assert recorded[row.execution_hash] == (row.audit_sequence, row.verdict, row.reason)
            assert hashes[row.execution_sequence] == row.execution_hash
            assert self.row(row.request_id).record_sequence == row.execution_sequence
        assert all(row.audit_sequence == -1 for row in rows if row.prepared_from)

    def check_all_ended(self) -> None:
        assert not self.engine.requests and not self.engine.audits, "open for ever"
        self.check_what_was_drawn_was_audited()
        assert set(self.ends) >= self.answered_ids
        for account in {row.account for row in self.rows(RequestRow)}:
            unsettled = sum(
                int(row.charge_wei)
                for row in self.rows(RequestRow)
                if row.account == account and not self.engine.settled(row.record_sequence)
            )
            assert self.balance(f"held:{account}") == unsettled
