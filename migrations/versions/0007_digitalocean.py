"""ops.do_*: what a poll of DigitalOcean sees; ops.freshness: when each source was last heard of"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.do_droplets (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    scope text COLLATE "C",
    do_id bigint,
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    env text COLLATE "C",
    name text COLLATE "C",
    status text COLLATE "C",
    provider_status text COLLATE "C",
    region text COLLATE "C",
    size_slug text COLLATE "C",
    vcpus bigint,
    memory_mb bigint,
    disk_gb bigint,
    gpu boolean,
    gpu_model text COLLATE "C",
    gpu_count bigint,
    image_slug text COLLATE "C",
    image_name text COLLATE "C",
    ipv4_public text COLLATE "C",
    ipv4_private text COLLATE "C",
    ipv6_public text COLLATE "C",
    network_uuid text COLLATE "C",
    tags text[] COLLATE "C",
    last_observed_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.do_databases (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    scope text COLLATE "C",
    do_id text COLLATE "C",
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    env text COLLATE "C",
    name text COLLATE "C",
    engine text COLLATE "C",
    provider_engine text COLLATE "C",
    engine_version text COLLATE "C",
    status text COLLATE "C",
    provider_status text COLLATE "C",
    region text COLLATE "C",
    size_slug text COLLATE "C",
    num_nodes bigint,
    storage_mib bigint,
    endpoint_host text COLLATE "C",
    endpoint_port bigint,
    ssl_required boolean,
    default_database text COLLATE "C",
    network_uuid text COLLATE "C",
    tags text[] COLLATE "C",
    end_of_life_at timestamptz,
    last_observed_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.do_firewalls (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    scope text COLLATE "C",
    do_id text COLLATE "C",
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    name text COLLATE "C",
    status text COLLATE "C",
    provider_status text COLLATE "C",
    inbound_rules jsonb,
    outbound_rules jsonb,
    droplet_ids bigint[],
    tags text[] COLLATE "C",
    last_observed_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.do_actions (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    do_id bigint,
    kind text COLLATE "C",
    resource_type text COLLATE "C",
    resource_id bigint,
    resource_ref text COLLATE "C",
    region text COLLATE "C",
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    provider_status text COLLATE "C",
    completed_at timestamptz,
    last_observed_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX do_actions_resource_ref ON ops.do_actions USING btree (resource_ref);
CREATE INDEX do_actions_started_at ON ops.do_actions USING btree (started_at);
CREATE TABLE ops.do_ingest_runs (
    ref text COLLATE "C" NOT NULL,
    run_id text COLLATE "C",
    scope text COLLATE "C",
    triggered_by text COLLATE "C",
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    finished_at timestamptz,
    counts jsonb,
    last_error text COLLATE "C",
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX do_ingest_runs_started_at ON ops.do_ingest_runs USING btree (started_at);
CREATE TABLE ops.freshness (
    source text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    last_webhook_at timestamptz,
    last_complete_poll_at timestamptz,
    last_listing_at timestamptz,
    last_failed_poll_at timestamptz,
    limit_version bigint[] DEFAULT '{}' NOT NULL,
    stale_after_s bigint,
    error_version bigint[] DEFAULT '{}' NOT NULL,
    last_error_at timestamptz,
    last_error text COLLATE "C",
    PRIMARY KEY (source, scope)
) WITH (fillfactor = 80);
"""

# Gone: a whole listing of its scope began after it was last seen. NULL, unknown, where there was no such listing.
GONE = """
CREATE VIEW ops.{table}_now AS
SELECT t.*, GREATEST(t.last_seen_at, t.last_observed_at) < f.last_listing_at AS gone
FROM ops.{table} AS t
LEFT JOIN ops.freshness AS f ON f.source = t.source AND f.scope = t.scope
"""

# A scope that nobody promised to poll within some time is never called fresh, nor stale.
FRESHNESS_NOW = """
CREATE VIEW ops.freshness_now AS
SELECT f.*, EXTRACT(EPOCH FROM now() - f.heard_at)::double precision AS age_s,
    (CASE
        WHEN f.last_failed_poll_at > COALESCE(f.last_complete_poll_at, '-infinity') THEN 'failing'
        WHEN f.heard_at IS NULL OR f.stale_after_s IS NULL THEN 'unknown'
        WHEN EXTRACT(EPOCH FROM now() - f.heard_at) > f.stale_after_s THEN 'stale'
        ELSE 'fresh'
    END) COLLATE "C" AS state
FROM (SELECT t.*, GREATEST(t.last_webhook_at, t.last_complete_poll_at) AS heard_at FROM ops.freshness AS t) AS f
"""

OF_THINGS = ("do_droplets", "do_databases", "do_firewalls")
WRITTEN = (*OF_THINGS, "do_actions", "do_ingest_runs", "freshness")
VIEWS = (*(f"{table}_now" for table in OF_THINGS), "freshness_now")


def upgrade() -> None:
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    for table in OF_THINGS:
        op.execute(GONE.format(table=table))
    op.execute(FRESHNESS_NOW)
    for table in WRITTEN:
        op.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ops.{table} TO odooops_projector, odooops_operator"
        )
        op.execute(f"GRANT SELECT ON ops.{table} TO odooops_reader, odooops_reader_pii")
    for view in VIEWS:
        op.execute(
            f"GRANT SELECT ON ops.{view}"
            " TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii"
        )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
