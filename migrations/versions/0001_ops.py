"""The schemas, the roles with the least rights each, and the first read models."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLES = ("odooops_projector", "odooops_notifier", "odooops_reader", "odooops_reader_pii", "odooops_operator")

# Roles belong to the cluster, not to the database: another database may have made them already, even just now.
MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$
"""

TABLES = """
CREATE TABLE ops.deliveries (
    source text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    body_sha256 text COLLATE "C" NOT NULL,
    first_version bigint[] DEFAULT '{}' NOT NULL,
    kind text COLLATE "C",
    via text COLLATE "C",
    verified_by text COLLATE "C",
    body_bytes bigint,
    received_at timestamptz,
    stream_seq bigint,
    last_seq bigint,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    reason text COLLATE "C",
    refs text[] COLLATE "C",
    event_count bigint,
    attempts bigint DEFAULT 0 NOT NULL,
    first_tried_at timestamptz,
    last_error text COLLATE "C",
    PRIMARY KEY (source, identity, body_sha256)
) WITH (fillfactor = 80);
CREATE INDEX deliveries_refs ON ops.deliveries USING gin (refs);
CREATE INDEX deliveries_set_aside ON ops.deliveries USING btree (status, source) WHERE status IN ('parked', 'conflict');
CREATE INDEX deliveries_stream_seq ON ops.deliveries USING btree (stream_seq);
CREATE TABLE ops.builds (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    run_id bigint,
    run_attempt bigint,
    repository_id bigint,
    commit_sha text COLLATE "C",
    branch text COLLATE "C",
    workflow text COLLATE "C",
    version bigint[] DEFAULT '{}' NOT NULL,
    repository text COLLATE "C",
    number bigint,
    title text COLLATE "C",
    commit_message text COLLATE "C",
    trigger text COLLATE "C",
    pull_request bigint,
    status text COLLATE "C",
    provider_status text COLLATE "C",
    provider_conclusion text COLLATE "C",
    actor text COLLATE "C",
    url text COLLATE "C",
    created_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    duration_s bigint,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX builds_commit_sha ON ops.builds USING btree (commit_sha);
CREATE TABLE ops.deployments (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    external_id text COLLATE "C",
    repository_id bigint,
    environment text COLLATE "C",
    production boolean,
    git_ref text COLLATE "C",
    commit_sha text COLLATE "C",
    task text COLLATE "C",
    creator text COLLATE "C",
    build_ref text COLLATE "C",
    repository text COLLATE "C",
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    provider_status text COLLATE "C",
    description text COLLATE "C",
    url text COLLATE "C",
    log_url text COLLATE "C",
    status_at timestamptz,
    deployed_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX deployments_commit_sha ON ops.deployments USING btree (commit_sha);
CREATE INDEX deployments_environment ON ops.deployments USING btree (environment, created_at);
CREATE TABLE ops.work_items (
    work_item_ref text COLLATE "C" NOT NULL,
    system text COLLATE "C",
    kind text COLLATE "C",
    external_id text COLLATE "C",
    project_ref text COLLATE "C",
    project_id bigint,
    number bigint,
    url text COLLATE "C",
    author text COLLATE "C",
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    title text COLLATE "C",
    status text COLLATE "C",
    provider_status text COLLATE "C",
    labels text[] COLLATE "C",
    assignee text COLLATE "C",
    assignees text[] COLLATE "C",
    milestone text COLLATE "C",
    updated_at timestamptz,
    closed_at timestamptz,
    merged_at timestamptz,
    pull_request_version bigint[] DEFAULT '{}' NOT NULL,
    draft boolean,
    head_ref text COLLATE "C",
    head_sha text COLLATE "C",
    base_ref text COLLATE "C",
    last_event_at timestamptz,
    deleted_at timestamptz,
    moved_to text COLLATE "C",
    PRIMARY KEY (work_item_ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.run_events (
    event_id text COLLATE "C" NOT NULL,
    version bigint[] DEFAULT '{}' NOT NULL,
    event_type text COLLATE "C",
    ref text COLLATE "C",
    source text COLLATE "C",
    step text COLLATE "C",
    outcome text COLLATE "C",
    level text COLLATE "C",
    message text COLLATE "C",
    actor text COLLATE "C",
    correlation_id text COLLATE "C",
    occurred_at timestamptz,
    delivery text COLLATE "C",
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
CREATE INDEX run_events_occurred_at ON ops.run_events USING brin (occurred_at);
CREATE INDEX run_events_ref ON ops.run_events USING btree (ref);
CREATE TABLE ops.platform_events (
    event_id text COLLATE "C" NOT NULL,
    version bigint[] DEFAULT '{}' NOT NULL,
    event_type text COLLATE "C",
    ref text COLLATE "C",
    source text COLLATE "C",
    service text COLLATE "C",
    env text COLLATE "C",
    level text COLLATE "C",
    message text COLLATE "C",
    actor text COLLATE "C",
    correlation_id text COLLATE "C",
    occurred_at timestamptz,
    received_at timestamptz,
    delivery text COLLATE "C",
    payload jsonb,
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
CREATE INDEX platform_events_correlation_id ON ops.platform_events USING btree (correlation_id);
CREATE INDEX platform_events_received_at ON ops.platform_events USING brin (received_at);
CREATE INDEX platform_events_ref ON ops.platform_events USING btree (ref);
"""

VIEWS = """
CREATE VIEW ops.work_items_now AS
SELECT t.*, t.deleted_at IS NOT NULL AND t.deleted_at >= COALESCE(t.last_event_at, t.deleted_at) AS deleted
FROM ops.work_items AS t;
"""

RIGHTS = """
GRANT USAGE ON SCHEMA ops TO odooops_projector, odooops_reader, odooops_reader_pii, odooops_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ops TO odooops_projector, odooops_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA ops TO odooops_reader_pii;
GRANT SELECT ON ops.deliveries, ops.builds, ops.deployments, ops.work_items, ops.work_items_now, ops.run_events
    TO odooops_reader;
GRANT SELECT (event_id, version, event_type, ref, source, service, env, level, message, actor, correlation_id,
    occurred_at, received_at, delivery) ON ops.platform_events TO odooops_reader;
GRANT USAGE ON SCHEMA notify TO odooops_notifier, odooops_reader, odooops_reader_pii, odooops_operator;
GRANT SELECT ON public.alembic_version TO odooops_projector, odooops_notifier, odooops_reader,
    odooops_reader_pii, odooops_operator;
"""

# The operator rebuilds into shadow schemas.
MAY_CREATE = """
DO $$ BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO odooops_operator', current_database());
END $$
"""


def statements(script: str) -> list[str]:
    """The statements of a script without functions: split at the semicolons that end a line."""
    return [each for each in script.split(";\n") if each.strip()]


def upgrade() -> None:
    for role in ROLES:
        op.execute(MAKE_ROLE.format(role=role))
    op.execute("CREATE SCHEMA ops")
    op.execute("CREATE SCHEMA notify")
    for script in (TABLES, VIEWS, RIGHTS):
        for statement in statements(script):
            op.execute(statement)
    op.execute(MAY_CREATE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
