"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
OPEN = sa.text("state IN ('queued', 'dispatched', 'running', 'validating')")
KEYED = sa.text("idempotency_key <> ''")
PENDING = sa.text("applied_at = 0")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("requests_per_minute", WHOLE, nullable=False),
        sa.Column("concurrency", WHOLE, nullable=False),
        sa.Column("budget_wei", sa.Text(), nullable=False),
        sa.Column("spent_wei", sa.Text(), nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("expires_at", WHOLE, nullable=False),
        sa.Column("revoked_at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="api_keys_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "balances",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("balance_wei", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name="balances_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "batches",
        sa.Column("number", WHOLE, autoincrement=False, nullable=False),
        sa.Column("previous_hash", sa.Text(), nullable=False),
        sa.Column("head_hash", sa.Text(), nullable=False),
        sa.Column("first", WHOLE, nullable=False),
        sa.Column("last", WHOLE, nullable=False),
        sa.Column("count", WHOLE, nullable=False),
        sa.Column("merkle_root", sa.Text(), nullable=False),
        sa.Column("closed_at", WHOLE, nullable=False),
        sa.Column("confirmed_at", WHOLE, nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="batches_pkey"),
        sqlite_strict=True,
    )
    op.create_index("batches_last", "batches", ["last"])
    op.create_table(
        "commands",
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("applied_at", WHOLE, nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("command_id", name="commands_pkey"),
        sqlite_strict=True,
    )
    op.create_index("commands_pending", "commands", ["created_at"], sqlite_where=PENDING, postgresql_where=PENDING)
    op.create_table(
        "leader",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("epoch", WHOLE, nullable=False),
        sa.Column("commit_number", WHOLE, nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="leader_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("issued_at", WHOLE, nullable=False),
        sa.Column("attached_at", WHOLE, nullable=False),
        sa.Column("removed_until", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="nodes_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("workload_class", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("hardware_tier", WHOLE, nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("deadline_ms", WHOLE, nullable=False),
        sa.Column("queue_ms", WHOLE, nullable=False),
        sa.Column("admitted_at", WHOLE, nullable=False),
        sa.Column("finished_at", WHOLE, nullable=False),
        sa.Column("prompt_tokens_max", WHOLE, nullable=False),
        sa.Column("completion_tokens_max", WHOLE, nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("attached", FLAG, nullable=False),
        sa.Column("cancelling", FLAG, nullable=False),
        sa.Column("prompt_price_wei", sa.Text(), nullable=False),
        sa.Column("completion_price_wei", sa.Text(), nullable=False),
        sa.Column("hold_wei", sa.Text(), nullable=False),
        sa.Column("charge_wei", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", WHOLE, nullable=False),
        sa.Column("completion_tokens", WHOLE, nullable=False),
        sa.Column("record_sequence", WHOLE, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="requests_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("requests_account", "requests", ["account", "admitted_at", "request_id"])
    op.create_index("requests_idempotent", "requests", ["admitted_at"], sqlite_where=KEYED, postgresql_where=KEYED)
    op.create_index("requests_open", "requests", ["admitted_at"], sqlite_where=OPEN, postgresql_where=OPEN)
    op.create_table(
        "transfers",
        sa.Column("transfer_id", sa.Text(), nullable=False),
        sa.Column("debit_account", sa.Text(), nullable=False),
        sa.Column("credit_account", sa.Text(), nullable=False),
        sa.Column("amount_wei", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("transfer_id", name="transfers_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uptime",
        sa.Column("hour", WHOLE, autoincrement=False, nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("credited", sa.Text(), nullable=False),
        sa.Column("voided", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "node_id", name="uptime_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("model_digest", sa.Text(), nullable=False),
        sa.Column("dispatched_at", WHOLE, nullable=False),
        sa.Column("started_at", WHOLE, nullable=False),
        sa.Column("deadline_at", WHOLE, nullable=False),
        sa.Column("finished_at", WHOLE, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="attempts_request_id_fkey"),
        sa.PrimaryKeyConstraint("attempt_id", name="attempts_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("attempts_request_id", "attempts", ["request_id"])
    op.create_table(
        "payloads",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_keys", sa.LargeBinary(), nullable=False),
        sa.Column("requester_public_key", sa.Text(), nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="payloads_request_id_fkey"),
        sa.PrimaryKeyConstraint("request_id", name="payloads_pkey"),
        sqlite_strict=True,
    )
    op.create_index("payloads_created_at", "payloads", ["created_at"])
    op.create_table(
        "records",
        sa.Column("sequence", WHOLE, autoincrement=False, nullable=False),
        sa.Column("record_hash", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="records_request_id_fkey"),
        sa.PrimaryKeyConstraint("sequence", name="records_pkey"),
        sqlite_strict=True,
    )
    op.create_index("records_record_hash", "records", ["record_hash"], unique=True)
    op.create_table(
        "results",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", WHOLE, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="results_request_id_fkey"),
        sa.PrimaryKeyConstraint("request_id", name="results_pkey"),
        sqlite_strict=True,
    )
    op.create_index("results_expires_at", "results", ["expires_at"])
    op.create_table(
        "envelopes",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("wrapped_secret", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], name="envelopes_attempt_id_fkey"),
        sa.PrimaryKeyConstraint("attempt_id", name="envelopes_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "faults",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], name="faults_attempt_id_fkey"),
        sa.PrimaryKeyConstraint("attempt_id", name="faults_pkey"),
        sqlite_strict=True,
    )
    op.create_index("faults_at", "faults", ["at"])


def downgrade() -> None:
    op.drop_table("faults")
    op.drop_table("envelopes")
    op.drop_table("results")
    op.drop_table("records")
    op.drop_table("payloads")
    op.drop_table("attempts")
    op.drop_table("uptime")
    op.drop_table("transfers")
    op.drop_table("requests")
    op.drop_table("nodes")
    op.drop_table("leader")
    op.drop_table("commands")
    op.drop_table("batches")
    op.drop_table("balances")
    op.drop_table("api_keys")
