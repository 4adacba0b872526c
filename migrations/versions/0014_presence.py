"""ops.freshness: what polls say can be refolded; ops.work_items: which items are gone, and quick moves"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE ops.freshness ADD ref text COLLATE "C";
UPDATE ops.freshness SET ref = source || '\\:scope/' || scope WHERE scope <> 'webhooks';
ALTER TABLE ops.work_items ADD source text COLLATE "C", ADD scope text COLLATE "C";
CREATE INDEX work_items_moved_to ON ops.work_items USING btree (moved_to) WHERE moved_to IS NOT NULL;
"""

# A scope that nobody promised to hear of within some time is never called fresh, nor stale. One that was heard of more
# than an hour from now was written by a clock that nobody can trust.
FRESHNESS_NOW = """
CREATE VIEW ops.freshness_now AS
SELECT f.*, EXTRACT(EPOCH FROM now() - f.heard_at)::double precision AS age_s,
    (CASE
        WHEN GREATEST(f.heard_at, f.last_failed_poll_at) > now() + INTERVAL '1 hour' THEN 'unknown'
        WHEN f.last_failed_poll_at > COALESCE(f.last_complete_poll_at, '-infinity') THEN 'failing'
        WHEN f.heard_at IS NULL OR f.stale_after_s IS NULL THEN 'unknown'
        WHEN EXTRACT(EPOCH FROM now() - f.heard_at) > f.stale_after_s THEN 'stale'
        ELSE 'fresh'
    END) COLLATE "C" AS state
FROM (SELECT t.*, GREATEST(t.last_webhook_at, t.last_complete_poll_at) AS heard_at FROM ops.freshness AS t) AS f
"""

# A deletion counts until something at a later time is stated of the item, or a later listing shows it. Comments and
# the like come after a deletion too, so they prove nothing.
# Plane gives a deletion no time, so it has that of our receipt, while a statement has the time of Plane's clock: where
# that clock is ahead, an update of before the deletion seems to come after it. Plane brings nothing back, so up to
# 60 s of what seems later does not count. GitHub's times are all its own: there a second is a second.
SKEW = "CASE WHEN t.system = 'plane' THEN INTERVAL '60 seconds' ELSE INTERVAL '0' END"

# Gone: a whole listing of its scope began after it was last seen or spoken of. NULL, unknown, where there was none.
# Plane's pages are counted off, so one listing may skip an item that is there: a poll that misses one has to ask for
# it, and a 404 is stated as a deletion.
WORK_ITEMS_NOW = f"""
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
    t.moved_to, t.scope,
    CASE WHEN t.work_item_ref NOT LIKE 'plane:%'
         THEN GREATEST(t.last_seen_at, t.last_event_at) < f.last_listing_at END AS gone
FROM ops.work_items AS t
LEFT JOIN ops.freshness AS f ON f.source = t.source AND f.scope = t.scope
"""

VIEWS = {"freshness_now": FRESHNESS_NOW, "work_items_now": WORK_ITEMS_NOW}


def upgrade() -> None:
    for statement in filter(str.strip, COLUMNS.split(";\n")):
        op.execute(statement)
    for name, view in VIEWS.items():
        op.execute(f"DROP VIEW ops.{name}")
        op.execute(view)
        op.execute(
            f"GRANT SELECT ON ops.{name}"
            " TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii"
        )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
