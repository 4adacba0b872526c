"""ops.drift, which polls fill, and projector.outbox, by which what they found is told even after a crash"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# An index over `observed_at` is no harm to HOT updates: a row of a log is written once.
TABLES = """
CREATE TABLE ops.drift (
    event_id text COLLATE "C" NOT NULL,
    version bigint[] DEFAULT '{}' NOT NULL,
    source text COLLATE "C",
    ref text COLLATE "C",
    model text COLLATE "C",
    kind text COLLATE "C",
    columns text[] COLLATE "C",
    was jsonb,
    found jsonb,
    missed text[] COLLATE "C",
    delivery text COLLATE "C",
    changed_at timestamptz,
    observed_at timestamptz,
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
CREATE INDEX drift_ref ON ops.drift USING btree (ref);
CREATE INDEX drift_observed_at ON ops.drift USING btree (observed_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.drift TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.drift TO odooops_reader_pii;
GRANT SELECT (event_id, version, source, ref, model, kind, columns, missed, delivery, changed_at, observed_at)
    ON ops.drift TO odooops_reader;
CREATE TABLE projector.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text COLLATE "C" NOT NULL UNIQUE,
    subject text COLLATE "C" NOT NULL,
    headers jsonb NOT NULL,
    data text COLLATE "C" NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE projector.outbox IS 'What is to be published because of what polls found; empty but for an instant';
GRANT SELECT, INSERT, UPDATE, DELETE ON projector.outbox TO odooops_projector, odooops_operator;
GRANT SELECT (id, message_id, subject, made_at) ON projector.outbox TO odooops_reader, odooops_reader_pii
"""

# What the table said is left out: the plain reader may not see it.
# Late: the webhook came within an hour after the poll had seen what it tells, and not because we had asked for it.
# Unknown: something of that source waits to be understood, or was set aside, and may have told it.
DRIFT_NOW = """
CREATE VIEW ops.drift_now AS
SELECT d.event_id, d.source, d.ref, d.model, d.kind, d.columns, d.missed, d.delivery, d.changed_at, d.observed_at,
(CASE
    WHEN d.kind = 'gone' OR 'deleted_at' = ANY (d.columns) THEN 'gone'
    WHEN EXISTS (
        SELECT FROM ops.deliveries AS w
        WHERE w.source = d.source AND w.via = 'webhook' AND w.status = 'projected' AND w.refs @> ARRAY[d.ref]
            AND w.received_at > d.observed_at AND w.received_at <= d.observed_at + INTERVAL '1 hour'
            AND NOT EXISTS (
                SELECT FROM ops.platform_events AS a
                WHERE a.service = 'platform' AND a.occurred_at >= d.observed_at - INTERVAL '1 hour'
                    AND a.occurred_at <= w.received_at AND a.event_type = 'webhook.redelivery_asked'
                    AND a.source = d.source AND jsonb_exists(a.payload -> 'deliveries', w.identity)
            )
    ) THEN 'late'
    WHEN EXISTS (
        SELECT FROM ops.deliveries AS p
        WHERE p.source = d.source AND p.via = 'webhook' AND p.status IN ('parked', 'discarded', 'redacted')
            AND p.received_at >= COALESCE(d.changed_at, d.observed_at - INTERVAL '1 day') - INTERVAL '1 hour'
            AND p.received_at <= d.observed_at
    ) THEN 'unknown'
    ELSE 'missed'
END) COLLATE "C" AS cause
FROM ops.drift AS d
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement)
    op.execute(DRIFT_NOW)
    op.execute(
        "GRANT SELECT ON ops.drift_now TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
