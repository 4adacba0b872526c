"""What `ops.*` holds, for comparing one way of folding a log with another."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from read_models.registry import READ_MODELS, TABLES
from services.projector.sql import Sql

SQL = Sql.of()
"""The statements that write into `ops`."""

Snapshot = dict[str, list[dict[str, Any]]]

_FILLED = text(
    " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM ops.{name})" for name in TABLES)
)


async def snapshot(engine: AsyncEngine) -> Snapshot:
    """Every row of every read model by key, without the columns that count work rather than state the log."""
    found: Snapshot = {model.name: [] for model in READ_MODELS}
    async with engine.connect() as connection:
        # Most of the tables are empty most of the time: one question about all of them, and one about each other.
        filled = {*(await connection.execute(_FILLED)).scalars()}
        for model in READ_MODELS:
            if model.name in filled:
                table = TABLES[model.name]
                columns = [table.c[column.name] for column in model.columns if not column.rule.operational]
                order = [table.c[name] for name in model.key]
                rows = await connection.execute(select(*columns).order_by(*order))
                found[model.name] = [dict(row._mapping) for row in rows]
    return found


async def count(engine: AsyncEngine, table: str, where: str = "true") -> int:
    """How many rows of `ops.<table>` fulfil a condition."""
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM ops.{table} WHERE {where}"))
        return int(found.scalar_one())


async def empty(engine: AsyncEngine, models: Collection[str] = ()) -> None:
    """Forget every row, or those of some models."""
    deletes = [f"DELETE FROM ops.{each.name}" for each in READ_MODELS if not models or each.name in models]
    async with engine.begin() as connection:
        await connection.execute(text(f"DO $$ BEGIN {'; '.join(deletes)}; END $$"))
