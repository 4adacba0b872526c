"""and the catalogues of SSOT: integrations, capabilities, starters"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.integrations_catalog (
    ref text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    declared_version bigint[] DEFAULT '{}' NOT NULL,
    name text COLLATE "C",
    category text COLLATE "C",
    provider text COLLATE "C",
    description text COLLATE "C",
    baseline_allowed boolean,
    plan_tier text COLLATE "C",
    cost_band text COLLATE "C",
    vendor_lock_in text COLLATE "C",
    capabilities text[] COLLATE "C",
    surfaces text[] COLLATE "C",
    env_keys text[] COLLATE "C",
    docs_url text COLLATE "C",
    notes text COLLATE "C",
    declared_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.integrations_installations (
    ref text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    declared_version bigint[] DEFAULT '{}' NOT NULL,
    declared_status text COLLATE "C",
    billing text COLLATE "C",
    observed_version bigint[] DEFAULT '{}' NOT NULL,
    observed_status text COLLATE "C",
    provider_status text COLLATE "C",
    evidence jsonb,
    last_checked_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.capabilities (
    ref text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    declared_version bigint[] DEFAULT '{}' NOT NULL,
    name text COLLATE "C",
    category text COLLATE "C",
    declared_maturity text COLLATE "C",
    data_source text COLLATE "C",
    baseline_allowed boolean,
    surfaces text[] COLLATE "C",
    description text COLLATE "C",
    observed_version bigint[] DEFAULT '{}' NOT NULL,
    observed_maturity text COLLATE "C",
    evidence jsonb,
    last_checked_at timestamptz,
    declared_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
CREATE TABLE ops.starters (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    slug text COLLATE "C",
    declared_version bigint[] DEFAULT '{}' NOT NULL,
    title text COLLATE "C",
    description text COLLATE "C",
    framework text COLLATE "C",
    tags text[] COLLATE "C",
    deploy_url text COLLATE "C",
    demo_url text COLLATE "C",
    repo_path text COLLATE "C",
    observed_version bigint[] DEFAULT '{}' NOT NULL,
    available boolean,
    content_sha256 text COLLATE "C",
    last_checked_at timestamptz,
    declared_at timestamptz,
    last_seen_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80);
"""

# Gone: a listing that began after the entry was last declared or seen did not show it.
VIEWS = """
CREATE VIEW ops.integrations_view AS
SELECT
    c.ref,
    c.key,
    c.name,
    c.category,
    c.provider,
    c.description,
    c.baseline_allowed,
    c.plan_tier,
    c.cost_band,
    c.vendor_lock_in,
    c.capabilities,
    c.surfaces,
    c.env_keys,
    c.docs_url,
    c.notes,
    COALESCE(i.observed_status, i.declared_status, 'inactive') AS status,
    COALESCE(i.billing, 'direct') AS billing,
    COALESCE(i.evidence, '{}'::jsonb) AS evidence,
    i.last_checked_at,
    i.declared_status,
    i.observed_status,
    i.provider_status,
    c.declared_at,
    c.last_seen_at,
    COALESCE(GREATEST(c.declared_at, c.last_seen_at) < l.last_listing_at, false) AS gone
FROM ops.integrations_catalog AS c
LEFT JOIN ops.integrations_installations AS i ON i.ref = c.ref
LEFT JOIN ops.freshness AS l ON l.source = 'odooops' AND l.scope = 'ssot/integration';
CREATE VIEW ops.capabilities_now AS
SELECT
    c.*,
    COALESCE(c.observed_maturity, c.declared_maturity) AS maturity,
    COALESCE(GREATEST(c.declared_at, c.last_seen_at) < l.last_listing_at, false) AS gone
FROM ops.capabilities AS c
LEFT JOIN ops.freshness AS l ON l.source = 'odooops' AND l.scope = 'ssot/capability';
CREATE VIEW ops.starters_now AS
SELECT
    s.*,
    COALESCE(GREATEST(s.declared_at, s.last_seen_at) < l.last_listing_at, false) AS gone
FROM ops.starters AS s
LEFT JOIN ops.freshness AS l ON l.source = 'odooops' AND l.scope = 'ssot/starter';
"""

RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.integrations_catalog, ops.integrations_installations,
    ops.capabilities, ops.starters TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.integrations_view, ops.capabilities_now, ops.starters_now TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.integrations_catalog, ops.integrations_installations, ops.capabilities, ops.starters,
    ops.integrations_view, ops.capabilities_now, ops.starters_now TO odooops_reader, odooops_reader_pii;
"""


def upgrade() -> None:
    for script in (TABLES, VIEWS, RIGHTS):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
