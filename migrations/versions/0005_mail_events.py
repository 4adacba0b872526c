"""ops.mail_events: what became of each mail."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE ops.mail_events (
    ref text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    provider text COLLATE "C",
    domain text COLLATE "C",
    provider_event_id text COLLATE "C",
    event text COLLATE "C",
    env text COLLATE "C",
    message_id text COLLATE "C",
    subject text COLLATE "C",
    sender text COLLATE "C",
    recipient text COLLATE "C",
    transport text COLLATE "C",
    stamp timestamptz,
    severity text COLLATE "C",
    reason text COLLATE "C",
    code bigint,
    detail text COLLATE "C",
    attempt_no bigint,
    url text COLLATE "C",
    tags text COLLATE "C",
    test_mode boolean,
    raw text COLLATE "C",
    received_at timestamptz,
    PRIMARY KEY (ref)
) WITH (fillfactor = 80)
"""
INDEXES = (
    "CREATE INDEX mail_events_message_id ON ops.mail_events USING btree (message_id)",
    "CREATE INDEX mail_events_env ON ops.mail_events USING btree (env, stamp)",
    "CREATE INDEX mail_events_stamp ON ops.mail_events USING btree (stamp)",
)

# Subject, sender, recipient, detail, url and raw name people: the plain reader has no sight of them.
READER = (
    "GRANT SELECT (ref, source, provider, domain, provider_event_id, event, env, message_id, transport, stamp,"
    " severity, reason, code, attempt_no, tags, test_mode, received_at) ON ops.mail_events TO odooops_reader"
)
RIGHTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ops.mail_events TO odooops_projector, odooops_operator",
    "GRANT SELECT ON ops.mail_events TO odooops_reader_pii",
    READER,
)


def upgrade() -> None:
    for statement in (TABLE, *INDEXES, *RIGHTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
