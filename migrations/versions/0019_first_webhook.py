"""ops.freshness: since when a source posts, before which nothing can have been missed"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ops.freshness ADD first_webhook_at timestamptz")
    op.execute(
        "UPDATE ops.freshness AS f SET first_webhook_at = (SELECT min(d.received_at) FROM ops.deliveries AS d"
        " WHERE d.source = f.source AND d.via = 'webhook') WHERE f.scope = 'webhooks'"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
