"""An answer with all that proves it, in one file: prompt, answer and receipt. Verified without any network."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from parallelix.client import audits
from parallelix.protocol import canonical, payloads, receipts, work
from parallelix.protocol.errors import Malformed
from parallelix.protocol.receipts import Check, Receipt
from parallelix.protocol.requests import CreateRequest, ResultView


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`payload` and `result` are the canonical texts whose salted hashes are in the receipt's record."""

    version: Literal[1] = 1
    payload: str
    result: str
    receipt: Receipt


def keep(body: CreateRequest, result: ResultView, receipt: Receipt, *, max_tokens: int | None) -> KeptAnswer:
    """`max_tokens` is the catalogue's default for the model, for a body that left it out."""
    return KeptAnswer(
        payload=canonical.encode(payloads.payload_of(body, max_tokens=max_tokens)).decode(),
        result=canonical.encode(result_content(result)).decode(),
        receipt=receipt,
    )


def result_content(view: ResultView) -> work.ResultContent:
    """What the node signed, from what the API shows of it."""
    finish_reason: Any = view.finish_reason
    return work.ResultContent(
        text=view.text,
        tool_calls=tuple(
            work.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in view.tool_calls
        ),
        embeddings=tuple(map(work.pack_vector, view.embeddings)),
        finish_reason=finish_reason,
    )


def verify(kept: KeptAnswer, *, coordinator: str | None = None) -> list[Check]:
    """Every check that arithmetic alone can make."""
    return receipts.verify(
        kept.receipt, payload=kept.payload.encode(), result=kept.result.encode(), coordinator=coordinator
    )


def read(data: bytes) -> KeptAnswer | Receipt:
    """Either kind of file. Raises `Malformed`, also for a field too many: nobody can say that it holds."""
    shape = canonical.decode_json(data, dict[str, Any])
    found = canonical.decode_json(data, KeptAnswer if "receipt" in shape else Receipt)
    if msgspec.json.decode(msgspec.json.encode(found)) != shape:
        raise Malformed("the file holds a field that a receipt does not have, or lacks one")
    return found


def unproven(receipt: Receipt, *, coordinator_known: bool, asked_of_chain: bool = False) -> list[str]:
    """What the receipt leaves open, in plain words; with `asked_of_chain`, after the checks of `on_chain` too."""
    left: list[str] = []
    if not coordinator_known:
        left.append(f"that {receipt.coordinator} is the coordinator you dealt with: give its address by --coordinator")
    if receipt.batch is None:
        left.append("that the record is in a batch: none was confirmed yet; later: receipt refresh")
    elif receipt.anchor == audits.LOCAL_ANCHOR:
        left.append(
            f"that batch {receipt.batch.number} is on Ethereum: this coordinator keeps its batches itself "
            "(anchor: local)"
        )
    elif not asked_of_chain:
        left.append(
            f"that batch {receipt.batch.number} is on chain {receipt.chain_id}, which was not asked: give --deployment "
            "and --rpc"
        )
    left += audits.unproven(receipt, asked_of_chain=asked_of_chain)
    left.append(audits.about_the_answer(receipt))
    return left
