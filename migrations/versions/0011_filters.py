"""Indexes for each filter of the audit stream"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = (
    "platform_events_occurred_at ON ops.platform_events USING btree (occurred_at)",
    "platform_events_service ON ops.platform_events USING btree (service, occurred_at)",
    "platform_events_actor ON ops.platform_events USING btree (actor, occurred_at) WHERE actor IS NOT NULL",
    "platform_events_env ON ops.platform_events USING btree (env, occurred_at) WHERE env IS NOT NULL",
    "platform_events_level ON ops.platform_events USING btree (level, occurred_at) WHERE level <> 'info'",
    "platform_events_message ON ops.platform_events USING gin (to_tsvector('simple', message))",
)


def upgrade() -> None:
    for index in INDEXES:
        op.execute(f"CREATE INDEX {index}")


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
