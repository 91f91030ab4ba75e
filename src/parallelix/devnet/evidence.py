"""What a sceptic checks when a network comes to rest: was anything lost, charged twice, or changed afterwards?

Nothing here trusts the coordinator. Acknowledgements are what the requester was told, the chain is what anyone may
read, hashes and signatures are computed anew, and the ledger is judged by its postings alone. Pure: no I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from parallelix.engine.rows import TransferRow
from parallelix.protocol import canonical, payloads, receipts, signing, work
from parallelix.protocol.errors import ProtocolError
from parallelix.protocol.receipts import Receipt
from parallelix.protocol.records import ExecutionRecord, decode_record, record_hash, verify_chain
from parallelix.protocol.requests import CreateRequest, RequestView


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """By request id: what was `asked` and acknowledged, and the `views` and `receipts` that came of it."""

    asked: Mapping[str, CreateRequest]
    views: Mapping[str, RequestView]
    receipts: Mapping[str, Receipt]
    chain: tuple[bytes, ...]
    """Every record in canonical form, the first one first."""
    head_hash: str
    transfers: tuple[TransferRow, ...]
    coordinator: str
    """The address that the reader knows as the coordinator's, not the one that receipts name."""


@dataclass(kw_only=True)
class Findings:
    lost: list[str] = field(default_factory=list[str])
    charged_twice: list[str] = field(default_factory=list[str])
    chain: list[str] = field(default_factory=list[str])
    """Records that do not follow from one another, or receipts that do not hold."""
    ledger: list[str] = field(default_factory=list[str])

    def all(self) -> list[str]:
        return [*self.lost, *self.charged_twice, *self.chain, *self.ledger]


def judge(evidence: Evidence) -> Findings:
    """For a network at rest: every request ended, every batch confirmed."""
    return Findings(
        lost=list(_lost(evidence)),
        charged_twice=list(_charged_twice(evidence)),
        chain=[*_broken_chain(evidence), *_broken_receipts(evidence)],
        ledger=[*_broken_holds(evidence), *_broken_balances(evidence)],
    )


def _lost(evidence: Evidence) -> Iterator[str]:
    for request_id in evidence.asked:
        view = evidence.views.get(request_id)
        if view is None:
            yield f"{request_id}: was acknowledged and is not known any more"
        elif view.state != "completed":
            yield f"{request_id}: {view.state} {view.reason}".rstrip()
        elif view.result is None or view.record_hash is None:
            yield f"{request_id}: completed without an answer or a record"
    for request_id in evidence.views.keys() - evidence.asked.keys():
        yield f"{request_id}: nobody asked for it"


def _charged_twice(evidence: Evidence) -> Iterator[str]:
    for request_id, amounts in _postings(evidence, "charge").items():
        if len(amounts) > 1:
            yield f"{request_id}: charged {len(amounts)} times"
        view = evidence.views.get(request_id)
        if view is not None and sum(amounts) > int(view.hold_wei):
            yield f"{request_id}: charged {sum(amounts)} wei, above its hold of {view.hold_wei}"


def _broken_chain(evidence: Evidence) -> Iterator[str]:
    try:
        records = [decode_record(data) for data in evidence.chain]
        verify_chain(records, head_hash=evidence.head_hash)
    except ProtocolError as error:
        yield f"the chain of records: {error.message}"
        return
    executions = [record for record in records if isinstance(record, ExecutionRecord)]
    counted = Counter(record.request_id for record in executions)
    yield from (f"{request_id}: recorded {count} times" for request_id, count in counted.items() if count > 1)
    recorded = {record.request_id: record_hash(record) for record in executions}
    for request_id, view in evidence.views.items():
        if view.record_hash != recorded.get(request_id):
            yield f"{request_id}: its record {view.record_hash} is not in the chain"


