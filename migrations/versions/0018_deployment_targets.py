"""ops.deployment_targets keeps the change that was told last apart from what polls see, time after time"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Rows of before hold a look's word as the last change until a rebuild, and `told_ref` says so by being NULL.
COLUMNS = """
ALTER TABLE ops.deployment_targets
    ADD COLUMN told_version bigint[] DEFAULT '{}' NOT NULL,
    ADD COLUMN told_ref text COLLATE "C"
"""

# As in 0012, but for the time of a target: when it was changed, where that was told, and else when what it serves was
# first deployed. The time of a look would make it the newest of all for ever.
VIEW = """
CREATE OR REPLACE VIEW ops.environments_now AS
SELECT e.env, h.hosts, h.hosts_confirmed_at, d.databases, d.databases_confirmed_at,
    r.commit_sha, r.deployment_ref, r.repository, r.project, r.url, r.deployed_at,
    COALESCE(c.health, 'unknown') COLLATE "C" AS health, c.health_confirmed_at, c.checks
FROM (VALUES ('prod' COLLATE "C"), ('stage'), ('dev')) AS e(env)
LEFT JOIN LATERAL (
    SELECT array_agg(t.name || COALESCE(' (' || t.ipv4_public || ')', '') ORDER BY t.name) AS hosts,
        min(GREATEST(t.last_seen_at, t.last_observed_at)) AS hosts_confirmed_at
    FROM ops.do_droplets_now AS t WHERE t.env = e.env AND t.gone IS NOT TRUE
) AS h ON true
LEFT JOIN LATERAL (
    SELECT array_agg(t.name || COALESCE(' (' || t.endpoint_host || ':' || t.endpoint_port || ')', '') ORDER BY t.name)
            AS databases,
        min(GREATEST(t.last_seen_at, t.last_observed_at)) AS databases_confirmed_at
    FROM ops.do_databases_now AS t WHERE t.env = e.env AND t.gone IS NOT TRUE
) AS d ON true
LEFT JOIN LATERAL (
    SELECT o.* FROM (
        (SELECT t.commit_sha, t.ref AS deployment_ref, t.repository, t.project, t.url, t.deployed_at
        FROM ops.deployments AS t WHERE t.env = e.env AND t.status = 'success'
        ORDER BY t.deployed_at DESC NULLS LAST, t.ref LIMIT 1)
        UNION ALL
        SELECT t.commit_sha, t.ref, t.repository, t.project, t.url,
            CASE WHEN s.told_ref = s.deployment_ref THEN s.changed_at ELSE t.deployed_at END
        FROM ops.deployment_targets AS s JOIN ops.deployments AS t ON t.ref = s.deployment_ref WHERE s.env = e.env
    ) AS o ORDER BY o.deployed_at DESC NULLS LAST, o.deployment_ref LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT CASE max(CASE n.status WHEN 'ok' THEN 0 WHEN 'degraded' THEN 2 WHEN 'failing' THEN 3 ELSE 1 END)
            WHEN 0 THEN 'ok' WHEN 2 THEN 'degraded' WHEN 3 THEN 'failing' ELSE 'unknown' END AS health,
        min(n.checked_at) AS health_confirmed_at, count(*) AS checks
    FROM (
        SELECT DISTINCT ON (t.ref) t.status, t.checked_at FROM ops.healthcheck_runs AS t
        WHERE t.env = e.env AND t.checked_at > now() - interval '7 days'
        ORDER BY t.ref, t.checked_at DESC, t.version DESC
    ) AS n HAVING count(*) > 0
) AS c ON true
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(VIEW)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
