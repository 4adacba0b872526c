"""ops.work_items: the type of an item has a version of its own, and a deletion by Plane outlives a skewed clock"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMN = "ALTER TABLE ops.work_items ADD item_type_version bigint[] DEFAULT '{}' NOT NULL"

# The type had the version of the rest until now.
TYPED = "UPDATE ops.work_items SET item_type_version = version"

# A deletion counts until something at a later time is stated of the item, or a later listing shows it. Comments and
# the like come after a deletion too, so they prove nothing.
# Plane gives a deletion no time, so it has that of our receipt, while a statement has the time of Plane's clock: where
# that clock is ahead, an update of before the deletion seems to come after it. Plane brings nothing back, so up to
# 60 s of what is stated later does not count. Listings are timed by our own clock, and GitHub's times are all its own:
# there a second is a second.
SKEW = "CASE WHEN t.system = 'plane' THEN INTERVAL '60 seconds' ELSE INTERVAL '0' END"
NOW = f"""
CREATE VIEW ops.work_items_now AS
SELECT t.work_item_ref, t.system, t.kind, t.external_id, t.project_ref, t.project_id, t.number, t.url, t.author,
    t.title,
    CASE WHEN t.state_id IS NOT DISTINCT FROM t.named_state_id THEN t.status
         WHEN t.closed_at IS NOT NULL THEN 'done' END AS status,
    CASE WHEN t.state_id IS NOT DISTINCT FROM t.named_state_id THEN t.provider_status END AS provider_status,
    t.state_id, t.priority, t.item_type, t.labels, t.assignee, t.assignees, t.milestone,
    t.draft, t.head_ref, t.head_sha, t.base_ref,
    t.created_at, t.updated_at, t.closed_at, t.merged_at, t.archived_at, t.archived_at IS NOT NULL AS archived,
    t.last_event_at, t.last_seen_at, t.deleted_at,
    t.deleted_at IS NOT NULL AND t.deleted_at >= COALESCE(t.last_seen_at, '-infinity')
        AND t.deleted_at + {SKEW}
            >= COALESCE(TIMESTAMPTZ 'epoch' + t.version[2] * INTERVAL '1 microsecond', '-infinity') AS deleted,
    t.moved_to
FROM ops.work_items AS t
"""  # constants only


def upgrade() -> None:
    op.execute(COLUMN)
    op.execute(TYPED)
    op.execute("DROP VIEW ops.work_items_now")
    op.execute(NOW)
    op.execute(
        "GRANT SELECT ON ops.work_items_now TO odooops_projector, odooops_reader, odooops_reader_pii, odooops_operator"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
