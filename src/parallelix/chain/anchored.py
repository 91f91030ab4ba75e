"""What the anchor of a deployment keeps, for whoever checks records: its batches, and whether a receipt's is one.

Which chain and which contract come from the deployment file, never from what is being checked.
"""

from __future__ import annotations

import msgspec

from parallelix.chain.abi import Address, Event, Log, events_of
from parallelix.chain.bindings.execution_anchor import (
    BatchAnchored,
    ExecutionAnchorViews,
    SamplingCommitted,
    SamplingRevealed,
)
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import AnchorRefused, BadArgument, BadResult, RpcRefused, WrongChain
from parallelix.chain.records_audit import require_consistent
from parallelix.chain.rpc import Rpc
from parallelix.protocol.audit_log import PublicEpoch
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.receipts import AuditPart, MerkleProof, Receipt
from parallelix.protocol.records import Batch, Record, record_hash_bytes
from parallelix.protocol.sampling import Epoch

ANCHOR = "ExecutionAnchor"
SPAN_BLOCKS_MAX = 50_000
"""A week of Ethereum, in which 1,008 batches are anchored. Endpoints that allow less say so, and are asked for less."""


class AnchoredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch, and the transaction that anchored it."""

    batch: Batch
    block: int
    transaction_hash: str


class Anchored(msgspec.Struct, frozen=True, kw_only=True):
    """All batches up to and with `block`; `head` is the newest block that there was."""

    chain_id: int
    anchor: Address
    batches: tuple[AnchoredBatch, ...]
    block: int
    head: int


class OnChain(msgspec.Struct, frozen=True, kw_only=True):
    """What a chain says about a receipt's batch.

    `holds`: the anchor has this batch with this root; `confirmed`: it had it as many blocks ago as were asked for.
    `verified`: the contract itself leads the record to that root. `found` is the batch with its transaction, where the
    endpoint still has its log; `at` is its block's time in Unix seconds.
    """

    holds: bool
    confirmed: bool
    verified: bool
    head: int
    found: AnchoredBatch | None = None
    at: int = 0

    @property
    def depth_blocks(self) -> int:
        """How many blocks lie above the batch's; 0 where that is not known."""
        return self.head - self.found.block if self.found is not None else 0


async def read_anchored(rpc: Rpc, deployment: Deployment, *, confirmations: int, block: int | None = None) -> Anchored:
    """Every batch that is at least `confirmations` blocks deep, or that there was at `block`.

    Raises `WrongChain`, `BadArgument` for a block that is not that deep, and `BadResult` where the events are not
    what the contract itself says at that block: an endpoint that leaves something out.
    """
    anchor = await _anchor_of(rpc, deployment)
    head = await rpc.block_number()
    deepest = max(head - confirmations, 0)
    if block is not None and block > deepest:
        raise BadArgument("block", f"{block} is not {confirmations} blocks deep yet; the newest that is: {deepest}")
    until = deepest if block is None else block
    found: list[AnchoredBatch] = []
    if until >= deployment.contracts[ANCHOR].block_number:
        found = [_batch_of(log) for log in await _logs(rpc, anchor, deployment.first_block, until, BatchAnchored)]
        await _require_whole(rpc, anchor, [each.batch for each in found], until)
    return Anchored(chain_id=deployment.chain_id, anchor=anchor, batches=tuple(found), block=until, head=head)


async def read_epochs(rpc: Rpc, deployment: Deployment) -> tuple[PublicEpoch, ...]:
    """Every epoch that the anchor was told of up to the newest block, in order, with the blocks.

    Raises `WrongChain`, and `BadResult` where the events are not as many as the contract says.
    """
    anchor = await _anchor_of(rpc, deployment)
    head = await rpc.block_number()
    logs = await _logs(rpc, anchor, deployment.first_block, head, SamplingCommitted, SamplingRevealed)
    found: dict[int, PublicEpoch] = {}
    revealed = 0
    for log in logs:
        for told in events_of([log], SamplingCommitted):
            epoch = Epoch(epoch=told.epoch, commitment=to_hex(told.commitment))
            found[told.epoch] = PublicEpoch(epoch=epoch, committed_block=log.block_number)
        for shown in events_of([log], SamplingRevealed):
            known = found.get(shown.epoch)
            if known is None:
                raise BadResult(SamplingCommitted.LAYOUT.signature, f"none for epoch {shown.epoch}, which is revealed")
            out = msgspec.structs.replace(known.epoch, secret=to_hex(shown.secret))
            found[shown.epoch] = msgspec.structs.replace(known, epoch=out, revealed_block=log.block_number)
            revealed += 1
    views = ExecutionAnchorViews(rpc, anchor, block=head)
    said = (await views.committed_epochs(), await views.revealed_epochs())
    if [*found] != list(range(said[0])) or revealed != said[1]:
        raise BadResult(
            SamplingCommitted.LAYOUT.signature,
            f"the events make {len(found)} epochs, {revealed} of them revealed; the contract has {said[0]}, and "
            f"{said[1]} revealed, at block {head}",
        )
    return tuple(found.values())


async def look_up(rpc: Rpc, deployment: Deployment, receipt: Receipt, *, confirmations: int) -> OnChain:
    """Asks the deployment's anchor for the batch of a receipt that has one. Raises `WrongChain`, and `Malformed` for a
    receipt whose hashes are none."""
    anchor = await _anchor_of(rpc, deployment)
    batch = receipt.batch
    assert batch is not None
    head = await rpc.block_number()
    views = ExecutionAnchorViews(rpc, anchor)
    root = from_hex(batch.merkle_root, name="merkle_root", length_bytes=32)
    if not await views.holds(batch.number, root):
        return OnChain(holds=False, confirmed=False, verified=False, head=head)
    deepest = head - confirmations
    confirmed = deepest >= deployment.contracts[ANCHOR].block_number and await ExecutionAnchorViews(
        rpc, anchor, block=deepest
    ).holds(batch.number, root)
    found = await _find(rpc, anchor, deployment.first_block, head, batch.number)
    return OnChain(
        holds=True,
        confirmed=confirmed,
        verified=await _verifies(views, receipt.record, batch, receipt.proof),
        head=head,
        found=found,
        at=0 if found is None else await rpc.block_time(found.block),
    )


