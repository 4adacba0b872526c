"""How Alembic reaches the database: the migrator's login, one migration run at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

from read_models.registry import METADATA as OPS
from runtime.postgres import make_engine
from services.notifier.memory import METADATA as NOTIFY

MIGRATION_LOCK = 0x0D00_0001
OURS = {"ops", "notify", "projector"}


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Look at our own schemas only."""
    return name in OURS if kind == "schema" else True


def migrate(connection: Connection) -> None:
    """Bring the database up to the newest revision, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=[OPS, NOTIFY],
        include_schemas=True,
        include_name=include_name,
        compare_type=True,
        compare_server_default=True,
    )
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


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(online())
