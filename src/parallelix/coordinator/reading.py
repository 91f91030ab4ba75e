"""What a coordinator shows: requests to their owners, receipts, accounts, models, and the public record.

Nothing here changes anything. An answer from memory waits for the commit that holds what it says, like every other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from parallelix.coordinator import errors
from parallelix.coordinator.feed import Outcome
from parallelix.coordinator.live import KEYS_BYTES
from parallelix.coordinator.secrets import CoordinatorSecrets
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.engine.catalogue import WORKLOAD_CLASSES, ModelEntry, price_of
from parallelix.engine.core import Engine
from parallelix.engine.entities import ApiKey
from parallelix.engine.ledger import available, cleared, held, spent
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, RequestState
from parallelix.engine.pool import Need
from parallelix.engine.recorder import batch_of
from parallelix.engine.rows import AuditRow, EpochRow, RequestRow
from parallelix.protocol import envelope, merkle, receipts, requests, sampling, work
from parallelix.protocol.canonical import decode
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import AuditRecord, Batch, ExecutionRecord, Record, decode_record
from parallelix.protocol.sampling import Epoch
from parallelix.protocol.work import Payload, ResultContent

TREES_KEPT = 16
"""Merkle trees in memory for receipts; one of 4,096 leaves is 0.5 MiB and takes 8 ms to build again."""
LIST_LIMIT_MAX = 100


class Reading:
    """The reading half of a coordinator."""

    def __init__(
        self,
        *,
        settings: CoordinatorSettings,
        engine: Engine,
        readers: Readers,
        journal: Journal,
        secrets: CoordinatorSecrets,
        clock: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.readers = readers
        self.journal = journal
        self.secrets = secrets
        self.clock = clock
        self.started_at = clock()
        self.anchor_address = "local"
        self.vault_address = ""
        """The vault's contract, where this coordinator is on a chain."""
        self.contracts: dict[str, str] = {}
        """The contracts of this network by name; none where it is on no chain."""
        self._trees: OrderedDict[int, merkle.Tree] = OrderedDict()

    # A requester's own ------------------------------------------------------------------------------------------------

    async def view(self, key: ApiKey, request_id: str, *, with_result: bool = True) -> requests.RequestView:
        """One request as its owner sees it. Raises `NotFound` for one that is not this account's."""
        request = self.engine.requests.get(request_id)
        if request is not None and request.account == key.account:
            view = self._view(request.row(), attempts=len(request.attempts), waiting=self.engine.held(request))
            await self.journal.flushed()
            return await self._with_audit(view)
        row = await self._own_row(key, request_id)
        attempts = await self.readers.attempts_of(request_id)
        outcome = await self._stored_outcome(row) if with_result else None
        return await self._with_audit(self._view(row, attempts=len(attempts), outcome=outcome))

    async def list(
        self, key: ApiKey, *, state: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> requests.RequestList:
        """The account's requests, newest first."""
        await self.journal.flushed()
        found = await self.readers.requests_of(
            key.account, state=state or "", limit=min(limit, LIST_LIMIT_MAX), cursor=cursor or ""
        )
        views: list[requests.RequestView] = []
        for row in found.requests:
            request = self.engine.requests.get(row.request_id)
            if request is not None:
                view = self._view(request.row(), attempts=len(request.attempts), waiting=self.engine.held(request))
            else:
                view = self._view(row, attempts=len(await self.readers.attempts_of(row.request_id)))
            views.append(await self._with_audit(view))
        return requests.RequestList(data=tuple(views), next_cursor=found.next_cursor or None)

    def _view(
        self,
        row: RequestRow,
        *,
        attempts: int,
        waiting: requests.Held | None = None,
        outcome: Outcome | None = None,
    ) -> requests.RequestView:
        recorded = row.record_sequence >= 0
        state: Any = row.state
        return requests.RequestView(
            id=row.request_id,
            state=state,
            reason=row.reason,
            held=waiting,
            workload_class=row.workload_class,
            kind=row.kind,
            model=row.model,
            hardware_tier=row.hardware_tier,
            priority=row.priority,
            deadline_seconds=row.deadline_ms / 1000,
            queue_seconds=row.queue_ms / 1000,
            created_at=row.admitted_at,
            finished_at=row.finished_at or None,
            attempts=attempts,
            usage=work.Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens)
            if recorded
            else None,
            hold_wei=row.hold_wei,
            charge_wei=row.charge_wei,
            settled=self.engine.settled(row.record_sequence)
            if recorded
            else RequestState(state) in FINAL_REQUEST_STATES,
            record_hash=outcome.record_hash if outcome else None,
            result=_result_view(outcome) if outcome else None,
            sealed_result=outcome.sealed_result if outcome else None,
        )

    async def _with_audit(self, view: requests.RequestView) -> requests.RequestView:
        """What is durable of the execution's audit."""
        if view.usage is None:
            return view
        audit = await self.readers.audit_of_request(view.id)
        if audit is None:
            return msgspec.structs.replace(view, audit=await self._audit_state(view.id, None))
        return msgspec.structs.replace(
            view,
            audit=await self._audit_state(view.id, audit),
            audit_reason=audit.reason if audit.verdict else "",
            refunded_wei=audit.refunded_wei or "0",
        )

    async def _audit_state(self, request_id: str, audit: AuditRow | None) -> requests.AuditState:
        """Of an execution that has a record."""
        if audit is not None:
            verdict: Any = audit.verdict
            return verdict or "pending"
        row = await self.readers.record_of_request(request_id)
        assert row is not None, f"{request_id} says that it has a record"
        return "not_drawn" if decode(row.body, ExecutionRecord).rate else "off"

    async def _own_row(self, key: ApiKey, request_id: str) -> RequestRow:
        request = self.engine.requests.get(request_id)
        if request is not None:
            row: RequestRow | None = request.row()
            await self.journal.flushed()
        else:
            await self.journal.flushed()
            row = await self.readers.request(request_id)
        if row is None or row.account != key.account:
            raise errors.NotFound(
                f"request {request_id[:80]!r}: this account has none of that id", code="unknown_request"
            )
        return row

    async def _stored_outcome(self, row: RequestRow) -> Outcome:
        state: Any = row.state
        if row.record_sequence < 0:
            return Outcome(request_id=row.request_id, state=state, reason=row.reason)
        record = await self.readers.record_of_request(row.request_id)
        outcome = Outcome(
            request_id=row.request_id,
            state=state,
            reason=row.reason,
            usage=work.Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
            charge_wei=int(row.charge_wei),
            record_hash=record.record_hash if record else None,
            audit=await self._audit_state(row.request_id, await self.readers.audit_of_request(row.request_id)),
        )
        stored, payload = await self.readers.result(row.request_id), await self.readers.payload(row.request_id)
        if stored is None or payload is None:
            return outcome
        content_key, _ = self._unwrap_keys(payload.wrapped_keys)
        content = envelope.open_at_rest(content_key, stored.sealed, purpose=f"result:{row.request_id}")
        if payload.requester_public_key:
            return msgspec.structs.replace(outcome, sealed_result=content.decode())
        entries = envelope.open_at_rest(content_key, stored.entries, purpose=f"entries:{row.request_id}")
        asked = decode(envelope.open_payload(payload.sealed, unit_id=row.request_id, content_key=content_key), Payload)
        return msgspec.structs.replace(
            outcome,
            content=decode(content, ResultContent),
            entries=work.decode_entries(entries),
            top_logprobs=asked.sampling.top_logprobs,
        )

    def _unwrap_keys(self, wrapped: bytes) -> tuple[bytes, bytes]:
        keys = envelope.unwrap_at_rest(self.secrets.storage_key, wrapped)
        assert len(keys) == KEYS_BYTES, len(keys)
        return keys[: envelope.KEY_BYTES], keys[envelope.KEY_BYTES :]

    async def receipt(self, key: ApiKey, request_id: str) -> receipts.Receipt:
        """What the requester keeps. Raises `NotRecordedYet` until there is a record."""
        row = await self._own_row(key, request_id)
        record_row = await self.readers.record_of_request(request_id)
        payload = await self.readers.payload(request_id)
        if record_row is None or payload is None:
            raise errors.NotRecordedYet(
                f"request {request_id} is {row.state} and has no record; a receipt exists once it completes"
            )
        _, salt = self._unwrap_keys(payload.wrapped_keys)
        record = decode(record_row.body, ExecutionRecord)
        audit = await self._audit_part(request_id, record)
        batch, proof = await self._proof(record_row.sequence)
        receipt = receipts.Receipt(
            version=2,
            record=record,
            record_hash=record_row.record_hash,
            request_salt=to_hex(salt),
            charge_wei=row.charge_wei,
            batch=batch,
            proof=proof,
            chain_id=self.settings.chain_id,
            anchor=self.anchor_address,
            coordinator=self.secrets.signer.address,
            audit=audit,
        )
        return receipts.sign(receipt, self.secrets.signer)

    async def _audit_part(self, request_id: str, record: ExecutionRecord) -> receipts.AuditPart:
        if not record.rate:
            return receipts.AuditPart(state="off", refunded_wei="0")
        audit = await self.readers.audit_of_request(request_id)
        epochs = await self.readers.epochs(first=record.epoch, limit=1)
        return receipts.AuditPart(
            state=await self._audit_state(request_id, audit),
            refunded_wei=(audit.refunded_wei if audit is not None else "") or "0",
            records=await self._recorded_audit(audit) if audit is not None else (),
            epoch=public_epoch(epochs[0]) if epochs and epochs[0].epoch == record.epoch else None,
        )

    async def _recorded_audit(self, audit: AuditRow) -> tuple[receipts.RecordedAudit, ...]:
        if audit.audit_sequence < 0:
            return ()
        (row,) = await self.readers.records_range(audit.audit_sequence, audit.audit_sequence)
        batch, proof = await self._proof(row.sequence)
        record = decode(row.body, AuditRecord)
        return (receipts.RecordedAudit(record=record, record_hash=row.record_hash, batch=batch, proof=proof),)

    async def _proof(self, sequence: int) -> tuple[Batch | None, receipts.MerkleProof | None]:
        found = await self.readers.batch_of(sequence)
        if found is None or not found.confirmed_at:
            return None, None
        batch = batch_of(found)
        tree = self._trees.get(batch.number)
        if tree is None:
            rows = await self.readers.records_range(batch.first, batch.last)
            tree = merkle.Tree([from_hex(row.record_hash, name="record_hash", length_bytes=32) for row in rows])
            self._trees[batch.number] = tree
            if len(self._trees) > TREES_KEPT:
                self._trees.popitem(last=False)
        index = sequence - batch.first
        siblings = tuple(to_hex(each) for each in tree.proof(index))
        return batch, receipts.MerkleProof(index=index, count=batch.count, siblings=siblings)

    async def account(self, key: ApiKey) -> requests.AccountView:
        ledger = self.engine.ledger
        view = requests.AccountView(
            account=key.account,
            available_wei=str(ledger.balance_wei(available(key.account))),
            held_wei=str(ledger.balance_wei(held(key.account))),
            open_requests=self.engine.open_of_account.get(key.account, 0),
            key=key_view(key),
            vault=self._vault_view(key.account),
        )
        await self.journal.flushed()
        return view

    def _vault_view(self, account: str) -> requests.VaultView | None:
        engine, ledger = self.engine, self.engine.ledger
        if not engine.lives_from_deposit(account):
            return None
        books, cursor = engine.mirror.accounts.get(account), engine.mirror.cursor
        room_wei = engine.limit_room_wei(account)
        assert room_wei is not None, "deposits have a daily limit"
        return requests.VaultView(
            address=self.vault_address,
            chain_id=self.settings.chain_id,
            block=cursor.block if cursor is not None else 0,
            deposit_wei=str(books.deposit_wei if books is not None else 0),
            unsettled_wei=str(ledger.balance_wei(spent(account))),
            asked_wei=str(engine.mirror.frozen_wei(account)),
            cleared_wei=str(ledger.balance_wei(cleared(account))),
            clearable_wei=str(engine.clearable_wei(account)),
            spendable_wei=str(engine.spendable_wei(account)),
            daily_limit_wei=str(engine.daily_limit_wei(account)),
            daily_room_wei=str(room_wei),
        )

    # Everybody's ------------------------------------------------------------------------------------------------------

    def models(self) -> requests.ModelList:
        catalogue = self.engine.catalogue
        views: list[requests.ModelView] = []
        for model in catalogue.models:
            price = price_of(catalogue, model, tier=1, priority="standard")
            need = _any_need(model)
            views.append(
                requests.ModelView(
                    id=model.name,
                    created=self.started_at // 1000,
                    context_tokens=model.context_tokens,
                    max_tokens_default=model.max_tokens_default,
                    max_tokens_max=model.max_tokens_max,
                    prompt_wei_per_1000=str(price.prompt_wei),
                    completion_wei_per_1000=str(price.completion_wei),
                    digests=model.digests,
                    capable_nodes=self.engine.pool.capable_nodes(need),
                    free_slots=self.engine.pool.slots(need)[1],
                )
            )
        return requests.ModelList(data=tuple(views))

    async def network(self) -> requests.NetworkView:
        engine = self.engine
        online = [node for node in engine.pool.nodes.values() if node.counts_as_online]
        view = requests.NetworkView(
            chain_id=self.settings.chain_id,
            coordinator=self.secrets.signer.address,
            anchor=self.anchor_address,
            contracts=self.contracts,
            block=engine.mirror.cursor.block if engine.mirror.cursor is not None else None,
            nodes_online=len(online),
            slots=sum(node.manifest.slots for node in online),
            slots_free=sum(max(0, node.slots_free) for node in online),
            requests_open=engine.requests_open,
            requests_waiting=len(engine.queue),
            records=engine.recorder.sequence,
            head_hash=engine.recorder.head_hash,
            batches=engine.recorder.batches_closed,
            batches_confirmed=engine.recorder.batches_confirmed,
        )
        await self.journal.flushed()
        return view

    async def record(self, record_hash: str) -> Record:
        await self.journal.flushed()
        row = await self.readers.record_by_hash(record_hash)
        if row is None:
            raise errors.NotFound(f"record {record_hash[:80]!r}: not in the chain", code="unknown_record")
        return decode_record(row.body)

    async def epochs(self, first: int, limit: int) -> sampling.EpochList:
        await self.journal.flushed()
        return sampling.EpochList(
            data=tuple(map(public_epoch, await self.readers.epochs(first=first, limit=limit))),
            floor_percent=self.settings.sampling_floor_percent if self.settings.audits else 0,
        )

    async def batch(self, number: int) -> Batch:
        await self.journal.flushed()
        row = await self.readers.batch(number)
        if row is None:
            recorder = self.engine.recorder
            last = f"the last one is {recorder.next_batch - 1}" if recorder.batches_closed else "none is closed yet"
            raise errors.NotFound(f"batch {number}: {last}", code="unknown_batch")
        return batch_of(row)


