"""Deployments of several providers, which of them is live, and which cancelled one a newer commit replaced."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE ops.deployments
    ADD COLUMN project text COLLATE "C",
    ADD COLUMN project_id text COLLATE "C",
    ADD COLUMN env text COLLATE "C",
    ADD COLUMN pull_request bigint,
    ADD COLUMN same_as text COLLATE "C";
CREATE INDEX deployments_branch ON ops.deployments USING btree (project_id, environment, git_ref, created_at);
CREATE INDEX deployments_same_as ON ops.deployments USING btree (same_as);
CREATE TABLE ops.deployment_targets (
    target_ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    project_id text COLLATE "C",
    target text COLLATE "C",
    env text COLLATE "C",
    name_version bigint[] DEFAULT '{}' NOT NULL,
    project text COLLATE "C",
    version bigint[] DEFAULT '{}' NOT NULL,
    deployment_ref text COLLATE "C",
    previous_ref text COLLATE "C",
    change text COLLATE "C",
    confirmed boolean,
    actor text COLLATE "C",
    changed_at timestamptz,
    last_event_at timestamptz,
    PRIMARY KEY (target_ref)
) WITH (fillfactor = 80);
"""

# superseded: nobody says why a deployment was cancelled, but a newer one of the branch explains it.
# live: NULL where nothing was ever heard of the project's targets.
VIEWS = """
CREATE VIEW ops.deployments_now AS
SELECT t.*,
    t.status IS NOT DISTINCT FROM 'cancelled' AND EXISTS (
        SELECT FROM ops.deployments AS newer
        WHERE newer.project_id = t.project_id AND newer.environment = t.environment
            AND newer.git_ref = t.git_ref AND newer.created_at > t.created_at
    ) AS superseded,
    (
        SELECT bool_or(served.deployment_ref = t.ref) FROM ops.deployment_targets AS served
        WHERE served.project_id = t.project_id
    ) AS live
FROM ops.deployments AS t;
"""

RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.deployment_targets, ops.deployments_now
    TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.deployment_targets, ops.deployments_now TO odooops_reader, odooops_reader_pii;
"""


def upgrade() -> None:
    for script in (TABLES, VIEWS, RIGHTS):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
