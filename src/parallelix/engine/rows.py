"""What must be durable, one Struct a table. The shell writes a step's rows in one transaction, then acts.

Amounts are decimal text, because wei do not fit 64 bits; times are Unix milliseconds. `key` names the primary key:
a row with the same key replaces the one before, except where the table is append-only.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    append_only: ClassVar[bool] = False


class RequestRow(Row, frozen=True, kw_only=True):
    """Written at admission, when a cancel is asked for, and at the end. What happens between is in its attempts.

    `record_sequence` is -1 without a record. The charge has posted once a confirmed batch covers `record_sequence`.
    """

    table: ClassVar[str] = "requests"
    key: ClassVar[tuple[str, ...]] = ("request_id",)

    request_id: str
    account: str
    key_id: str
    workload_class: str
    kind: str
    model: str
    hardware_tier: int
    priority: str
    state: str
    reason: str
    deadline_ms: int
    queue_ms: int
    admitted_at: int
    finished_at: int
    prompt_tokens_max: int
    completion_tokens_max: int
    features: str
    attached: bool
    cancelling: bool
    prompt_price_wei: str
    completion_price_wei: str
    hold_wei: str
    charge_wei: str
    prompt_tokens: int
    completion_tokens: int
    record_sequence: int
    idempotency_key: str
    fingerprint: str


class AttemptRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "attempts"
    key: ClassVar[tuple[str, ...]] = ("attempt_id",)

    attempt_id: str
    request_id: str
    number: int
    node_id: str
    state: str
    reason: str
    model_digest: str
    dispatched_at: int
    started_at: int
    deadline_at: int
    finished_at: int
    epoch: int = 0
    """Of sampling, fixed at the dispatch."""


class TransferRow(Row, frozen=True, kw_only=True):
    """One double entry: `amount_wei` leaves `debit_account` and enters `credit_account`."""

    table: ClassVar[str] = "transfers"
    key: ClassVar[tuple[str, ...]] = ("transfer_id",)
    append_only: ClassVar[bool] = True

    transfer_id: str
    debit_account: str
    credit_account: str
    amount_wei: str
    request_id: str
    at: int


class BalanceRow(Row, frozen=True, kw_only=True):
    """A sum over `transfers`, kept so that a restart need not replay them all."""

    table: ClassVar[str] = "balances"
    key: ClassVar[tuple[str, ...]] = ("account",)

    account: str
    balance_wei: str


class RecordRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "records"
    key: ClassVar[tuple[str, ...]] = ("sequence",)
    append_only: ClassVar[bool] = True

    sequence: int
    record_hash: str
    request_id: str
    body: bytes


class BatchRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "batches"
    key: ClassVar[tuple[str, ...]] = ("number",)

    number: int
    previous_hash: str
    head_hash: str
    first: int
    last: int
    count: int
    merkle_root: str
    closed_at: int
    confirmed_at: int
    reference: str
    epoch: int = 0


class NodeRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "nodes"
    key: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    session: str
    manifest: str
    public_key: str
    issued_at: int
    attached_at: int
    removed_until: int


class FaultRow(Row, frozen=True, kw_only=True):
    """One rejected result: what the operator is told, and what a removal rests on."""

    table: ClassVar[str] = "faults"
    key: ClassVar[tuple[str, ...]] = ("attempt_id",)
    append_only: ClassVar[bool] = True

    attempt_id: str
    node_id: str
    request_id: str
    reason: str
    at: int


class UptimeRow(Row, frozen=True, kw_only=True):
    """One hour of one node: 360 ten-second slots as hex bitmaps, those credited and those voided."""

    table: ClassVar[str] = "uptime"
    key: ClassVar[tuple[str, ...]] = ("node_id", "hour")

    node_id: str
    hour: int
    credited: str
    voided: str


class KeyRow(Row, frozen=True, kw_only=True):
    """An API key by its hash. A limit of 0 means none; `expires_at` 0 means never. `scopes` are names with commas."""

    table: ClassVar[str] = "api_keys"
    key: ClassVar[tuple[str, ...]] = ("key_id",)

    key_id: str
    key_hash: str
    account: str
    name: str
    requests_per_minute: int
    concurrency: int
    budget_wei: str
    spent_wei: str
    created_at: int
    expires_at: int
    revoked_at: int
    scopes: str = "inference,read"
    kind: str = "key"


class ChainCursorRow(Row, frozen=True, kw_only=True):
    """The one row that says how far the chain has been read. `block_time` is Unix seconds; `anchor_halt` is why the
    anchor is not to be believed, empty while it is."""

    table: ClassVar[str] = "chain_cursor"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: int
    block: int
    block_hash: str
    block_time: int
    anchor_halt: str


class VaultAccountRow(Row, frozen=True, kw_only=True):
    """An account's books in the vault as of the cursor, and what the UTC day `charged_day` has used of its daily limit.

    A limit that is empty was never set. A lower one than before binds the vault from `limit_from`, Unix seconds.
    """

    table: ClassVar[str] = "vault_accounts"
    key: ClassVar[tuple[str, ...]] = ("account",)

    account: str
    deposit_wei: str
    settled_wei: str
    requested_wei: str
    nonce: int
    limit_wei: str
    limit_from: int
    charged_day: int
    charged_wei: str


class ClearanceRow(Row, frozen=True, kw_only=True):
    """What an account may take out at once. `state` is open, used or released; `expiry` is Unix seconds."""

    table: ClassVar[str] = "clearances"
    key: ClassVar[tuple[str, ...]] = ("account", "nonce", "expiry")

    account: str
    nonce: int
    expiry: int
    amount_wei: str
    cumulative_wei: str
    state: str
    granted_at: int
    ended_at: int


class RegistrationRow(Row, frozen=True, kw_only=True):
    """A node as the locker has it. `cooldown_ends_at` is Unix seconds, 0 while the stake is active."""

    table: ClassVar[str] = "registrations"
    key: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    owner: str
    stake_wei: str
    hardware_tier: int
    node_key_hash: str
    state: str
    cooldown_ends_at: int


class NodeLivenessRow(Row, frozen=True, kw_only=True):
    """Whether the node earns in the rewards contract, the voided slots that the contract has not been told of, and
    until when, Unix seconds, it voids those that it was told of."""

    table: ClassVar[str] = "node_liveness"
    key: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    online: bool
    voids_pending: int
    void_until: int


class AuditRow(Row, frozen=True, kw_only=True):
    """One execution that was drawn, from then until its verdict. An open one is begun anew after a restart: what was
    asked of auditors before is forgotten. `verdict` is empty while it is open."""

    table: ClassVar[str] = "audits"
    key: ClassVar[tuple[str, ...]] = ("audit_id",)

    audit_id: str
    request_id: str
    execution_sequence: int
    execution_hash: str
    node_id: str
    """The executor."""
    verdict: str
    reason: str
    auditor_id: str
    third_id: str
    opened_at: int
    finished_at: int
    refunded_wei: str
    audit_sequence: int
    """Of the audit's record; -1 while there is none."""
    prepared_from: str = ""
    """The audit that this one repeats in order to test its auditor; such a one has no record."""
    whole: bool = False
    """The unit is run again whole, since nothing in it can be compared."""


class NodeTrustRow(Row, frozen=True, kw_only=True):
    """What is known of a node's honesty and speed. Evidence is log-likelihood in thousandths of a nat; times are Unix
    milliseconds, 0 for never."""

    table: ClassVar[str] = "node_trust"
    key: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    passes: int
    """Audits passed since the last that was not: they set the rate."""
    executor_millinats: int
    auditor_millinats: int
    unusable_millinats: int
    audited: int
    disagreed: int
    first_attached_at: int
    """From here runs the time in which it must meet the speed floor of its tier for the first time."""
    proven_at: int
    """When it last met the speed floor of its tier."""
    strikes: int
    """Units running that it did not acknowledge in time."""
    benched_at: int
    bench_reason: str


class EpochRow(Row, frozen=True, kw_only=True):
    """An epoch of sampling: 0x-hex of the secret's hash, and of the secret itself once it is public."""

    table: ClassVar[str] = "epochs"
    key: ClassVar[tuple[str, ...]] = ("epoch",)

    epoch: int
    commitment: str
    secret: str
    began_at: int
    revealed_at: int
