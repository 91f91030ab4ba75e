"""What audits remember: those that are open, what was claimed, what is known of nodes, and the epochs of sampling."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
OPEN_AUDIT = sa.text("verdict = ''")


def upgrade() -> None:
    op.add_column("attempts", sa.Column("epoch", WHOLE, nullable=False, server_default="0"))
    op.add_column("batches", sa.Column("epoch", WHOLE, nullable=False, server_default="0"))
    _free_faults()
    op.create_table(
        "audits",
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("execution_sequence", WHOLE, nullable=False),
        sa.Column("execution_hash", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("auditor_id", sa.Text(), nullable=False),
        sa.Column("third_id", sa.Text(), nullable=False),
        sa.Column("opened_at", WHOLE, nullable=False),
        sa.Column("finished_at", WHOLE, nullable=False),
        sa.Column("refunded_wei", sa.Text(), nullable=False),
        sa.Column("audit_sequence", WHOLE, nullable=False),
        sa.Column("prepared_from", sa.Text(), nullable=False),
        sa.Column("whole", FLAG, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="audits_request_id_fkey"),
        sa.PrimaryKeyConstraint("audit_id", name="audits_pkey"),
        sqlite_strict=True,
    )
    op.create_index("audits_request_id", "audits", ["request_id"])
    op.create_index("audits_open", "audits", ["opened_at"], sqlite_where=OPEN_AUDIT, postgresql_where=OPEN_AUDIT)
    op.create_table(
        "claims",
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["audit_id"], ["audits.audit_id"], name="claims_audit_id_fkey"),
        sa.PrimaryKeyConstraint("audit_id", name="claims_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "node_trust",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("passes", WHOLE, nullable=False),
        sa.Column("executor_millinats", WHOLE, nullable=False),
        sa.Column("auditor_millinats", WHOLE, nullable=False),
        sa.Column("unusable_millinats", WHOLE, nullable=False),
        sa.Column("audited", WHOLE, nullable=False),
        sa.Column("disagreed", WHOLE, nullable=False),
        sa.Column("first_attached_at", WHOLE, nullable=False),
        sa.Column("proven_at", WHOLE, nullable=False),
        sa.Column("strikes", WHOLE, nullable=False),
        sa.Column("benched_at", WHOLE, nullable=False),
        sa.Column("bench_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="node_trust_pkey"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "epochs",
        sa.Column("epoch", WHOLE, autoincrement=False, nullable=False),
        sa.Column("commitment", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("began_at", WHOLE, nullable=False),
        sa.Column("revealed_at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("epoch", name="epochs_pkey"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("epochs")
    op.drop_table("node_trust")
    op.drop_table("claims")
    op.drop_table("audits")
    _bind_faults()
    op.drop_column("batches", "epoch")
    op.drop_column("attempts", "epoch")


def _free_faults() -> None:
    """An audit's attempts have no rows, so a fault may name one that is in no table."""
    if op.get_bind().dialect.name == "sqlite":
        _make_faults_anew()
    else:
        op.drop_constraint("faults_attempt_id_fkey", "faults", type_="foreignkey")


def _bind_faults() -> None:
    op.execute("DELETE FROM faults WHERE attempt_id NOT IN (SELECT attempt_id FROM attempts)")
    attempt_id = ["attempt_id"], ["attempts.attempt_id"]
    if op.get_bind().dialect.name == "sqlite":
        _make_faults_anew(sa.ForeignKeyConstraint(*attempt_id, name="faults_attempt_id_fkey"))
    else:
        op.create_foreign_key("faults_attempt_id_fkey", "faults", "attempts", ["attempt_id"], ["attempt_id"])


def _make_faults_anew(*constraints: sa.Constraint) -> None:
    """SQLite cannot take a constraint from a table, nor give it one."""
    op.drop_index("faults_at", "faults")
    op.rename_table("faults", "faults_before")
    op.create_table(
        "faults",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        *constraints,
        sa.PrimaryKeyConstraint("attempt_id", name="faults_pkey"),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO faults (attempt_id, node_id, request_id, reason, at)"
        " SELECT attempt_id, node_id, request_id, reason, at FROM faults_before"
    )
    op.drop_table("faults_before")
    op.create_index("faults_at", "faults", ["at"])
