"""What a chain says of a receipt, by its endpoint alone: no coordinator is asked."""

from __future__ import annotations

from collections.abc import Callable

from parallelix.chain import anchored
from parallelix.chain.anchored import ANCHOR, OnChain
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import Rpc
from parallelix.client.answers import AnchoredAnswer
from parallelix.client.commands.asking import Chain
from parallelix.client.commands.on_chain import deployment_of, ended, on_chain, require_rpc
from parallelix.protocol.errors import Malformed
from parallelix.protocol.receipts import AuditPart, Check, Receipt
from parallelix.terminal import Console

Told = Callable[[list[Check], AnchoredAnswer | None], int]


def asked_of_chain(console: Console, receipt: Receipt, chain: Chain, told: Told) -> int:
    """Tells what the chain adds to a receipt's checks; the exit code."""

    def work() -> int:
        deployment = deployment_of(chain.deployment)
        rpc = require_rpc(chain.rpc)
        of_file = _names_the_deployment(receipt, deployment)
        if receipt.batch is None:
            words = "the anchor keeps its batch; the receipt has none yet: run `parallelix receipt refresh` first"
            return told([of_file, ("anchored", False, words)], None)
        try:
            found, of_audit = on_chain(rpc, lambda endpoint: _looked_up(endpoint, deployment, receipt, chain))
        except Malformed as error:
            return told([of_file, ("anchored", False, f"the anchor keeps its batch; {error.message}")], None)
        return told(
            [of_file, *_checks(receipt, found, chain.confirmations), *of_audit], _answer(deployment, receipt, found)
        )

    return ended(console, work)


async def _looked_up(rpc: Rpc, deployment: Deployment, receipt: Receipt, chain: Chain) -> tuple[OnChain, list[Check]]:
    found = await anchored.look_up(rpc, deployment, receipt, confirmations=chain.confirmations)
    of_audit: list[Check] = []
    there = await anchored.audit_anchored(rpc, deployment, receipt, confirmations=chain.confirmations)
    if there is not None:
        words = "the anchor keeps the batch of the audit too, and leads from the audit's record to its root"
        of_audit.append(("audit there", there, words))
    epoch = receipt.audit.epoch if isinstance(receipt.audit, AuditPart) else None
    if epoch is not None:
        words = f"the anchor keeps what epoch {epoch.epoch} committed to" + (", and its secret" if epoch.secret else "")
        of_audit.append(("epoch there", await anchored.epoch_anchored(rpc, deployment, epoch), words))
    return found, of_audit


def _names_the_deployment(receipt: Receipt, deployment: Deployment) -> Check:
    address = deployment.address(ANCHOR)
    same = receipt.chain_id == deployment.chain_id and receipt.anchor.lower() == address.lower()
    if same:
        return ("chain", True, f"the receipt is of the deployment's chain, {deployment.chain_id}, and of its anchor")
    return (
        "chain",
        False,
        f"the receipt names chain {receipt.chain_id} and anchor {receipt.anchor}; the deployment, which was asked, is "
        f"chain {deployment.chain_id} and anchor {address}",
    )


def _checks(receipt: Receipt, found: OnChain, confirmations: int) -> list[Check]:
    batch = receipt.batch
    assert batch is not None
    checks: list[Check] = [
        ("anchored", found.holds, f"the anchor keeps batch {batch.number}, with this Merkle root"),
        ("in anchored", found.verified, "the contract itself leads from this record to that root"),
    ]
    if not found.holds:
        return checks[:1]
    if found.found is not None:
        words = "first, last and heads of the batch are those that were anchored"
        checks.append(("batch there", found.found.batch == batch, words))
    so_many = "1 block lies" if confirmations == 1 else f"{confirmations} blocks lie"
    checks.append(("confirmed", found.confirmed, f"at least {so_many} above it, so that no other takes its place"))
    return checks


def _answer(deployment: Deployment, receipt: Receipt, found: OnChain) -> AnchoredAnswer | None:
    if not found.holds or receipt.batch is None:
        return None
    batch = found.found
    return AnchoredAnswer(
        chain_id=deployment.chain_id,
        anchor=deployment.address(ANCHOR),
        batch=receipt.batch.number,
        block=0 if batch is None else batch.block,
        at=found.at,
        transaction_hash="" if batch is None else batch.transaction_hash,
        confirmations=found.depth_blocks,
    )
