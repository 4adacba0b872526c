"""ops.work_items: priority, type, archive and state of an item, and what counts now"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE ops.work_items
    ADD state_id text COLLATE "C",
    ADD priority text COLLATE "C",
    ADD item_type text COLLATE "C",
    ADD archived_at timestamptz,
    ADD named_version bigint[] DEFAULT '{}' NOT NULL,
    ADD named_state_id text COLLATE "C",
    ADD last_seen_at timestamptz
"""

# Names had the version of the rest until now.
NAMED = "UPDATE ops.work_items SET named_version = version"

# A deletion counts until something at a later time is stated of the item, or a later listing shows it. Comments and
# the like come after a deletion too, so they prove nothing.
NOW = """
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
    t.deleted_at IS NOT NULL AND t.deleted_at >= GREATEST(
        TIMESTAMPTZ 'epoch' + t.version[2] * INTERVAL '1 microsecond', t.last_seen_at, '-infinity') AS deleted,
    t.moved_to
FROM ops.work_items AS t
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(NAMED)
    op.execute("DROP VIEW ops.work_items_now")
    op.execute(NOW)
    op.execute(
        "GRANT SELECT ON ops.work_items_now TO odooops_projector, odooops_reader, odooops_reader_pii, odooops_operator"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
