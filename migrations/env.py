"""How Alembic reaches the database: the migrator's login, one migration run at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

from migrations.schema import OPTIONS
from runtime.postgres import make_engine

MIGRATION_LOCK = 0x0D00_0001


def migrate(connection: Connection) -> None:
    """Bring the database up to the newest revision, in one transaction."""
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()


async def online() -> None:
    """Connect, migrate, leave."""
    engine = make_engine(context.config.attributes["url"], "migrations")
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(online())
