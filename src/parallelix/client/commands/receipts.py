"""`receipt show`, `receipt verify`, `receipt refresh`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from parallelix import private_files
from parallelix.client import amounts, answers, audits, kept
from parallelix.client import config as configs
from parallelix.client.commands.asking import Chain
from parallelix.client.commands.extras import needing
from parallelix.client.commands.opening import asked, moment
from parallelix.client.errors import EXIT_UNVERIFIED, FileRefused
from parallelix.client.kept import KeptAnswer
from parallelix.protocol import receipts
from parallelix.protocol.errors import Malformed
from parallelix.protocol.receipts import AuditPart

if TYPE_CHECKING:
    from parallelix.client.sdk import Client
    from parallelix.protocol.receipts import Check, Receipt
    from parallelix.protocol.records import Batch
    from parallelix.terminal import Console

FILE_BYTES_MAX = 128 * 1024 * 1024
"""A result of 40 MiB as JSON inside JSON, a long prompt, and some to spare."""
CHECK_COLUMNS = 13
ON_CHAIN = frozenset({"chain", "anchored", "in anchored", "batch there", "confirmed", "audit there", "epoch there"})
"""The names of the checks that a chain makes."""

_REQUEST_ID = re.compile(r"req_[0-9a-f]{64}")


def show(console: Console, request_id: str, *, url: str) -> None:
    receipt = asked(console, lambda client: client.receipt(request_id), url=url)
    record = receipt.record
    console.heading("receipt")
    console.pair("request", record.request_id)
    console.pair("record", f"number {record.sequence} of the chain")
    console.pair("record hash", receipt.record_hash)
    console.pair("before it", record.previous_hash)
    console.pair("model", f"weights {record.model_digest}")
    console.pair("input hash", record.input_hash)
    console.pair("result hash", record.result_hash)
    console.pair("tokens", f"{record.usage.prompt_tokens} prompt, {record.usage.completion_tokens} answer")
    console.pair("time", f"{moment(record.started_at)} to {moment(record.finished_at)}")
    console.pair("charge", amounts.shown(receipt.charge_wei))
    console.pair("batch", _batch_words(receipt.batch))
    _print_audit(console, receipt)
    console.pair("anchor", f"{receipt.anchor}, chain {receipt.chain_id}")
    console.pair("signed by", receipt.coordinator)
    console.remark(f"keep it: parallelix receipt show {record.request_id} --json > receipt.json")
    console.value(receipt)


def _print_audit(console: Console, receipt: Receipt) -> None:
    console.pair("audit", audits.said_of(receipt))
    audit = receipt.audit
    if not isinstance(audit, AuditPart) or audit.state == "off":
        return
    out = "its secret is out" if audit.epoch is not None and audit.epoch.secret else "its secret is not out yet"
    console.pair("drawn at", f"{receipt.record.rate} %, epoch {receipt.record.epoch}; {out}")
    for each in audit.records:
        console.pair("audit record", f"number {each.record.sequence} of the chain")
        console.pair("its hash", each.record_hash)
        console.pair("its batch", _batch_words(each.batch))


def _batch_words(batch: Batch | None) -> str:
    return "not confirmed yet" if batch is None else f"number {batch.number}, {batch.count} records"


def verify(
    console: Console,
    source: str,
    *,
    coordinator: str,
    payload: Path | None,
    result: Path | None,
    url: str,
    chain: Chain | None = None,
) -> int:
    known = configs.require_address(coordinator) if coordinator else configs.load_file().coordinator
    published: list[Check] = []
    if _REQUEST_ID.fullmatch(source) and not Path(source).exists():
        found, published = asked(console, lambda client: _fetched(client, source), url=url)
    else:
        found = _from_file(source)
    receipt = found.receipt if isinstance(found, KeptAnswer) else found
    inside = (found.payload.encode(), found.result.encode()) if isinstance(found, KeptAnswer) else (None, None)
    checks = receipts.verify(
        receipt,
        payload=_read(payload) if payload is not None else inside[0],
        result=_read(result) if result is not None else inside[1],
        coordinator=known or None,
    )
    told_prompt = payload is not None or inside[0] is not None
    verdict = _Verdict(console, receipt, [*checks, *published], known=bool(known), told_prompt=told_prompt)
    if chain is None:
        return verdict.told([], None, asked_of_chain=False)
    with needing("chain"):
        from parallelix.client.commands.receipts_on_chain import asked_of_chain
    return asked_of_chain(console, receipt, chain, verdict.told)


def refresh(console: Console, path: Path, *, url: str) -> None:
    before = _from_file(str(path))
    old = before.receipt if isinstance(before, KeptAnswer) else before
    new = asked(console, lambda client: client.receipt(old.record.request_id), url=url)
    if new.record != old.record or new.coordinator != old.coordinator:
        raise FileRefused(
            f"{path}: the coordinator now gives another record for {old.record.request_id}; the file stays as it is: "
            "keep it, it proves the change"
        )
    after = msgspec.structs.replace(before, receipt=new) if isinstance(before, KeptAnswer) else new
    if after != before:
        private_files.replace(path, msgspec.json.format(msgspec.json.encode(after), indent=1) + b"\n")
    batch = new.batch.number if new.batch is not None else None
    if batch is None:
        console.warn("its batch is not confirmed yet; try again in some minutes")
    else:
        console.done(f"it has the proof of batch {batch}")
    for each in audits.unproven(new, asked_of_chain=True):
        console.warn(f"not proven yet: {each}")
    console.value(
        answers.RefreshAnswer(
            path=str(path),
            request_id=new.record.request_id,
            changed=after != before,
            batch=batch,
            audit=new.audit.state if isinstance(new.audit, AuditPart) else "",
        )
    )


async def _fetched(client: Client, request_id: str) -> tuple[Receipt, list[Check]]:
    receipt = await client.receipt(request_id)
    of_request: Check = ("request", receipt.record.request_id == request_id, "the record is about this request")
    return receipt, [of_request, *await client.published(receipt)]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What arithmetic found, to be told together with what a chain says."""

    console: Console
    receipt: Receipt
    checks: list[Check]
    known: bool
    told_prompt: bool

    def told(
        self, of_chain: list[Check], anchored: answers.AnchoredAnswer | None, *, asked_of_chain: bool = True
    ) -> int:
        checks, audit = [*self.checks, *of_chain], self.receipt.audit
        unproven = kept.unproven(self.receipt, coordinator_known=self.known, asked_of_chain=asked_of_chain)
        answer = answers.VerifyAnswer(
            passed=all(holds for _, holds, _ in checks),
            request_id=self.receipt.record.request_id,
            record_hash=self.receipt.record_hash,
            coordinator=self.receipt.coordinator,
            checks=tuple(answers.CheckAnswer(name=name, passed=holds, message=words) for name, holds, words in checks),
            unproven=tuple(unproven),
            audit=audit.state if isinstance(audit, AuditPart) else "",
            audit_reason=audits.reason_of(audit) if isinstance(audit, AuditPart) else "",
            refunded_wei=audit.refunded_wei if isinstance(audit, AuditPart) else "0",
            anchored=anchored,
        )
        _print(self.console, answer, told_prompt=self.told_prompt, audit=audits.said_of(self.receipt))
        self.console.value(answer)
        return 0 if answer.passed else EXIT_UNVERIFIED


