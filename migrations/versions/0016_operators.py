"""An owner of ops as which operators swap tables, exclusions of leaked secrets, and the projector's own notes"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Roles belong to the cluster, not to the database: another database may have made it already, even just now.
OWNER = """
DO $$ BEGIN
    BEGIN
        CREATE ROLE odooops_owner NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    EXECUTE format('GRANT odooops_owner TO %I, odooops_operator', current_user);
    EXECUTE format('GRANT CREATE ON DATABASE %I TO odooops_owner', current_database());
END $$
"""

TABLES = """
CREATE TABLE ops.secret_exclusions (
    event_id text COLLATE "C" NOT NULL,
    ref text COLLATE "C",
    secret text COLLATE "C",
    since timestamptz,
    until timestamptz,
    why text COLLATE "C",
    actor text COLLATE "C",
    excluded_at timestamptz,
    PRIMARY KEY (event_id)
) WITH (fillfactor = 80);
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.secret_exclusions TO odooops_projector, odooops_operator;
GRANT SELECT ON ops.secret_exclusions TO odooops_reader, odooops_reader_pii;
CREATE SCHEMA projector;
CREATE TABLE projector.models (
    model text COLLATE "C" PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN projector.models.fingerprint IS
    'of the code and SSOT that made all rows of the model; empty where that is not known';
GRANT USAGE ON SCHEMA projector TO odooops_projector, odooops_operator, odooops_reader, odooops_reader_pii;
GRANT SELECT, INSERT, UPDATE, DELETE ON projector.models TO odooops_projector, odooops_operator;
GRANT SELECT ON projector.models TO odooops_reader, odooops_reader_pii;
GRANT UPDATE (text, blocks, last_error) ON notify.messages TO odooops_operator
"""


def upgrade() -> None:
    op.execute(OWNER)
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
