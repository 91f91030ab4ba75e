"""`parallelix audit verify` against an anchor that was told of batches and epochs as a coordinator tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anchoring_scene import retold
from chain_scene import Ethereum, funded, key

from audit_lives import MASTER, Network, lived
from bench.record_edits import batch_of
from parallelix.chain import deployment_file
from parallelix.chain.anchored import read_epochs
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import BadResult
from parallelix.chain.rpc import connected
from parallelix.chain.wallet import Wallet
from parallelix.client.cli import run
from parallelix.protocol import merkle, receipts, sampling, signing
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.receipts import AuditPart, Receipt
from parallelix.protocol.record_export import Header, lines_of
from parallelix.protocol.records import AuditRecord, Batch, ExecutionRecord, Record, record_hash, record_hash_bytes

UNVERIFIED = 7
COORDINATOR = signing.NodeKey(b"\x21" * 32)
SEED = 4


@dataclass(frozen=True, kw_only=True)
class Scene:
    ethereum: Ethereum
    deployment: Deployment
    deployment_path: Path
    network: Network
    batches: tuple[Batch, ...]

    def export(self, folder: Path, records: Sequence[Record] | None = None) -> Path:
        header = Header(chain_id=self.deployment.chain_id, anchor=self.deployment.address("ExecutionAnchor"))
        path = folder / "records.jsonl"
        path.write_bytes(b"".join(lines_of(header, self.batches, records or self.network.records)))
        return path


@pytest.fixture(scope="module")
def scene(shared_ethereum: Ethereum, shared_deployment: Path) -> Iterator[Scene]:
    deployment = deployment_file.read(shared_deployment)
    assert deployment is not None
    network = lived(SEED, steps=40, is_over=True)
    network.anchor()
    batches = tuple(batch_of(number, members) for number, members in enumerate(members_of(network), start=1))

    with shared_ethereum.undone():
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, told(shared_ethereum, deployment, network, batches)).result()
        yield Scene(
            ethereum=shared_ethereum,
            deployment=deployment,
            deployment_path=shared_deployment,
            network=network,
            batches=batches,
        )


def members_of(network: Network) -> Iterator[list[Record]]:
    first = 0
    for batch in network.batches:
        yield network.records[first : batch.last + 1]
        first = batch.last + 1


async def told(ethereum: Ethereum, deployment: Deployment, network: Network, batches: Sequence[Batch]) -> None:
    """The validator's transactions, in the order in which the coordinator made them."""
    calls = ExecutionAnchorCalls(deployment.address("ExecutionAnchor"))
    newest = 0
    async with connected(ethereum.url) as rpc:
        validator = Wallet(rpc, funded(ethereum.anvil, key("validator")))
        for what, number in network.said:
            secret = sampling.epoch_secret(MASTER, number)
            if what == "commit":
                await validator.send(calls.commit_sampling(number, sampling.commitment(secret)))
                continue
            if what == "reveal":
                await validator.send(calls.reveal_sampling(number, secret))
                continue
            batch = batches[number]
            members = network.records[batch.first : batch.last + 1]
            newest = max([newest, *(each.epoch for each in members if isinstance(each, ExecutionRecord))])
            await validator.send(
                calls.anchor_batch(
                    bytes.fromhex(batch.previous_hash[2:]),
                    bytes.fromhex(batch.head_hash[2:]),
                    batch.first,
                    batch.last,
                    bytes.fromhex(batch.merkle_root[2:]),
                    batch.count,
                    newest,
                )
            )


