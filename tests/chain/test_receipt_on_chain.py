"""`receipt verify` and `records verify` against a chain: from an endpoint and the deployment file alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anchoring_scene import anchor, batch_of, chain_of, cut, retold
from chain_scene import Ethereum
from test_chain_commands import Printed

from parallelix.chain import deployment_file
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import connected
from parallelix.client import KeptAnswer
from parallelix.client.cli import run
from parallelix.protocol import merkle, receipts, signing, work
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.receipts import MerkleProof, Receipt
from parallelix.protocol.record_export import Header, lines_of
from parallelix.protocol.records import Batch, ExecutionRecord, Record, record_hash, record_hash_bytes

COORDINATOR = signing.NodeKey(b"\x07" * 32)
SALT = b"\x21" * 32
PAYLOAD, RESULT = '{"prompt":"why"}', '{"text":"because"}'
SIZES = (5, 8, 3)
OURS = 7
"""The record of the receipt, the third of the second batch."""
BLOCKS_ABOVE = 4
UNVERIFIED = 7


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A chain with three batches, and the receipt of a record in the second."""

    ethereum: Ethereum
    deployment: Deployment
    deployment_path: Path
    records: tuple[Record, ...]
    batches: tuple[Batch, ...]

    def receipt(self, **otherwise: Any) -> Receipt:
        batch = self.batches[1]
        members = self.records[batch.first : batch.last + 1]
        index = OURS - batch.first
        siblings = merkle.proof([record_hash_bytes(each) for each in members], index)
        fields: dict[str, Any] = {
            "record": self.records[OURS],
            "record_hash": record_hash(self.records[OURS]),
            "request_salt": to_hex(SALT),
            "charge_wei": "1",
            "batch": batch,
            "proof": MerkleProof(index=index, count=batch.count, siblings=tuple(map(to_hex, siblings))),
            "chain_id": self.deployment.chain_id,
            "anchor": self.deployment.address("ExecutionAnchor"),
            "coordinator": COORDINATOR.address,
        }
        return receipts.sign(Receipt(**(fields | otherwise)), COORDINATOR)


@pytest.fixture(scope="module")
def scene(shared_ethereum: Ethereum, shared_deployment: Path) -> Iterator[Scene]:
    deployment = deployment_file.read(shared_deployment)
    assert deployment is not None
    records = our_records(sum(SIZES) + 2)
    batches = cut(records, SIZES)

    async def anchored() -> None:
        async with connected(shared_ethereum.url) as rpc:
            await anchor(shared_ethereum, rpc, deployment, batches)

    with shared_ethereum.undone():
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, anchored()).result()
        shared_ethereum.anvil.ask("anvil_mine", hex(BLOCKS_ABOVE))
        yield Scene(
            ethereum=shared_ethereum,
            deployment=deployment,
            deployment_path=shared_deployment,
            records=tuple(records),
            batches=tuple(batches),
        )


def our_records(count: int) -> list[Record]:
    """With one that is about `PAYLOAD` and `RESULT`."""
    records = chain_of(count)
    ours = records[OURS]
    assert isinstance(ours, ExecutionRecord)
    records[OURS] = msgspec.structs.replace(
        ours,
        input_hash=to_hex(work.input_hash(SALT, PAYLOAD.encode())),
        result_hash=to_hex(work.result_hash(SALT, RESULT.encode())),
    )
    for at in range(OURS + 1, count):
        records[at] = msgspec.structs.replace(records[at], previous_hash=record_hash(records[at - 1]))
    return records


