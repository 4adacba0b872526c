"""ops.deployments_now says which environment a deployment serves, since a promotion leaves its own target behind"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# live_env: where traffic reaches it now; `env` is where it was made for.
VIEW = """
CREATE OR REPLACE VIEW ops.deployments_now AS
SELECT t.*,
    t.status IS NOT DISTINCT FROM 'cancelled' AND EXISTS (
        SELECT FROM ops.deployments AS newer
        WHERE newer.project_id = t.project_id AND newer.environment = t.environment
            AND newer.git_ref = t.git_ref AND newer.created_at > t.created_at
    ) AS superseded,
    (
        SELECT bool_or(served.deployment_ref = t.ref) FROM ops.deployment_targets AS served
        WHERE served.project_id = t.project_id
    ) AS live,
    (
        SELECT min(served.env) FROM ops.deployment_targets AS served WHERE served.deployment_ref = t.ref
    ) AS live_env
FROM ops.deployments AS t
"""


def upgrade() -> None:
    op.execute(VIEW)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