def _print(console: Console, answer: answers.VerifyAnswer, *, told_prompt: bool, audit: str) -> None:
    console.heading("receipt of")
    console.plain(f"   {answer.request_id}")
    for check in answer.checks:
        words = check.message if check.passed else f"does NOT hold: {check.message}"
        console.marked("✓" if check.passed else "✗", check.name, words, label_columns=CHECK_COLUMNS)
    if answer.anchored is not None and answer.anchored.block:
        _print_anchored(console, answer.anchored)
    if not answer.passed:
        console.cross(_why_not(answer))
        return
    console.done("all that can be checked by arithmetic holds")
    if answer.anchored is not None:
        console.done("the record was anchored as it is here; nobody can change, drop or backdate it any more")
    if answer.audit != "off":
        (console.done if answer.audit == "agree" else console.warn)(f"audit: {audit}")
    if not told_prompt:
        console.warn("not compared with a prompt and an answer: `ask --save` keeps them together")
    for each in answer.unproven:
        console.warn(f"not proven: {each}")


def _print_anchored(console: Console, anchored: answers.AnchoredAnswer) -> None:
    console.heading(f"batch {anchored.batch} on chain {anchored.chain_id}")
    console.pair("anchor", anchored.anchor)
    console.pair("block", f"{anchored.block}, {moment(1000 * anchored.at)}")
    console.pair("above it", f"{anchored.confirmations} blocks")
    console.pair("transaction", anchored.transaction_hash)


def _why_not(answer: answers.VerifyAnswer) -> str:
    failed = {check.name for check in answer.checks if not check.passed}
    if failed <= ON_CHAIN:
        return "the receipt agrees with itself, but the chain does not bear it out; the lines above say why"
    return "this receipt does not hold: something in it was changed, or it is not about this answer"


def _from_file(source: str) -> KeptAnswer | Receipt:
    try:
        return kept.read(_read(Path(source)) if source != "-" else sys.stdin.buffer.read(FILE_BYTES_MAX))
    except Malformed as error:
        raise FileRefused(
            f"{source}: is no receipt ({error.message}); expected what `ask --save` or `receipt show --json` wrote"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise FileRefused(f"{path}: cannot be read ({error.strerror}); give a file or a request's id") from error
    if len(data) > FILE_BYTES_MAX:
        raise FileRefused(f"{path}: more than {FILE_BYTES_MAX} bytes; that is no receipt")
    return data
