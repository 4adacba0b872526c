"""Jobs of builds, names of repositories, and the environment of a build."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE ops.builds ADD COLUMN env text COLLATE "C";
CREATE TABLE ops.build_jobs (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    build_ref text COLLATE "C",
    job_id bigint,
    run_id bigint,
    run_attempt bigint,
    repository_id bigint,
    commit_sha text COLLATE "C",
    branch text COLLATE "C",
    workflow text COLLATE "C",
    created_at timestamptz,
    version bigint[] DEFAULT '{}' NOT NULL,
    repository text COLLATE "C",
    name text COLLATE "C",
    status text COLLATE "C",
    provider_status text COLLATE "C",
    provider_conclusion text COLLATE "C",
    env text COLLATE "C",
    runner text COLLATE "C",
    runner_id bigint,
    runner_group text COLLATE "C",
    labels text[] COLLATE "C",
    url text COLLATE "C",
    started_at timestamptz,
    finished_at timestamptz,
    duration_s bigint,
    queued_s bigint,
    steps jsonb,
    steps_shown bigint,
    last_event_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE INDEX build_jobs_build_ref ON ops.build_jobs USING btree (build_ref);
CREATE INDEX build_jobs_commit_sha ON ops.build_jobs USING btree (commit_sha);
CREATE TABLE ops.repo_aliases (
    ref text COLLATE "C" NOT NULL,
    full_name text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    repository_id bigint,
    first_seen_at timestamptz,
    named_at timestamptz,
    left_at timestamptz,
    deleted_at timestamptz,
    PRIMARY KEY (ref, full_name)
) WITH (fillfactor = 80);
CREATE INDEX repo_aliases_full_name ON ops.repo_aliases USING btree (full_name);
CREATE INDEX repo_aliases_repository_id ON ops.repo_aliases USING btree (repository_id);
"""

# A name that was given up counts again when it is spoken of later. A moved issue is followed to where it is now, and
# an item of which only a list was seen knows its repository by name alone.
VIEWS = """
CREATE VIEW ops.repositories_now AS
SELECT t.ref, t.repository_id, min(t.source) AS source,
    (array_agg(t.full_name ORDER BY t.given_up, t.named_at DESC NULLS LAST, t.full_name))[1] AS full_name,
    (array_agg(t.full_name ORDER BY t.given_up, t.named_at DESC NULLS LAST, t.full_name))[2:] AS previous_names,
    min(t.first_seen_at) AS first_seen_at, max(t.named_at) AS named_at,
    COALESCE(max(t.deleted_at) >= max(t.named_at), false) AS deleted
FROM (
    SELECT a.*, COALESCE(a.left_at >= a.named_at, a.named_at IS NULL) AS given_up FROM ops.repo_aliases AS a
) AS t
GROUP BY t.ref, t.repository_id;
CREATE VIEW ops.work_item_refs_now AS
WITH RECURSIVE moves AS (
    SELECT t.work_item_ref, t.moved_to, 1 AS hops FROM ops.work_items AS t WHERE t.moved_to IS NOT NULL
    UNION ALL
    SELECT m.work_item_ref, t.moved_to, m.hops + 1
    FROM moves AS m JOIN ops.work_items AS t ON t.work_item_ref = m.moved_to
    WHERE t.moved_to IS NOT NULL AND m.hops < 20
), last_moves AS (
    SELECT DISTINCT ON (m.work_item_ref) m.work_item_ref, m.moved_to FROM moves AS m
    ORDER BY m.work_item_ref, m.hops DESC
)
SELECT t.work_item_ref,
    COALESCE('github:' || r.full_name || '#' || here.number, m.moved_to, t.work_item_ref) AS current_ref
FROM ops.work_items AS t
LEFT JOIN last_moves AS m ON m.work_item_ref = t.work_item_ref
LEFT JOIN ops.work_items AS here
    ON here.work_item_ref = COALESCE(m.moved_to, t.work_item_ref) AND here.system = 'github'
LEFT JOIN ops.repositories_now AS r ON r.repository_id = COALESCE(here.project_id, (
    SELECT a.repository_id FROM ops.repo_aliases AS a
    WHERE a.full_name = here.project_ref ORDER BY a.named_at DESC NULLS LAST LIMIT 1
));
"""

RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.build_jobs, ops.repo_aliases TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.build_jobs, ops.repo_aliases TO odooops_reader, odooops_reader_pii;
GRANT SELECT ON ops.repositories_now, ops.work_item_refs_now
    TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii;
"""


def upgrade() -> None:
    for script in (TABLES, VIEWS, RIGHTS):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