def _broken_receipts(evidence: Evidence) -> Iterator[str]:
    for request_id, view in evidence.views.items():
        receipt, body = evidence.receipts.get(request_id), evidence.asked.get(request_id)
        if receipt is None or body is None or view.result is None:
            yield f"{request_id}: has no receipt"
            continue
        content = work.ResultContent(text=view.result.text, finish_reason=_finish_reason(view))
        checks = receipts.verify(
            receipt,
            payload=canonical.encode(payloads.payload_of(body)),
            result=canonical.encode(content),
            coordinator=evidence.coordinator,
        )
        about = [
            ("request", receipt.record.request_id == request_id and receipt.record_hash == view.record_hash),
            ("anchored", receipt.batch is not None),
            ("charge", receipt.charge_wei == view.charge_wei),
        ]
        failed = [name for name, holds, *_ in (*checks, *about) if not holds]
        if failed:
            yield f"{request_id}: its receipt does not hold: {', '.join(failed)}"


def _broken_holds(evidence: Evidence) -> Iterator[str]:
    holds, charges, releases = (_postings(evidence, kind) for kind in ("hold", "charge", "release"))
    for request_id, view in evidence.views.items():
        if holds[request_id] != [int(view.hold_wei)]:
            yield f"{request_id}: held {holds[request_id]} wei, said {view.hold_wei}"
        if sum(charges[request_id]) != int(view.charge_wei):
            yield f"{request_id}: charged {charges[request_id]} wei, said {view.charge_wei}"
        if sum(holds[request_id]) != sum(charges[request_id]) + sum(releases[request_id]):
            yield f"{request_id}: its hold is neither charged nor released in full"


def _broken_balances(evidence: Evidence) -> Iterator[str]:
    balances: defaultdict[str, int] = defaultdict(int)
    for transfer in evidence.transfers:
        balances[transfer.debit_account] -= int(transfer.amount_wei)
        balances[transfer.credit_account] += int(transfer.amount_wei)
    for account, balance_wei in balances.items():
        if balance_wei < 0 and not account.startswith("source:"):
            yield f"{account}: stands at {balance_wei} wei"
        if balance_wei != 0 and account == "usage":
            yield f"usage: {balance_wei} wei were charged and not shared out"