async def audit_anchored(rpc: Rpc, deployment: Deployment, receipt: Receipt, *, confirmations: int) -> bool | None:
    """Whether the anchor keeps the batch of the receipt's audit that deep, and leads the audit's record to its root;
    None where the receipt has no such batch. Raises as `look_up`."""
    audit = receipt.audit
    if not isinstance(audit, AuditPart):
        return None
    anchor = await _anchor_of(rpc, deployment)
    deepest = await rpc.block_number() - confirmations
    views = ExecutionAnchorViews(rpc, anchor)
    asked = False
    for each in audit.records:
        if each.batch is None:
            continue
        asked = True
        root = from_hex(each.batch.merkle_root, name="merkle_root", length_bytes=32)
        is_deep = deepest >= deployment.contracts[ANCHOR].block_number and await ExecutionAnchorViews(
            rpc, anchor, block=deepest
        ).holds(each.batch.number, root)
        if not is_deep or not await _verifies(views, each.record, each.batch, each.proof):
            return False
    return True if asked else None


async def epoch_anchored(rpc: Rpc, deployment: Deployment, epoch: Epoch) -> bool:
    """Whether the anchor was told this commitment, and the secret too where the epoch has one."""
    views = ExecutionAnchorViews(rpc, await _anchor_of(rpc, deployment))
    if to_hex(await views.commitment_of(epoch.epoch)) != epoch.commitment:
        return False
    return not epoch.secret or to_hex(await views.secret_of(epoch.epoch)) == epoch.secret


async def _verifies(views: ExecutionAnchorViews, record: Record, batch: Batch, proof: MerkleProof | None) -> bool:
    if proof is None:
        return False
    siblings = [from_hex(each, name="sibling", length_bytes=32) for each in proof.siblings]
    try:
        return await views.verify(batch.number, record_hash_bytes(record), proof.index, proof.count, siblings)
    except AnchorRefused:
        return False


async def _anchor_of(rpc: Rpc, deployment: Deployment) -> Address:
    """Raises `WrongChain` unless the endpoint serves the deployment's chain, with a contract where the anchor is."""
    chain_id = await rpc.chain_id()
    if chain_id != deployment.chain_id:
        raise WrongChain(
            f"the endpoint serves chain {chain_id}, the deployment is on chain {deployment.chain_id};"
            " give an endpoint of that chain"
        )
    anchor = deployment.address(ANCHOR)
    if not await rpc.code(anchor):
        raise WrongChain(
            f"{ANCHOR}: no contract stands at {anchor}; the endpoint lags behind, or serves another chain with the "
            f"same id {chain_id}"
        )
    return anchor


async def _logs(rpc: Rpc, anchor: Address, first: int, last: int, *kinds: type[Event]) -> list[Log]:
    """In as large steps as the endpoint takes."""
    topics = [each.LAYOUT.topic for each in kinds]
    found: list[Log] = []
    span = SPAN_BLOCKS_MAX
    while first <= last:
        until = min(last, first + span - 1)
        try:
            found += await rpc.logs(addresses=[anchor], topics=topics, first_block=first, last_block=until)
        except RpcRefused:
            if span == 1:
                raise
            span = max(1, span // 8)
            continue
        first = until + 1
    return found


async def _find(rpc: Rpc, anchor: Address, first: int, last: int, number: int) -> AnchoredBatch | None:
    """None where the endpoint no longer has the log: the contract's own word stands without it."""
    try:
        found = [_batch_of(log) for log in await _logs(rpc, anchor, first, last, BatchAnchored)]
    except RpcRefused:
        return None
    return next((each for each in found if each.batch.number == number), None)


def _batch_of(log: Log) -> AnchoredBatch:
    events = events_of([log], BatchAnchored)
    if len(events) != 1:
        raise BadResult(BatchAnchored.LAYOUT.signature, "a log that is no such event")
    event = events[0]
    batch = Batch(
        number=event.number,
        previous_hash=to_hex(event.previous_hash),
        head_hash=to_hex(event.head_hash),
        first=event.first,
        last=event.last,
        count=event.count,
        merkle_root=to_hex(event.merkle_root),
    )
    return AnchoredBatch(batch=batch, block=log.block_number, transaction_hash=log.transaction_hash)


async def _require_whole(rpc: Rpc, anchor: Address, batches: list[Batch], block: int) -> None:
    """The events must add up to what the contract says of itself at that block."""
    views = ExecutionAnchorViews(rpc, anchor, block=block)
    try:
        require_consistent(batches)
    except ValueError as error:
        raise BadResult(BatchAnchored.LAYOUT.signature, f"{error}; the endpoint left something out") from error
    said = (await views.batch_count(), await views.next_sequence(), to_hex(await views.head()))
    last = batches[-1] if batches else None
    seen = (len(batches) + 1, last.last + 1 if last else 0, last.head_hash if last else to_hex(bytes(32)))
    numbers = [batch.number for batch in batches]
    if seen != said or numbers != list(range(1, len(batches) + 1)):
        raise BadResult(
            BatchAnchored.LAYOUT.signature,
            f"the events make {seen[0]} batches with {seen[1]} records, the contract has {said[0]} with {said[1]} at "
            f"block {block}",
        )