def verified(scene: Scene, path: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    chain = ("--deployment", str(scene.deployment_path), "--rpc", scene.ethereum.url, "--confirmations", "0")
    code = run(["audit", "verify", str(path), *chain, "--pending-hours", "1", *more])
    return code, capsys.readouterr().out


async def test_epochs_are_read_with_the_blocks_in_which_they_were_told(scene: Scene) -> None:
    async with connected(scene.ethereum.url) as rpc:
        found = await read_epochs(rpc, scene.deployment)

    made = scene.network.epochs
    assert [(each.epoch.epoch, each.epoch.commitment, each.epoch.secret) for each in found] == [
        (each.epoch.epoch, each.epoch.commitment, each.epoch.secret) for each in made
    ]
    assert [bool(each.revealed_block) for each in found] == [bool(each.epoch.secret) for each in made]
    assert all(each.committed_block < each.revealed_block for each in found if each.revealed_block)


@pytest.mark.parametrize("left_out", [0, 1, -1])
async def test_an_endpoint_that_leaves_an_epoch_out_is_not_believed(scene: Scene, left_out: int) -> None:
    def without_one(question: Any, answer: Any) -> Any:
        if question["method"] == "eth_getLogs":
            del answer["result"][left_out]
        return answer

    async with retold(scene.ethereum.url, without_one) as url, connected(url) as lying:
        with pytest.raises(BadResult, match="SamplingCommitted"):
            await read_epochs(lying, scene.deployment)


def test_an_honest_network_passes_and_says_what_was_looked_at(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = scene.export(tmp_path)
    code, out = verified(scene, path, capsys=capsys)
    _, as_json = verified(scene, path, "--json", capsys=capsys)
    answer = json.loads(as_json)

    assert code == 0, out
    assert max(map(len, out.replace(str(path), "records.jsonl").splitlines())) <= 80
    assert "no audit missing and none too many" in " ".join(out.split())
    audits = [each for each in scene.network.records if isinstance(each, AuditRecord)]
    assert sum(each["recorded"] for each in answer["epochs"]) == len(audits)
    assert sum(answer["reasons"].values()) == sum(each.verdict == "unaudited" for each in audits)
    assert (answer["passed"], answer["told_by"], answer["found"]) == (True, "chain", 0)
    assert answer["epochs"][-1]["state"] == "open"
    assert f"open: the secret of epoch {scene.network.newest} is not out yet" in " ".join(out.split())


def test_one_epoch_alone(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = scene.export(tmp_path)
    _, out = verified(scene, path, "--json", "--epoch", "0", capsys=capsys)

    assert [each["epoch"] for each in json.loads(out)["epochs"]] == [0]


def test_a_floor_above_the_rates_is_missed(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verified(scene, scene.export(tmp_path), "--floor", "50", capsys=capsys)

    assert code == UNVERIFIED
    assert "a rate of 10 %, below the floor of 50 %" in out


def test_an_export_that_is_not_what_was_anchored_is_not_looked_into(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scene.export(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"verdict":"disagree"', b'"verdict":"agree"', 1))
    code, out = verified(scene, path, capsys=capsys)
    _, as_json = verified(scene, path, "--json", capsys=capsys)

    assert code == UNVERIFIED
    assert "altered; another was anchored" in out
    assert (json.loads(as_json)["export_holds"], json.loads(as_json)["epochs"]) == (False, [])


def test_without_a_chain_only_what_needs_none_is_said(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scene.export(tmp_path)
    assert run(["audit", "verify", str(path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())

    assert "draws not recomputed: nobody was asked for the epochs" in printed
    assert run(["audit", "verify", str(path.with_name("nowhere"))]) == 2


# Receipts of the same records


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A receipt as its coordinator signed it, and the place where commands read it from."""

    receipt: Receipt
    path: Path

    def checks(self, scene: Scene, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, dict[str, bool]]:
        """What `receipt verify` says by the chain, where the coordinator signed these changes of the audit part."""
        audit = self.receipt.audit
        assert isinstance(audit, AuditPart)
        changed = msgspec.structs.replace(self.receipt, signature="", audit=msgspec.structs.replace(audit, **changes))
        self.path.write_bytes(msgspec.json.encode(receipts.sign(changed, COORDINATOR)))
        chain = ("--deployment", str(scene.deployment_path), "--rpc", scene.ethereum.url, "--confirmations", "0")
        code = run(["receipt", "verify", str(self.path), *chain, "--json"])
        return code, {each["name"]: each["passed"] for each in json.loads(capsys.readouterr().out)["checks"]}


@pytest.fixture
def kept(scene: Scene, tmp_path: Path) -> Kept:
    """Of the first execution that was audited."""
    audit = next(each for each in scene.network.records if isinstance(each, AuditRecord))
    record = next(each for each in scene.network.records if record_hash(each) == audit.execution_hash)
    assert isinstance(record, ExecutionRecord)
    batch, proof = place_of(scene, record)
    batch_of_audit, proof_of_audit = place_of(scene, audit)
    found = receipts.RecordedAudit(
        record=audit, record_hash=record_hash(audit), batch=batch_of_audit, proof=proof_of_audit
    )
    receipt = Receipt(
        version=2,
        record=record,
        record_hash=record_hash(record),
        request_salt=to_hex(bytes(32)),
        charge_wei="1",
        batch=batch,
        proof=proof,
        chain_id=scene.deployment.chain_id,
        anchor=scene.deployment.address("ExecutionAnchor"),
        coordinator=COORDINATOR.address,
        audit=AuditPart(
            state=audit.verdict, refunded_wei="0", records=(found,), epoch=scene.network.epochs[record.epoch].epoch
        ),
    )
    return Kept(receipt=receipt, path=tmp_path / "receipt.json")


def place_of(scene: Scene, record: Record) -> tuple[Batch, receipts.MerkleProof]:
    batch = next(each for each in scene.batches if each.first <= record.sequence <= each.last)
    members = scene.network.records[batch.first : batch.last + 1]
    index = record.sequence - batch.first
    siblings = merkle.proof([record_hash_bytes(each) for each in members], index)
    return batch, receipts.MerkleProof(index=index, count=batch.count, siblings=tuple(map(to_hex, siblings)))


def test_the_chain_bears_out_a_receipt_with_its_audit_and_its_epoch(
    scene: Scene, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks = kept.checks(scene, capsys)

    assert code == 0
    assert checks == dict.fromkeys(
        ["record", "coordinator", "batch", "audit", "audit batch", "draw", "chain", "anchored", "in anchored",
         "batch there", "confirmed", "audit there", "epoch there"],
        True,
    )  # fmt: skip


def test_an_audit_or_a_secret_that_the_chain_does_not_keep_is_told(
    scene: Scene, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = kept.receipt.audit
    assert isinstance(audit, AuditPart) and audit.epoch is not None
    (found,) = audit.records
    made_up = msgspec.structs.replace(found.record, finished_at=1)
    alone = Batch(
        number=1,
        previous_hash=made_up.previous_hash,
        head_hash=record_hash(made_up),
        first=made_up.sequence,
        last=made_up.sequence,
        count=1,
        merkle_root=to_hex(merkle.root([record_hash_bytes(made_up)])),
    )
    forged = receipts.RecordedAudit(
        record=made_up,
        record_hash=record_hash(made_up),
        batch=alone,
        proof=receipts.MerkleProof(index=0, count=1, siblings=()),
    )
    secret = next(bytes([each] * 32) for each in range(256) if draws(kept.receipt.record, bytes([each] * 32)))
    epoch = msgspec.structs.replace(audit.epoch, secret=to_hex(secret), commitment=to_hex(sampling.commitment(secret)))

    of_audit, of_epoch = kept.checks(scene, capsys, records=(forged,)), kept.checks(scene, capsys, epoch=epoch)

    assert (of_audit[0], [name for name, holds in of_audit[1].items() if not holds]) == (7, ["audit there"])
    assert (of_epoch[0], [name for name, holds in of_epoch[1].items() if not holds]) == (7, ["epoch there"])
    hidden = kept.checks(scene, capsys, epoch=msgspec.structs.replace(epoch, secret=""))
    assert (hidden[0], [name for name, holds in hidden[1].items() if not holds]) == (7, ["epoch there"])


def draws(record: ExecutionRecord, secret: bytes) -> bool:
    return sampling.drawn(sampling.draw(secret, record.poe_commitment), record.rate)
