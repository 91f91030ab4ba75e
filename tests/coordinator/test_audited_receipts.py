"""What a requester keeps of an audited request, and what anybody can check of all audits."""

from __future__ import annotations

from pathlib import Path

from auditing_scene import Auditors, auditors, hand_nodes

from parallelix.protocol import audit_log, receipts
from parallelix.protocol.audit_log import AuditLog, PublicEpoch
from parallelix.protocol.receipts import AuditPart, Receipt
from parallelix.protocol.records import decode_record, record_hash

QUICK = {"batch_records_max": 1, "epoch_seconds": 1.0}


async def receipt_of(network: Auditors, request_id: str) -> tuple[Receipt, AuditPart]:
    receipt = await network.coordinator.receipt(network.key, request_id)
    assert isinstance(receipt.audit, AuditPart)
    checks = receipts.verify(receipt, coordinator=network.coordinator.secrets.signer.address)
    assert [name for name, holds, _ in checks if not holds] == []
    return receipt, receipt.audit


async def with_secret(network: Auditors, request_id: str) -> tuple[Receipt, AuditPart]:
    """The receipt when its epoch is revealed and all its batches are confirmed."""
    found: list[tuple[Receipt, AuditPart]] = []

    async def is_out() -> bool:
        found[:] = [await receipt_of(network, request_id)]
        receipt, audit = found[0]
        anchored = receipt.batch is not None and all(each.batch is not None for each in audit.records)
        return anchored and audit.epoch is not None and audit.epoch.secret != ""

    await network.until_async(is_out)
    return found[0]


async def all_audits(network: Auditors) -> AuditLog:
    """As somebody sees them who gives an audit no time at all."""
    coordinator = network.coordinator
    await coordinator.journal.flushed()
    rows = await coordinator.readers.records_range(0, 1000)
    epochs = await coordinator.epochs(0, 1000)
    return audit_log.check(
        [decode_record(row.body) for row in rows], [PublicEpoch(epoch=each) for each in epochs.data], pending_ms=-1
    )


async def test_a_receipt_follows_an_audit_from_its_draw_to_its_verdict(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2), **QUICK) as network:
        _, request_id = await network.executed()
        early, pending = await receipt_of(network, request_id)
        await network.audit(request_id)
        receipt, audit = await with_secret(network, request_id)

        assert (pending.state, pending.records, pending.refunded_wei) == ("pending", (), "0")
        assert pending.epoch is not None
        assert (pending.epoch.epoch, pending.epoch.secret) == (early.record.epoch, "")
        assert receipt.record == early.record
        assert (receipt.record.rate, audit.state) == (100, "agree")
        (recorded,) = audit.records
        assert recorded.record.execution_hash == receipt.record_hash == record_hash(receipt.record)
        assert [name for name, _, _ in receipts.verify(receipt)] == [
            "record", "coordinator", "batch", "audit", "audit batch", "draw",
        ]  # fmt: skip
        assert (await network.view(request_id)).audit == "agree"


async def test_a_receipt_of_an_overturned_answer_says_so_and_what_came_back(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3), **QUICK) as network:
        _, request_id = await network.executed("liar")
        await network.audit(request_id)
        await network.audit(request_id)
        receipt, audit = await with_secret(network, request_id)
        view = await network.view(request_id)

        assert (audit.state, receipt.charge_wei) == ("disagree", "0")
        assert int(audit.refunded_wei) > 0
        assert (view.audit, view.refunded_wei, view.charge_wei) == ("disagree", audit.refunded_wei, "0")
        assert view.audit_reason == audit.records[0].record.reason != ""


async def test_the_public_record_of_real_audits_holds_and_a_missing_one_is_noticed(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3), **QUICK) as network:
        for model in ("honest", "liar", "honest"):
            _, request_id = await network.executed(model)
            assert [each.kind for each in (await all_audits(network)).violations] == ["missing"]
            while network.coordinator.auditing.is_open(request_id):
                await network.audit(request_id)
            assert (await all_audits(network)).holds
        told = await all_audits(network)

    assert sum(each.recorded for each in told.epochs) == sum(each.executions for each in told.epochs) == 3
    assert sum(each.disagree for each in told.epochs) == 1
