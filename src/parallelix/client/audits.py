"""What became of an execution's audit, in plain words."""

from __future__ import annotations

from parallelix.client import amounts
from parallelix.protocol.receipts import AuditPart, Receipt
from parallelix.protocol.requests import AuditState

LOCAL_ANCHOR = "local"
REASONS = {
    "no_second_node": "no second node could do it in time",
    "no_third_node": "no third node was there to decide",
    "too_many_open": "too many audits were open",
    "no_answer": "no node gave a usable answer",
    "unauditable": "nothing in the answer could be compared",
    "other_runtime": "the second node's runtime renders chats its own way",
    "both_upheld": "a third node agrees with both that differ",
    "neither_upheld": "a third node agrees with neither",
    "third_unusable": "a third node's answer could not be compared",
}


def said(state: AuditState, reason: str = "", refunded_wei: str = "0") -> str:
    """One line, whatever the state; a `reason` that has no words here is shown as it is."""
    why = REASONS.get(reason, reason)
    match state:
        case "off":
            return "none; this network drew nothing for audits then"
        case "not_drawn":
            return "not drawn"
        case "pending":
            return "drawn; no verdict yet"
        case "agree":
            overruled = reason == "auditor_overruled"
            return "drawn; a third node agrees, and not with the second" if overruled else "drawn; a second node agrees"
        case "disagree":
            back = f"; {amounts.shown(refunded_wei)} given back" if refunded_wei != "0" else ""
            return f"drawn and overturned: other nodes say that the model does not answer so{back}"
        case "inconclusive":
            return f"drawn; inconclusive: {why}"
        case "unaudited":
            return f"drawn, and not audited: {why}"


def said_of(receipt: Receipt) -> str:
    audit = receipt.audit
    if not isinstance(audit, AuditPart):
        return "this receipt is from before receipts told of audits; refresh it"
    return said(audit.state, reason_of(audit), audit.refunded_wei)


def reason_of(audit: AuditPart) -> str:
    return audit.records[0].record.reason if audit.records else ""


def unproven(receipt: Receipt, *, asked_of_chain: bool) -> list[str]:
    """What the receipt leaves open about its audit."""
    audit = receipt.audit
    if not isinstance(audit, AuditPart) or audit.state == "off":
        return []
    epoch, number = audit.epoch, receipt.record.epoch
    left: list[str] = []
    if epoch is None or not epoch.secret:
        drawn = "not drawn" if audit.state == "not_drawn" else "drawn"
        left.append(f"that it was {drawn} by the draw: the secret of epoch {number} is not out; later: receipt refresh")
    elif not asked_of_chain:
        keeps = "no chain keeps it" if receipt.anchor == LOCAL_ANCHOR else "no chain was asked"
        left.append(f"that the secret of epoch {number} was fixed before the answer: {keeps}")
    if audit.state == "pending":
        left.append("that it is audited at all: no verdict yet; later: receipt refresh")
    elif audit.records and audit.records[0].batch is None:
        left.append("that the audit's record is in a batch: none was confirmed yet; later: receipt refresh")
    return left


def about_the_answer(receipt: Receipt) -> str:
    """What no receipt proves, by what its audit says."""
    state = receipt.audit.state if isinstance(receipt.audit, AuditPart) else "off"
    nor = "nor does a receipt say which node it was"
    if state == "agree":
        return f"that the answer is true: the audit says that its model would give it; {nor}"
    if state == "disagree":
        return f"what the model would have answered instead; {nor}"
    return f"that the answer is good, or that the node computed honestly; {nor}"
