"""What the network on a chain remembers: the mirror of the contracts, clearances, intents to send, scopes of keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
OPEN_CLEARANCE = sa.text("state = 'open'")
OPEN_INTENT = sa.text("state IN ('new', 'signed', 'mined')")


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("scopes", sa.Text(), nullable=False, server_default="inference,read"))
    op.add_column("api_keys", sa.Column("kind", sa.Text(), nullable=False, server_default="key"))
    op.create_table(
        "chain_cursor",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("block", WHOLE, nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("block_time", WHOLE, nullable=False),
        sa.Column("anchor_halt", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="chain_cursor_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "vault_accounts",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("deposit_wei", sa.Text(), nullable=False),
        sa.Column("settled_wei", sa.Text(), nullable=False),
        sa.Column("requested_wei", sa.Text(), nullable=False),
        sa.Column("nonce", WHOLE, nullable=False),
        sa.Column("limit_wei", sa.Text(), nullable=False),
        sa.Column("limit_from", WHOLE, nullable=False),
        sa.Column("charged_day", WHOLE, nullable=False),
        sa.Column("charged_wei", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name="vault_accounts_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "clearances",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("nonce", WHOLE, autoincrement=False, nullable=False),
        sa.Column("expiry", WHOLE, autoincrement=False, nullable=False),
        sa.Column("amount_wei", sa.Text(), nullable=False),
        sa.Column("cumulative_wei", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("granted_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("account", "nonce", "expiry", name="clearances_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "clearances_open", "clearances", ["account"], sqlite_where=OPEN_CLEARANCE, postgresql_where=OPEN_CLEARANCE
    )
    op.create_table(
        "registrations",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("stake_wei", sa.Text(), nullable=False),
        sa.Column("hardware_tier", WHOLE, nullable=False),
        sa.Column("node_key_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cooldown_ends_at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="registrations_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "node_liveness",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("online", FLAG, nullable=False),
        sa.Column("voids_pending", WHOLE, nullable=False),
        sa.Column("void_until", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="node_liveness_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "intents",
        sa.Column("intent_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("nonce", WHOLE, nullable=False),
        sa.Column("to_address", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("mined_block", WHOLE, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("intent_id", name="intents_pkey"),
        sqlite_strict=True,
    )
    op.create_index("intents_open", "intents", ["created_at"], sqlite_where=OPEN_INTENT, postgresql_where=OPEN_INTENT)


def downgrade() -> None:
    op.drop_table("intents")
    op.drop_table("node_liveness")
    op.drop_table("registrations")
    op.drop_table("clearances")
    op.drop_table("vault_accounts")
    op.drop_table("chain_cursor")
    op.drop_column("api_keys", "kind")
    op.drop_column("api_keys", "scopes")