def public_epoch(row: EpochRow) -> Epoch:
    return Epoch(
        epoch=row.epoch,
        commitment=row.commitment,
        secret=row.secret,
        began_at=row.began_at,
        revealed_at=row.revealed_at,
    )


def _any_need(model: ModelEntry) -> Need:
    """What any request for the model asks at least."""
    return Need(
        workload_class=WORKLOAD_CLASSES[0],
        digests=model.digests,
        tier=1,
        context_tokens=0,
        features=frozenset(),
        tokens=0,
        deadline_ms=1,
    )


def key_view(key: ApiKey) -> requests.KeyView:
    return requests.KeyView(
        id=key.key_id,
        name=key.name,
        requests_per_minute=key.requests_per_minute,
        concurrency=key.concurrency,
        budget_wei=str(key.budget_wei),
        spent_wei=str(key.spent_wei),
        created_at=key.created_at,
        expires_at=key.expires_at or None,
        revoked=bool(key.revoked_at),
        scopes=tuple(key.scopes.split(",")),
        kind="session" if key.kind == "session" else "key",
    )


def _result_view(outcome: Outcome) -> requests.ResultView | None:
    content = outcome.content
    if content is None:
        return None
    return requests.ResultView(
        text=content.text,
        tool_calls=tuple(
            requests.ToolCallView(id=call.id, name=call.name, arguments=call.arguments) for call in content.tool_calls
        ),
        embeddings=tuple(work.unpack_vector(packed) for packed in content.embeddings),
        finish_reason=content.finish_reason,
        logprobs=_logprobs_asked_for(outcome),
    )


def _logprobs_asked_for(outcome: Outcome) -> tuple[requests.LogprobEntry, ...]:
    """Nodes return what an audit needs; a requester sees what it asked for."""
    if not outcome.top_logprobs:
        return ()
    return tuple(
        requests.LogprobEntry(text=entry.text, logprob=entry.logprob, top=entry.top[: outcome.top_logprobs])
        for entry in outcome.entries
    )
