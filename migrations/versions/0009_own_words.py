"""What OdooOps itself says: backups, scans, secret syncs, gates, sessions, jobs, runs, artifacts, health."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.backups (
    ref text COLLATE "C" NOT NULL,
    backup_id text COLLATE "C",
    env text COLLATE "C",
    database text COLLATE "C",
    backup_type text COLLATE "C",
    stated_backup_type text COLLATE "C",
    provider text COLLATE "C",
    storage_ref text COLLATE "C",
    size_bytes bigint,
    checksum text COLLATE "C",
    postgres_version text COLLATE "C",
    created_by text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    created_at timestamptz,
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    end_version bigint[] DEFAULT '{}' NOT NULL,
    stated_status text COLLATE "C",
    error text COLLATE "C",
    finished_at timestamptz,
    expires_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX backups_env ON ops.backups USING btree (env, created_at);
CREATE TABLE ops.backup_jobs (
    ref text COLLATE "C" NOT NULL,
    env text COLLATE "C",
    action text COLLATE "C",
    stated_action text COLLATE "C",
    backup_ref text COLLATE "C",
    target_env text COLLATE "C",
    target_database text COLLATE "C",
    actor text COLLATE "C",
    runner text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    queued_at timestamptz,
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    error text COLLATE "C",
    finished_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX backup_jobs_backup_ref ON ops.backup_jobs USING btree (backup_ref);
CREATE TABLE ops.advisor_runs (
    ref text COLLATE "C" NOT NULL,
    advisor text COLLATE "C",
    env text COLLATE "C",
    triggered_by text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    finding_count bigint,
    error text COLLATE "C",
    finished_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.advisor_findings (
    ref text COLLATE "C" NOT NULL,
    run_ref text COLLATE "C" NOT NULL,
    advisor text COLLATE "C",
    fingerprint text COLLATE "C",
    version bigint[] DEFAULT '{}' NOT NULL,
    env text COLLATE "C",
    pillar text COLLATE "C",
    stated_pillar text COLLATE "C",
    severity text COLLATE "C",
    stated_severity text COLLATE "C",
    rule text COLLATE "C",
    title text COLLATE "C",
    resource_ref text COLLATE "C",
    remediation text COLLATE "C",
    evidence jsonb,
    url text COLLATE "C",
    found_at timestamptz,
    PRIMARY KEY (ref, run_ref)
) WITH (fillfactor = 80);
CREATE INDEX advisor_findings_run_ref ON ops.advisor_findings USING btree (run_ref);
CREATE TABLE ops.advisor_dismissals (
    ref text COLLATE "C" NOT NULL,
    advisor text COLLATE "C",
    fingerprint text COLLATE "C",
    version bigint[] DEFAULT '{}' NOT NULL,
    dismissed boolean,
    decided_by text COLLATE "C",
    decided_at timestamptz,
    reason text COLLATE "C",
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.secret_sync_runs (
    ref text COLLATE "C" NOT NULL,
    env text COLLATE "C",
    actor text COLLATE "C",
    source_store text COLLATE "C",
    target_store text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    pushed text[] COLLATE "C",
    skipped jsonb,
    error text COLLATE "C",
    finished_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.policy_gate_runs (
    ref text COLLATE "C" NOT NULL,
    gate text COLLATE "C",
    gate_version text COLLATE "C",
    subject_ref text COLLATE "C",
    input_hash text COLLATE "C",
    env text COLLATE "C",
    correlation_id text COLLATE "C",
    verdict text COLLATE "C",
    first_run_at timestamptz,
    last_run_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    observed jsonb,
    threshold jsonb,
    reasons text[] COLLATE "C",
    evidence_ref text COLLATE "C",
    url text COLLATE "C",
    actor text COLLATE "C",
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX policy_gate_runs_gate ON ops.policy_gate_runs USING btree (gate, env);
CREATE INDEX policy_gate_runs_subject_ref ON ops.policy_gate_runs USING btree (subject_ref);
CREATE TABLE ops.exec_sessions (
    ref text COLLATE "C" NOT NULL,
    env text COLLATE "C",
    target text COLLATE "C",
    requested_by text COLLATE "C",
    approved_by text COLLATE "C",
    reason text COLLATE "C",
    transcript_ref text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    requested_at timestamptz,
    opened_at timestamptz,
    expires_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    closed_at timestamptz,
    detail text COLLATE "C",
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.jobs (
    ref text COLLATE "C" NOT NULL,
    job_type text COLLATE "C",
    env text COLLATE "C",
    requested_by text COLLATE "C",
    max_attempts bigint,
    timeout_s bigint,
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    queued_at timestamptz,
    started_at timestamptz,
    attempts bigint,
    queued_version bigint[] DEFAULT '{}' NOT NULL,
    args jsonb,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    run_after timestamptz,
    finished_at timestamptz,
    error_version bigint[] DEFAULT '{}' NOT NULL,
    last_error text COLLATE "C",
    last_error_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.runs (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    kind text COLLATE "C",
    name text COLLATE "C",
    env text COLLATE "C",
    repository text COLLATE "C",
    job_ref text COLLATE "C",
    triggered_by text COLLATE "C",
    runner text COLLATE "C",
    correlation_id text COLLATE "C",
    url text COLLATE "C",
    started_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    status text COLLATE "C",
    stated_status text COLLATE "C",
    error text COLLATE "C",
    finished_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX runs_correlation_id ON ops.runs USING btree (correlation_id);
CREATE INDEX runs_job_ref ON ops.runs USING btree (job_ref);
CREATE TABLE ops.artifacts (
    ref text COLLATE "C" NOT NULL,
    kind text COLLATE "C",
    name text COLLATE "C",
    env text COLLATE "C",
    sha256 text COLLATE "C",
    size_bytes bigint,
    content_type text COLLATE "C",
    run_ref text COLLATE "C",
    object_name text COLLATE "C",
    url text COLLATE "C",
    stored_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX artifacts_run_ref ON ops.artifacts USING btree (run_ref);
CREATE INDEX artifacts_sha256 ON ops.artifacts USING btree (sha256);
CREATE TABLE ops.healthcheck_runs (
    event_id text COLLATE "C" NOT NULL,
    version bigint[] DEFAULT '{}' NOT NULL,
    ref text COLLATE "C",
    env text COLLATE "C",
    target text COLLATE "C",
    check_name text COLLATE "C",
    status text COLLATE "C",
    stated_status text COLLATE "C",
    latency_ms double precision,
    detail text COLLATE "C",
    checked_at timestamptz,
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
CREATE INDEX healthcheck_runs_checked_at ON ops.healthcheck_runs USING brin (checked_at);
CREATE INDEX healthcheck_runs_ref ON ops.healthcheck_runs USING btree (ref, checked_at);
CREATE TABLE ops.metric_snapshots (
    event_id text COLLATE "C" NOT NULL,
    version bigint[] DEFAULT '{}' NOT NULL,
    source text COLLATE "C",
    ref text COLLATE "C",
    env text COLLATE "C",
    metric text COLLATE "C",
    value double precision,
    unit text COLLATE "C",
    taken_at timestamptz,
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
CREATE INDEX metric_snapshots_ref ON ops.metric_snapshots USING btree (ref, metric, taken_at);
CREATE INDEX metric_snapshots_taken_at ON ops.metric_snapshots USING brin (taken_at);
"""

