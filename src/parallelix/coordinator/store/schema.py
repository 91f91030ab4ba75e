"""The tables, one for each Row class, and only the indexes that `queries.py` needs.

On SQLite all are STRICT, so that a value of the wrong type is refused as PostgreSQL refuses it. Small tables that are
only reached by their key have no rowid: one tree less to write. The others keep it, because their keys are random and
a rowid puts what is written together side by side.

Foreign keys guard against our own bugs where a dangling row would lose money or a result. They cost one look-up in a
page that the same commit has just touched.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from parallelix.coordinator.store.rows import (
    ClaimRow,
    CommandRow,
    EnvelopeRow,
    IntentRow,
    LeaderRow,
    PayloadRow,
    ResultRow,
)
from parallelix.engine.rows import (
    AttemptRow,
    AuditRow,
    BalanceRow,
    BatchRow,
    ChainCursorRow,
    ClearanceRow,
    EpochRow,
    FaultRow,
    KeyRow,
    NodeLivenessRow,
    NodeRow,
    NodeTrustRow,
    RecordRow,
    RegistrationRow,
    RequestRow,
    Row,
    TransferRow,
    UptimeRow,
    VaultAccountRow,
)

ROW_TYPES: tuple[type[Row], ...] = (
    RequestRow,
    AttemptRow,
    PayloadRow,
    EnvelopeRow,
    ResultRow,
    TransferRow,
    BalanceRow,
    RecordRow,
    BatchRow,
    NodeRow,
    FaultRow,
    UptimeRow,
    KeyRow,
    ChainCursorRow,
    VaultAccountRow,
    ClearanceRow,
    RegistrationRow,
    NodeLivenessRow,
    AuditRow,
    ClaimRow,
    NodeTrustRow,
    EpochRow,
    IntentRow,
    CommandRow,
    LeaderRow,
)
"""In the order in which a commit writes them: whatever a foreign key names comes first."""

# SQLite's INTEGER holds 64 bits, and only under that name does it take the place of the rowid.
WHOLE = BigInteger().with_variant(Integer(), "sqlite")
FLAG = Boolean().with_variant(Integer(), "sqlite")

OPEN = "state IN ('queued', 'dispatched', 'running', 'validating')"
"""Of a request: not final. The partial index and the queries must say it in the same words."""
OPEN_AUDIT = "verdict = ''"

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_name)s",
        "uq": "%(table_name)s_%(column_0_name)s_key",
    }
)


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)


def _number(name: str) -> Column[int]:
    return Column(name, WHOLE, primary_key=True, autoincrement=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _whole(name: str) -> Column[int]:
    return Column(name, WHOLE, nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, FLAG, nullable=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _of(name: str, parent: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, ForeignKey(f"{parent}.{name}"), nullable=False, primary_key=primary_key)


requests = Table(
    "requests",
    metadata,
    _key("request_id"),
    _text("account"),
    _text("key_id"),
    _text("workload_class"),
    _text("kind"),
    _text("model"),
    _whole("hardware_tier"),
    _text("priority"),
    _text("state"),
    _text("reason"),
    _whole("deadline_ms"),
    _whole("queue_ms"),
    _whole("admitted_at"),
    _whole("finished_at"),
    _whole("prompt_tokens_max"),
    _whole("completion_tokens_max"),
    _text("features"),
    _flag("attached"),
    _flag("cancelling"),
    _text("prompt_price_wei"),
    _text("completion_price_wei"),
    _text("hold_wei"),
    _text("charge_wei"),
    _whole("prompt_tokens"),
    _whole("completion_tokens"),
    _whole("record_sequence"),
    _text("idempotency_key"),
    _text("fingerprint"),
    Index("requests_account", "account", "admitted_at", "request_id"),
    Index("requests_open", "admitted_at", sqlite_where=text(OPEN), postgresql_where=text(OPEN)),
    Index(
        "requests_idempotent",
        "admitted_at",
        sqlite_where=text("idempotency_key <> ''"),
        postgresql_where=text("idempotency_key <> ''"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    _key("attempt_id"),
    _of("request_id", "requests"),
    _whole("number"),
    _text("node_id"),
    _text("state"),
    _text("reason"),
    _text("model_digest"),
    _whole("dispatched_at"),
    _whole("started_at"),
    _whole("deadline_at"),
    _whole("finished_at"),
    Column("epoch", WHOLE, nullable=False, server_default="0"),
    Index("attempts_request_id", "request_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

payloads = Table(
    "payloads",
    metadata,
    _of("request_id", "requests", primary_key=True),
    _bytes("sealed"),
    _bytes("wrapped_keys"),
    _text("requester_public_key"),
    _whole("created_at"),
    Index("payloads_created_at", "created_at"),
    sqlite_strict=True,
)

envelopes = Table(
    "envelopes",
    metadata,
    _of("attempt_id", "attempts", primary_key=True),
    _text("request_id"),
    _text("envelope"),
    _bytes("wrapped_secret"),
    sqlite_strict=True,
)

results = Table(
    "results",
    metadata,
    _of("request_id", "requests", primary_key=True),
    _bytes("sealed"),
    _bytes("entries"),
    _whole("expires_at"),
    Index("results_expires_at", "expires_at"),
    sqlite_strict=True,
)

# A grant belongs to no request, so this `request_id` names none.
transfers = Table(
    "transfers",
    metadata,
    _key("transfer_id"),
    _text("debit_account"),
    _text("credit_account"),
    _text("amount_wei"),
    _text("request_id"),
    _whole("at"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

balances = Table(
    "balances",
    metadata,
    _key("account"),
    _text("balance_wei"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

records = Table(
    "records",
    metadata,
    _number("sequence"),
    _text("record_hash"),
    _of("request_id", "requests"),
    _bytes("body"),
    Index("records_record_hash", "record_hash", unique=True),
    sqlite_strict=True,
)

batches = Table(
    "batches",
    metadata,
    _number("number"),
    _text("previous_hash"),
    _text("head_hash"),
    _whole("first"),
    _whole("last"),
    _whole("count"),
    _text("merkle_root"),
    _whole("closed_at"),
    _whole("confirmed_at"),
    _text("reference"),
    Column("epoch", WHOLE, nullable=False, server_default="0"),
    Index("batches_last", "last"),
    sqlite_strict=True,
)

nodes = Table(
    "nodes",
    metadata,
    _key("node_id"),
    _text("session"),
    _text("manifest"),
    _text("public_key"),
    _whole("issued_at"),
    _whole("attached_at"),
    _whole("removed_until"),
    sqlite_strict=True,
)

# An audit's attempts have no rows, and their faults count like any other.
faults = Table(
    "faults",
    metadata,
    _key("attempt_id"),
    _text("node_id"),
    _text("request_id"),
    _text("reason"),
    _whole("at"),
    Index("faults_at", "at"),
    sqlite_strict=True,
)

# The hour leads the key: a restart asks for the last two, and what is written together lies together.
uptime = Table(
    "uptime",
    metadata,
    _number("hour"),
    _key("node_id"),
    _text("credited"),
    _text("voided"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

api_keys = Table(
    "api_keys",
    metadata,
    _key("key_id"),
    _text("key_hash"),
    _text("account"),
    _text("name"),
    _whole("requests_per_minute"),
    _whole("concurrency"),
    _text("budget_wei"),
    _text("spent_wei"),
    _whole("created_at"),
    _whole("expires_at"),
    _whole("revoked_at"),
    Column("scopes", Text, nullable=False, server_default="inference,read"),
    Column("kind", Text, nullable=False, server_default="key"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

chain_cursor = Table(
    "chain_cursor",
    metadata,
    _number("id"),
    _whole("block"),
    _text("block_hash"),
    _whole("block_time"),
    _text("anchor_halt"),
    sqlite_strict=True,
)

vault_accounts = Table(
    "vault_accounts",
    metadata,
    _key("account"),
    _text("deposit_wei"),
    _text("settled_wei"),
    _text("requested_wei"),
    _whole("nonce"),
    _text("limit_wei"),
    _whole("limit_from"),
    _whole("charged_day"),
    _text("charged_wei"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

clearances = Table(
    "clearances",
    metadata,
    _key("account"),
    _number("nonce"),
    _number("expiry"),
    _text("amount_wei"),
    _text("cumulative_wei"),
    _text("state"),
    _whole("granted_at"),
    _whole("ended_at"),
    Index(
        "clearances_open",
        "account",
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

registrations = Table(
    "registrations",
    metadata,
    _key("node_id"),
    _text("owner"),
    _text("stake_wei"),
    _whole("hardware_tier"),
    _text("node_key_hash"),
    _text("state"),
    _whole("cooldown_ends_at"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

node_liveness = Table(
    "node_liveness",
    metadata,
    _key("node_id"),
    _flag("online"),
    _whole("voids_pending"),
    _whole("void_until"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

audits = Table(
    "audits",
    metadata,
    _key("audit_id"),
    _of("request_id", "requests"),
    _whole("execution_sequence"),
    _text("execution_hash"),
    _text("node_id"),
    _text("verdict"),
    _text("reason"),
    _text("auditor_id"),
    _text("third_id"),
    _whole("opened_at"),
    _whole("finished_at"),
    _text("refunded_wei"),
    _whole("audit_sequence"),
    _text("prepared_from"),
    _flag("whole"),
    Index("audits_request_id", "request_id"),
    Index("audits_open", "opened_at", sqlite_where=text(OPEN_AUDIT), postgresql_where=text(OPEN_AUDIT)),
    sqlite_strict=True,
)

claims = Table(
    "claims",
    metadata,
    _of("audit_id", "audits", primary_key=True),
    _bytes("sealed"),
    _bytes("wrapped_key"),
    sqlite_strict=True,
)

node_trust = Table(
    "node_trust",
    metadata,
    _key("node_id"),
    _whole("passes"),
    _whole("executor_millinats"),
    _whole("auditor_millinats"),
    _whole("unusable_millinats"),
    _whole("audited"),
    _whole("disagreed"),
    _whole("first_attached_at"),
    _whole("proven_at"),
    _whole("strikes"),
    _whole("benched_at"),
    _text("bench_reason"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

epochs = Table(
    "epochs",
    metadata,
    _number("epoch"),
    _text("commitment"),
    _text("secret"),
    _whole("began_at"),
    _whole("revealed_at"),
    sqlite_strict=True,
)

intents = Table(
    "intents",
    metadata,
    _key("intent_id"),
    _text("role"),
    _whole("nonce"),
    _text("to_address"),
    _bytes("data"),
    _text("attempts"),
    _text("state"),
    _whole("mined_block"),
    _whole("created_at"),
    _text("reference"),
    Index(
        "intents_open",
        "created_at",
        sqlite_where=text("state IN ('new', 'signed', 'mined')"),
        postgresql_where=text("state IN ('new', 'signed', 'mined')"),
    ),
    sqlite_strict=True,
)

commands = Table(
    "commands",
    metadata,
    _key("command_id"),
    _text("kind"),
    _bytes("body"),
    _whole("created_at"),
    _whole("applied_at"),
    _bytes("answer"),
    Index(
        "commands_pending",
        "created_at",
        sqlite_where=text("applied_at = 0"),
        postgresql_where=text("applied_at = 0"),
    ),
    sqlite_strict=True,
)

leader = Table(
    "leader",
    metadata,
    _number("id"),
    _whole("epoch"),
    _whole("commit_number"),
    _text("instance"),
    sqlite_strict=True,
)
