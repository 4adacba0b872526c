"""notify.messages: the notifier's memory of what it has posted"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column(
            "destination",
            sa.Text,
            primary_key=True,
            comment="slack:<channel>, webhook:<hash of its address> or dry_run",
        ),
        sa.Column("ref", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column(
            "message_id",
            sa.Text,
            nullable=False,
            comment="uuid5 of the key; stands in the message's metadata",
        ),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("blocks", JSONB, nullable=False),
        sa.Column("channel", sa.Text),
        sa.Column("slack_ts", sa.Text),
        sa.Column(
            "attempts",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="tries that came to an end",
        ),
        sa.Column("last_error", sa.Text),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint(
            "status IN ('posting', 'posted', 'dry_run', 'too_old', 'failed')", name="messages_status_check"
        ),
        schema="notify",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON notify.messages TO odooops_notifier")
    op.execute("GRANT SELECT ON notify.messages TO odooops_operator, odooops_reader")


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
