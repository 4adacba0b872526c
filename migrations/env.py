"""How Alembic reaches the database: the migrator's login, one migration run at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

from migrations.schema import OPTIONS
from runtime.postgres import make_engine

MIGRATION_LOCK = 0x0D00_0001

# A rebuild puts new tables in the place of old ones, which only their owner may. What a migration makes belongs to
# whoever runs it, so it is handed over at the end of each run; a run that ends before there is such an owner has none
# to hand it to.
HAND_OVER = """
DO $$ DECLARE found record; BEGIN
    IF to_regrole('odooops_owner') IS NULL THEN
        RETURN;
    END IF;
    IF (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'ops') <> 'odooops_owner' THEN
        ALTER SCHEMA ops OWNER TO odooops_owner;
    END IF;
    FOR found IN
        SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind FROM pg_class AS c
        WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v')
            AND c.relowner <> 'odooops_owner'::regrole
    LOOP
        EXECUTE format('ALTER %s ops.%I OWNER TO odooops_owner', found.kind, found.relname);
    END LOOP;
END $$
"""


def migrate(connection: Connection) -> None:
    """Bring the database up to the newest revision, in one transaction."""
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()
        connection.execute(text(HAND_OVER))


async def online() -> None:
    """Connect, migrate, leave."""
    engine = make_engine(context.config.attributes["url"], "migrations")
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(online())
