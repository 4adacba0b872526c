"""What `ops.*` holds, for comparing one way of folding a log with another."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from read_models.registry import READ_MODELS, TABLES

Snapshot = dict[str, list[dict[str, Any]]]


async def snapshot(engine: AsyncEngine) -> Snapshot:
    """Every row of every read model by key, without the columns that count work rather than state the log."""
    found: Snapshot = {}
    async with engine.connect() as connection:
        for model in READ_MODELS:
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
    async with engine.begin() as connection:
        for model in READ_MODELS:
            if not models or model.name in models:
                await connection.execute(text(f"DELETE FROM ops.{model.name}"))