def _postings(evidence: Evidence, kind: str) -> defaultdict[str, list[int]]:
    """Amounts by request. What a posting is for stands in its id, but accounts say what it did."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for transfer in evidence.transfers:
        debit, credit = transfer.debit_account.partition(":")[0], transfer.credit_account.partition(":")[0]
        moved = {("available", "held"): "hold", ("held", "available"): "release"}.get((debit, credit))
        if transfer.request_id and kind == (moved or "charge"):
            found[transfer.request_id].append(int(transfer.amount_wei))
    return found


def _finish_reason(view: RequestView) -> work.FinishReason:
    assert view.result is not None
    return msgspec.convert(view.result.finish_reason, work.FinishReason)


# Controls: each alters one thing, and names the findings that must then not be empty -------------------------------

Alter = Callable[[Evidence], Evidence]


def controls(evidence: Evidence) -> Iterator[tuple[str, bool]]:
    """(what was altered, whether `judge` noticed) for each. What is not there to be altered counts as not noticed."""
    before = judge(evidence)
    for name, (finding, alter) in CONTROLS.items():
        try:
            after = judge(alter(evidence))
        except (LookupError, ValueError, StopIteration, AssertionError):
            yield name, False
        else:
            yield name, not set(getattr(before, finding)).issuperset(getattr(after, finding))


def _record_edited(evidence: Evidence) -> Evidence:
    middle = len(evidence.chain) // 2
    return replace(evidence, chain=_with(evidence.chain, middle, _one_byte_off(evidence.chain[middle])))


def _last_record_edited(evidence: Evidence) -> Evidence:
    return replace(evidence, chain=_with(evidence.chain, -1, _one_byte_off(evidence.chain[-1])))


def _record_dropped(evidence: Evidence) -> Evidence:
    return replace(evidence, chain=evidence.chain[1:])


def _records_swapped(evidence: Evidence) -> Evidence:
    first, second, *rest = evidence.chain
    return replace(evidence, chain=(second, first, *rest))


def _proof_moved(evidence: Evidence) -> Evidence:
    first, second = _two(evidence)
    return _with_receipt(evidence, first, proof=evidence.receipts[second].proof)


def _receipt_of_another(evidence: Evidence) -> Evidence:
    first, second = _two(evidence)
    return replace(evidence, receipts={**evidence.receipts, first: evidence.receipts[second]})


def _signed_by_a_stranger(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    stranger = signing.NodeKey.generate()
    unsigned = msgspec.structs.replace(evidence.receipts[first], coordinator=stranger.address)
    return replace(evidence, receipts={**evidence.receipts, first: receipts.sign(unsigned, stranger)})


def _charge_understated(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    return _with_receipt(evidence, first, charge_wei="1")


def _answer_edited(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    view = evidence.views[first]
    assert view.result is not None
    edited = msgspec.structs.replace(view.result, text=view.result.text + ".")
    return _with_view(evidence, msgspec.structs.replace(view, result=edited))


def _prompt_edited(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    edited = msgspec.structs.replace(evidence.asked[first], seed=(evidence.asked[first].seed or 0) + 1)
    return replace(evidence, asked={**evidence.asked, first: edited})


def _request_forgotten(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    return replace(evidence, views={key: view for key, view in evidence.views.items() if key != first})


def _request_failed(evidence: Evidence) -> Evidence:
    first, _ = _two(evidence)
    return _with_view(evidence, msgspec.structs.replace(evidence.views[first], state="failed"))


def _second_charge(evidence: Evidence) -> Evidence:
    charge = _posting(evidence, "charge")
    again = msgspec.structs.replace(charge, transfer_id=f"{charge.transfer_id}:again")
    return replace(evidence, transfers=(*evidence.transfers, again))


def _charge_above_hold(evidence: Evidence) -> Evidence:
    charge = _posting(evidence, "charge")
    hold_wei = int(evidence.views[charge.request_id].hold_wei)
    raised = msgspec.structs.replace(charge, amount_wei=str(hold_wei + 1))
    return replace(evidence, transfers=tuple(raised if each is charge else each for each in evidence.transfers))


def _release_missing(evidence: Evidence) -> Evidence:
    release = _posting(evidence, "release")
    return replace(evidence, transfers=tuple(each for each in evidence.transfers if each is not release))


CONTROLS: dict[str, tuple[str, Alter]] = {
    "one byte of a record altered": ("chain", _record_edited),
    "one byte of the last record altered": ("chain", _last_record_edited),
    "the first record dropped": ("chain", _record_dropped),
    "two records swapped": ("chain", _records_swapped),
    "another receipt's Merkle proof": ("chain", _proof_moved),
    "another request's receipt": ("chain", _receipt_of_another),
    "a receipt signed by a stranger": ("chain", _signed_by_a_stranger),
    "a receipt's charge altered": ("chain", _charge_understated),
    "one character added to an answer": ("chain", _answer_edited),
    "a prompt's seed altered": ("chain", _prompt_edited),
    "a request dropped from the list": ("lost", _request_forgotten),
    "a request that failed": ("lost", _request_failed),
    "a second charge in the ledger": ("charged_twice", _second_charge),
    "a charge above its hold": ("charged_twice", _charge_above_hold),
    "a hold never released": ("ledger", _release_missing),
}


def _two(evidence: Evidence) -> tuple[str, str]:
    first, second, *_ = evidence.views
    return first, second


def _posting(evidence: Evidence, kind: str) -> TransferRow:
    return next(each for each in evidence.transfers if each.transfer_id.startswith(f"{kind}:"))


def _one_byte_off(record: bytes) -> bytes:
    """In a hash, where any digit is as good as another, so that only arithmetic can notice."""
    name = b'"result_hash":"0x' if b'"result_hash"' in record else b'"execution_hash":"0x'
    at = record.index(name) + len(name)
    return record[:at] + (b"1" if record[at : at + 1] == b"0" else b"0") + record[at + 1 :]


def _with(chain: tuple[bytes, ...], at: int, record: bytes) -> tuple[bytes, ...]:
    altered = list(chain)
    altered[at] = record
    return tuple(altered)


def _with_view(evidence: Evidence, view: RequestView) -> Evidence:
    return replace(evidence, views={**evidence.views, view.id: view})


def _with_receipt(evidence: Evidence, request_id: str, **changes: object) -> Evidence:
    altered = msgspec.structs.replace(evidence.receipts[request_id], **changes)
    return replace(evidence, receipts={**evidence.receipts, request_id: altered})
