"""A network at rest as a sceptic sees it, made from the protocol alone: three requests, recorded, anchored, charged."""

from __future__ import annotations

from collections.abc import Iterator

from parallelix.devnet.evidence import Evidence
from parallelix.engine.rows import TransferRow
from parallelix.protocol import canonical, merkle, payloads, receipts, signing, work
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.records import GENESIS_HASH, Batch, ExecutionRecord, record_hash, record_hash_bytes
from parallelix.protocol.requests import ChatMessage, CreateRequest, RequestView, ResultView

COORDINATOR = signing.NodeKey(b"\x07" * 32)
SALT = b"\x09" * 32
HOLD_WEI, CHARGE_WEI = 900, 340
ANSWERS = ("A heron stands in the reeds.", "It lasts 7 days.", "No.")


def request_id(number: int) -> str:
    return f"req_{number:064x}"


def evidence() -> Evidence:
    bodies = [_body(number) for number in range(len(ANSWERS))]
    chain = list(_chain(bodies))
    batch, tree = _batch(chain)
    views = [_view(number, record) for number, record in enumerate(chain)]
    return Evidence(
        asked={request_id(number): body for number, body in enumerate(bodies)},
        views={view.id: view for view in views},
        receipts={record.request_id: _receipt(record, batch, tree) for record in chain},
        chain=tuple(canonical.encode(record) for record in chain),
        head_hash=batch.head_hash,
        transfers=tuple(_transfers()),
        coordinator=COORDINATOR.address,
    )


def _body(number: int) -> CreateRequest:
    message = ChatMessage(role="user", content=f"question {number}")
    return CreateRequest(model="small", messages=(message,), max_tokens=64, seed=number)


def _content(number: int) -> bytes:
    return canonical.encode(work.ResultContent(text=ANSWERS[number], finish_reason="stop"))


def _chain(bodies: list[CreateRequest]) -> Iterator[ExecutionRecord]:
    head = GENESIS_HASH
    for number, body in enumerate(bodies):
        record = ExecutionRecord(
            sequence=number,
            previous_hash=head,
            request_id=request_id(number),
            workload_class="ai.inference",
            model_digest="ab" * 32,
            input_hash=to_hex(work.input_hash(SALT, canonical.encode(payloads.payload_of(body)))),
            result_hash=to_hex(work.result_hash(SALT, _content(number))),
            poe_commitment="0x" + "cd" * 32,
            usage=work.Usage(prompt_tokens=5, completion_tokens=9),
            epoch=0,
            rate=0,
            started_at=1000,
            finished_at=2000 + number,
        )
        head = record_hash(record)
        yield record


def _batch(chain: list[ExecutionRecord]) -> tuple[Batch, merkle.Tree]:
    tree = merkle.Tree([record_hash_bytes(record) for record in chain])
    batch = Batch(
        number=0,
        previous_hash=GENESIS_HASH,
        head_hash=record_hash(chain[-1]),
        first=0,
        last=len(chain) - 1,
        count=len(chain),
        merkle_root=to_hex(tree.root),
    )
    return batch, tree


def _receipt(record: ExecutionRecord, batch: Batch, tree: merkle.Tree) -> receipts.Receipt:
    siblings = tuple(to_hex(each) for each in tree.proof(record.sequence))
    unsigned = receipts.Receipt(
        record=record,
        record_hash=record_hash(record),
        request_salt=to_hex(SALT),
        charge_wei=str(CHARGE_WEI),
        batch=batch,
        proof=receipts.MerkleProof(index=record.sequence, count=batch.count, siblings=siblings),
        chain_id=31337,
        anchor="local",
        coordinator=COORDINATOR.address,
    )
    return receipts.sign(unsigned, COORDINATOR)


def _view(number: int, record: ExecutionRecord) -> RequestView:
    return RequestView(
        id=request_id(number),
        state="completed",
        reason="",
        workload_class="ai.inference",
        kind="chat",
        model="small",
        hardware_tier=1,
        priority="standard",
        deadline_seconds=60,
        queue_seconds=60,
        created_at=900 + number,
        finished_at=2000 + number,
        attempts=1 + number,
        usage=record.usage,
        hold_wei=str(HOLD_WEI),
        charge_wei=str(CHARGE_WEI),
        settled=True,
        record_hash=record_hash(record),
        result=ResultView(text=ANSWERS[number], finish_reason="stop"),
    )


def _transfers() -> Iterator[TransferRow]:
    yield _transfer("cmd_1", "source:grants", "available:a", 10_000)
    for number in range(len(ANSWERS)):
        about = request_id(number)
        yield _transfer(f"hold:{about}", "available:a", "held:a", HOLD_WEI, about)
        yield _transfer(f"release:{about}", "held:a", "available:a", HOLD_WEI - CHARGE_WEI, about)
        yield _transfer(f"charge:{about}", "held:a", "usage", CHARGE_WEI, about)
    yield _transfer("split:0:operators", "usage", "operators", len(ANSWERS) * CHARGE_WEI)


def _transfer(transfer_id: str, debit: str, credit: str, amount_wei: int, about: str = "") -> TransferRow:
    return TransferRow(
        transfer_id=transfer_id,
        debit_account=debit,
        credit_account=credit,
        amount_wei=str(amount_wei),
        request_id=about,
        at=3000,
    )