class Auditor:
    """Somebody with a file, an endpoint and the deployment file, and with no coordinator."""

    def __init__(self, scene: Scene, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.scene = scene
        self.deployment = scene.deployment_path
        self.rpc = scene.ethereum.url
        self.file = folder / "kept.json"
        self.export = folder / "records.jsonl"
        self._capsys = capsys

    def keep(self, receipt: Receipt) -> None:
        kept = KeptAnswer(payload=PAYLOAD, result=RESULT, receipt=receipt)
        self.file.write_bytes(msgspec.json.encode(kept))

    def verify(self, *more: str, confirmations: int = 1) -> Printed:
        return self._run("receipt", "verify", str(self.file), *more, confirmations=confirmations)

    def audit(self, *more: str, confirmations: int = 1) -> Printed:
        return self._run("records", "verify", str(self.export), *more, confirmations=confirmations)

    def _run(self, *arguments: str, confirmations: int) -> Printed:
        chain = ("--deployment", str(self.deployment), "--rpc", self.rpc, "--confirmations", str(confirmations))
        code = run([*arguments, *chain])
        printed = self._capsys.readouterr()
        assert "--json" in arguments or all(len(line) <= 80 for line in printed.out.splitlines())
        return Printed(code, printed.out, printed.err)


@pytest.fixture
def auditor(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Auditor:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PARALLELIX_HOME", str(tmp_path / "home"))
    for name in ("PARALLELIX_RPC", "PARALLELIX_RPC_URL"):
        monkeypatch.delenv(name, raising=False)
    auditor = Auditor(scene, tmp_path, capsys)
    auditor.keep(scene.receipt())
    header = Header(chain_id=scene.deployment.chain_id, anchor=scene.deployment.address("ExecutionAnchor"))
    auditor.export.write_bytes(b"".join(lines_of(header, scene.batches, scene.records)))
    return auditor


def failed(printed: Printed) -> list[str]:
    return [check["name"] for check in printed.answer["checks"] if not check["passed"]]


# A receipt


def test_a_receipt_is_borne_out_by_the_chain_alone(auditor: Auditor) -> None:
    printed = auditor.verify()
    answer = auditor.verify("--json").answer

    assert (printed.code, printed.err) == (0, "")
    assert "✓ anchored      the anchor keeps batch 2, with this Merkle root" in printed.out
    assert "// batch 2 on chain 31337" in printed.out
    assert re.search(r"block\s+\d+, \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\n", printed.out)
    assert re.search(r"above it\s+5 blocks", printed.out)
    assert "✓ the record was anchored as it is here; nobody can change, drop or backdate it" in printed.out
    assert "that the answer is good, or that the node computed honestly" in " ".join(printed.out.split())
    assert [each["name"] for each in answer["checks"]] == [
        "record", "coordinator", "input", "result", "batch",
        "chain", "anchored", "in anchored", "batch there", "confirmed",
    ]  # fmt: skip
    assert answer["anchored"]["confirmations"] == BLOCKS_ABOVE + 1
    assert re.fullmatch("0x[0-9a-f]{64}", answer["anchored"]["transaction_hash"])
    assert not any("on chain" in each for each in answer["unproven"])


def test_without_a_deployment_it_says_that_no_chain_was_asked(
    auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["receipt", "verify", str(auditor.file)])

    assert code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not proven: that batch 2 is on chain 31337, which was not asked: give --deployment and --rpc" in out


def test_a_batch_that_lies_too_shallow_is_not_taken_as_final(auditor: Auditor) -> None:
    deep_enough, too_shallow = BLOCKS_ABOVE + 1, BLOCKS_ABOVE + 2

    assert auditor.verify(confirmations=deep_enough).code == 0
    assert auditor.verify(confirmations=0).code == 0
    printed = auditor.verify("--json", confirmations=too_shallow)
    assert (printed.code, failed(printed)) == (UNVERIFIED, ["confirmed"])
    assert "the chain does not bear it out" in " ".join(auditor.verify(confirmations=too_shallow).out.split())
    assert auditor.verify(confirmations=10_000).code == UNVERIFIED


def test_a_forged_chain_of_records_agrees_with_itself_and_not_with_the_chain(auditor: Auditor, scene: Scene) -> None:
    """All that a lying coordinator could make anew: record, root, proof and signature."""
    forged = msgspec.structs.replace(scene.records[OURS], finished_at=1)
    forged_batch = batch_of(2, [forged])
    proof = MerkleProof(index=0, count=1, siblings=())
    auditor.keep(scene.receipt(record=forged, record_hash=record_hash(forged), batch=forged_batch, proof=proof))

    printed = auditor.verify("--json")
    assert printed.code == UNVERIFIED
    assert failed(printed) == ["anchored"]
    assert "✗ anchored      does NOT hold: the anchor keeps batch 2" in auditor.verify().out


def test_a_proof_in_another_tree_of_the_same_root_is_noticed(auditor: Auditor, scene: Scene) -> None:
    """The root is right; first, last and heads are not what was anchored with it."""
    for otherwise in ({"previous_hash": "0x" + "11" * 32}, {"head_hash": "0x" + "11" * 32}):
        auditor.keep(scene.receipt(batch=msgspec.structs.replace(scene.batches[1], **otherwise)))

        assert failed(auditor.verify("--json")) == ["batch there"], otherwise


def test_a_receipt_of_another_chain_or_anchor_is_told(auditor: Auditor, scene: Scene) -> None:
    for otherwise in ({"chain_id": 1}, {"anchor": "0x" + "11" * 20}, {"anchor": "local"}):
        auditor.keep(scene.receipt(**otherwise))

        assert failed(auditor.verify("--json")) == ["chain"], otherwise
        assert "the deployment, which was asked, is" in " ".join(auditor.verify().out.split())


def test_a_receipt_without_a_batch_cannot_be_asked_for(auditor: Auditor, scene: Scene) -> None:
    auditor.keep(scene.receipt(batch=None, proof=None))

    printed = auditor.verify("--json")

    assert (printed.code, failed(printed), printed.answer["anchored"]) == (UNVERIFIED, ["anchored"], None)
    assert "parallelix receipt refresh" in auditor.verify().out


def test_a_batch_of_another_number_or_of_no_hash_is_no_batch(auditor: Auditor, scene: Scene) -> None:
    for otherwise in ({"number": 3}, {"number": 99}, {"merkle_root": "0x12"}, {"merkle_root": "0x" + "00" * 32}):
        auditor.keep(scene.receipt(batch=msgspec.structs.replace(scene.batches[1], **otherwise)))

        printed = auditor.verify("--json")
        assert printed.code == UNVERIFIED
        assert "anchored" in failed(printed)


def test_the_batch_of_the_empty_tree_proves_nothing(auditor: Auditor, scene: Scene) -> None:
    empty = msgspec.structs.replace(scene.batches[1], number=0, merkle_root=to_hex(merkle.EMPTY_ROOT))
    auditor.keep(scene.receipt(batch=empty, proof=MerkleProof(index=0, count=0, siblings=())))

    printed = auditor.verify("--json")

    assert printed.code == UNVERIFIED
    assert {"batch", "in anchored"} <= set(failed(printed))


async def test_an_endpoint_without_old_logs_still_proves_the_batch(auditor: Auditor, scene: Scene) -> None:
    def forgetful(question: Any, told: Any) -> Any:
        if question["method"] != "eth_getLogs":
            return told
        return {"jsonrpc": "2.0", "id": question["id"], "error": {"code": -32000, "message": "pruned"}}

    async with retold(scene.ethereum.url, forgetful) as auditor.rpc:
        printed = await asyncio.to_thread(auditor.verify, "--json")
        shown = await asyncio.to_thread(auditor.verify)

    assert printed.code == 0
    assert "batch there" not in [each["name"] for each in printed.answer["checks"]]
    assert (printed.answer["anchored"]["block"], printed.answer["anchored"]["transaction_hash"]) == (0, "")
    assert "✓ the record was anchored as it is here" in shown.out


def test_what_is_missing_or_elsewhere_is_one_line(auditor: Auditor, capsys: pytest.CaptureFixture[str]) -> None:
    auditor.rpc = "http://127.0.0.1:1"
    assert auditor.verify().err.startswith("✗ chain.unreachable: ")
    auditor.deployment = auditor.file.with_name("nowhere.json")
    assert "there is no such file; get the network's deployment file" in auditor.verify().err
    assert run(["receipt", "verify", str(auditor.file), "--deployment", str(auditor.scene.deployment_path)]) == 2
    assert "rpc: is missing; give --rpc URL" in capsys.readouterr().err


# An export


def test_an_untouched_export_is_borne_out(auditor: Auditor) -> None:
    printed = auditor.audit()
    answer = auditor.audit("--json").answer

    assert (printed.code, printed.err) == (0, "")
    assert "✓ 16 records are exactly those that were anchored" in printed.out
    assert "! 2 newer ones are not covered: no batch that is this deep has them yet" in printed.out
    assert "not proven: that the answers are good" in printed.out
    assert (answer["passed"], answer["records"], answer["covered"], answer["uncovered"]) == (True, 18, 16, 2)
    assert (answer["anchored"], answer["batches"], answer["chain_id"]) == (16, 3, 31337)


def test_an_edited_record_is_named_with_exit_code_7(auditor: Auditor) -> None:
    text = auditor.export.read_text()
    auditor.export.write_text(text.replace('"completion_tokens":24', '"completion_tokens":2'))

    printed = auditor.audit()

    assert printed.code == UNVERIFIED
    assert "✗ record 4: altered; another was anchored" in printed.out
    assert auditor.audit("--json").answer["findings"] == [
        {"kind": "altered", "message": "record 4: altered; another was anchored", "first": 4, "last": 4, "batch": 1}
    ]


def test_an_older_export_is_right_as_of_its_block_and_cut_off_as_of_now(auditor: Auditor, scene: Scene) -> None:
    head = int(scene.ethereum.anvil.ask("eth_blockNumber"), 16)
    header = Header(chain_id=scene.deployment.chain_id, anchor=scene.deployment.address("ExecutionAnchor"))
    auditor.export.write_bytes(b"".join(lines_of(header, scene.batches[:2], scene.records[:13])))
    then = str(head - BLOCKS_ABOVE - 1)

    now = auditor.audit("--json")
    assert now.code == UNVERIFIED
    assert [(each["kind"], each["first"], each["last"]) for each in now.answer["findings"]] == [("missing", 13, 15)]
    assert auditor.audit("--at-block", then).code == 0
    assert "is not 1 blocks deep yet" in auditor.audit("--at-block", str(head)).err


def test_without_a_chain_only_links_are_checked_and_that_is_said(
    auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["records", "verify", str(auditor.export)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "✓ the records follow from one another" in printed
    assert "not proven: that they are the ones that were anchored: give --deployment and --rpc" in printed

    auditor.export.write_bytes(dropped(auditor.export.read_bytes().splitlines(keepends=True), 5))
    assert run(["records", "verify", str(auditor.export), "--json"]) == UNVERIFIED
    assert json.loads(capsys.readouterr().out)["chain_id"] is None
    assert run(["records", "verify", str(auditor.export), "--at-block", "3"]) == 2
    assert run(["records", "verify", str(auditor.export.with_name("none"))]) == 2


def dropped(lines: Sequence[bytes], at: int) -> bytes:
    return b"".join([*lines[:at], *lines[at + 1 :]])