# Restorable and live depend on the clock, present on other rows: no column could say them.
#
# A finding is present if a scan saw it that began no earlier than its advisor's newest complete one. Complete is a
# success of which as many findings are at hand as it said: while one is parked, nothing is called resolved for it.
VIEWS = """
CREATE VIEW ops.backups_now AS
SELECT t.*, COALESCE(t.status = 'success' AND (t.expires_at IS NULL OR t.expires_at > now()), false) AS restorable
FROM ops.backups AS t;
CREATE VIEW ops.exec_sessions_now AS
SELECT t.*, COALESCE(t.status = 'open' AND (t.expires_at IS NULL OR t.expires_at > now()), false) AS live
FROM ops.exec_sessions AS t;
CREATE VIEW ops.advisor_findings_now AS
WITH scans AS (
    SELECT r.ref, r.advisor, COALESCE(r.started_at, r.finished_at) AS began_at,
        r.status = 'success'
            AND r.finding_count <= (SELECT count(*) FROM ops.advisor_findings AS f WHERE f.run_ref = r.ref) AS complete
    FROM ops.advisor_runs AS r
), newest AS (
    SELECT s.advisor, max(s.began_at) AS began_at FROM scans AS s WHERE s.complete GROUP BY s.advisor
), seen AS (
    SELECT DISTINCT ON (f.ref) f.*, COALESCE(s.began_at, f.found_at) AS seen_at,
        min(f.found_at) OVER (PARTITION BY f.ref) AS first_found_at
    FROM ops.advisor_findings AS f LEFT JOIN scans AS s ON s.ref = f.run_ref
    ORDER BY f.ref, COALESCE(s.began_at, f.found_at) DESC, f.version DESC
)
SELECT seen.ref, seen.run_ref, seen.advisor, seen.fingerprint, seen.env, seen.pillar, seen.severity, seen.rule,
    seen.title, seen.resource_ref, seen.remediation, seen.evidence, seen.url, seen.first_found_at, seen.found_at,
    newest.began_at AS checked_at, present.present,
    CASE WHEN d.dismissed THEN 'dismissed' WHEN present.present THEN 'open' ELSE 'resolved' END COLLATE "C" AS status,
    d.decided_by, d.decided_at, d.reason
FROM seen
LEFT JOIN newest ON newest.advisor = seen.advisor
LEFT JOIN ops.advisor_dismissals AS d ON d.ref = seen.ref
CROSS JOIN LATERAL (SELECT newest.began_at IS NULL OR seen.seen_at >= newest.began_at AS present) AS present;
"""

RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.backups, ops.backup_jobs, ops.advisor_runs, ops.advisor_findings,
    ops.advisor_dismissals, ops.secret_sync_runs, ops.policy_gate_runs, ops.exec_sessions, ops.jobs, ops.runs,
    ops.artifacts, ops.healthcheck_runs, ops.metric_snapshots TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.backups, ops.backup_jobs, ops.advisor_runs, ops.advisor_findings, ops.advisor_dismissals,
    ops.secret_sync_runs, ops.policy_gate_runs, ops.exec_sessions, ops.runs, ops.artifacts, ops.healthcheck_runs,
    ops.metric_snapshots TO odooops_reader, odooops_reader_pii;
GRANT SELECT ON ops.backups_now, ops.exec_sessions_now, ops.advisor_findings_now
    TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii;
GRANT SELECT ON ops.jobs TO odooops_reader_pii;
GRANT SELECT (ref, job_type, env, requested_by, max_attempts, timeout_s, correlation_id, url, queued_at,
    started_at, attempts, queued_version, version, status, stated_status, run_after,
    finished_at, error_version, last_error, last_error_at, last_event_at)
    ON ops.jobs TO odooops_reader;
"""


def statements(script: str) -> list[str]:
    """The statements of a script without functions: split at the semicolons that end a line."""
    return [each for each in script.split(";\n") if each.strip()]


def upgrade() -> None:
    for script in (TABLES, VIEWS, RIGHTS):
        for statement in statements(script):
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
