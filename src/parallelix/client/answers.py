"""What commands answer to --json, where it is not what the coordinator answered: schemas.py has the whole list."""

from __future__ import annotations

from typing import Literal

import msgspec

from parallelix.protocol.audit_log import EpochAudits, UnauditedExecution, Violation
from parallelix.protocol.requests import AuditState
from parallelix.protocol.work import Usage


class AskEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line each while a request goes. `text` is new text in `delta`, and the whole answer in `completed`.

    `restarted` voids all text so far. The last line is `completed`, `failed`, `expired` or `cancelled`."""

    event: Literal[
        "created", "held", "dispatched", "running", "delta", "restarted", "completed", "failed", "expired", "cancelled"
    ]
    request_id: str
    attempt: int = 0
    reason: str = ""
    text: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    charge_wei: str = ""
    record_hash: str = ""
    kept_in: str = ""
    """The file that --save wrote."""


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    passed: bool
    message: str


class AnchoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain keeps a receipt's batch. Where the endpoint has no log of it any more, `block` and `at` (Unix
    seconds) are 0 and the hash is empty."""

    chain_id: int
    anchor: str
    batch: int
    block: int
    at: int
    transaction_hash: str
    confirmations: int
    """How many blocks lay above it."""


class VerifyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`unproven` says in words what these checks leave open. `anchored` is there where a chain was asked and has it."""

    passed: bool
    request_id: str
    record_hash: str
    coordinator: str
    checks: tuple[CheckAnswer, ...]
    unproven: tuple[str, ...]
    audit: AuditState | Literal[""] = ""
    """Empty for a receipt from before receipts told of audits."""
    audit_reason: str = ""
    refunded_wei: str = "0"
    anchored: AnchoredAnswer | None = None


class RefreshAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` is false where the receipt had nothing new."""

    path: str
    request_id: str
    changed: bool
    batch: int | None
    audit: AuditState | Literal[""] = ""


class LoginAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The key itself is never repeated. `coordinator` is the address that must have signed receipts from now on."""

    path: str
    url: str
    account: str
    key_id: str
    coordinator: str


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Printed once, when the coordinator takes calls. Its log goes to standard error, one JSON object a line."""

    url: str
    folder: str
    coordinator: str
    """The address that signs receipts."""
    models: tuple[str, ...]
    registrations: int


class GrantAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`applied` is false where no coordinator runs on the store now: it is booked once when one starts."""

    account: str
    amount_wei: str
    applied: bool


class NewKeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`api_key` is shown this once and stored nowhere. Limits of 0 mean none, `expires_at` 0 means never."""

    api_key: str
    id: str
    account: str
    name: str
    requests_per_minute: int
    concurrency: int
    budget_wei: str
    expires_at: int
    applied: bool


class RevokedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    applied: bool


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    account: str
    name: str
    requests_per_minute: int
    concurrency: int
    budget_wei: str
    spent_wei: str
    created_at: int
    expires_at: int
    revoked: bool


class IssuedKeys(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[IssuedKey, ...]


class TransactionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction does. Without a hash it was only explained."""

    what: str
    amount_wei: str | None
    contract: str
    address: str
    transaction_hash: str
    block: int


class WalletAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting`: nothing more can be done before `effective_at` (Unix seconds). `explained`: a rehearsal, by --dry-run.

    `effective_at` is also from when a limit acts or a stake is free; `next_command` what comes next, where it is known.
    """

    state: Literal["done", "waiting", "explained"]
    account: str
    transactions: tuple[TransactionAnswer, ...]
    amount_wei: str | None
    deposit_wei: str | None
    node_id: int | None
    effective_at: int | None
    next_command: str


class BalanceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in wei, times in Unix seconds; `withdrawable_at` and `lower_limit_from` are 0 where there is nothing."""

    account: str
    fees_wei: str
    """ETH, which pays for transactions; all else is PRLX."""
    prlx_wei: str
    deposit_wei: str
    requested_wei: str
    withdrawable_at: int
    settled_wei: str
    limit_wei: str
    lower_limit_wei: str
    lower_limit_from: int


class EarnedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`stake_free_at` (Unix seconds) is 0 until the stake was asked for."""

    node_id: int
    owner: str
    state: str
    stake_wei: str
    stake_free_at: int
    earned_wei: str


class ExportAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`unbatched` of the records are in no batch yet."""

    path: str
    chain_id: int
    anchor: str
    batches: int
    records: int
    unbatched: int


class FindingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was anchored, in the records `first` to `last` where that can be told."""

    kind: str
    message: str
    first: int | None
    last: int | None
    batch: int | None


class RecordsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`covered` records are exactly those that were anchored, of `anchored` that the chain has at `block`; of
    `uncovered` ones it says nothing yet. `findings` are the first hundred of `found`. Where no chain was asked,
    `chain_id` is null."""

    passed: bool
    chain_id: int | None
    anchor: str
    block: int | None
    records: int
    covered: int
    uncovered: int
    anchored: int
    batches: int
    found: int
    findings: tuple[FindingAnswer, ...]


class AuditsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether audits were drawn as was promised. `export_holds` says whether the file itself is as `records verify`
    wants it; where it is not, nothing else was looked at. `told_by` is who was asked for the epochs. `violations` and
    `unaudited` are the first hundred of `found`, and of those that `reasons` counts."""

    passed: bool
    export_holds: bool
    told_by: Literal["chain", "coordinator", "nobody"]
    chain_id: int | None
    anchor: str
    block: int | None
    floor_percent: int
    records: int
    uncovered: int
    epochs: tuple[EpochAudits, ...]
    found: int
    violations: tuple[Violation, ...]
    unaudited: tuple[UnauditedExecution, ...]
    reasons: dict[str, int]


class VersionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["parallelix"] = "parallelix"
    version: str


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """On standard error, with the exit code."""

    error: str
    message: str
