"""ops.environments_now: where each environment runs, what it runs and how it is"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEX = "CREATE INDEX deployments_env ON ops.deployments USING btree (env, deployed_at)"

# One row for each environment, whether anything is known of it or not: NULL is "not known", and nothing is guessed.
# What serves an environment is what was deployed or promoted to it last.
# Health is the worst of the newest word of every check in the last week; an older one says nothing about now.
VIEW = """
CREATE VIEW ops.environments_now AS
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
        SELECT t.commit_sha, t.ref, t.repository, t.project, t.url, s.changed_at
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
    op.execute(INDEX)
    op.execute(VIEW)
    op.execute("GRANT SELECT ON ops.environments_now TO odooops_operator, odooops_reader, odooops_reader_pii")


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
