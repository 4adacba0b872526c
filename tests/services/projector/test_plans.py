"""How Postgres finds what a batch asks for, on tables that it knows nothing of yet."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.postgres import plan_freely, share_fold_lock
from services.projector.drift import WATCHED
from tests.tables import SQL

pytestmark = pytest.mark.anyio

ASKED = {"the ledger": (SQL.known.text, "keys")} | {
    name: (watch.before.text, "rows") for name, watch in WATCHED.items()
}


async def plan(connection: AsyncConnection, asked: str) -> str:
    statement, parameter = ASKED[asked]
    rows = await connection.execute(text(f"EXPLAIN {statement}"), {parameter: "[]"})
    return "\n".join(rows.scalars())


async def test_a_batch_finds_its_rows_by_index_before_a_table_was_analyzed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await share_fold_lock(connection)
        assert [asked for asked in ASKED if "Seq Scan" in await plan(connection, asked)] == []


async def test_what_needs_all_rows_may_read_all_rows(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await share_fold_lock(connection)
        await plan_freely(connection)
        assert "Hash Join" in await plan(connection, "the ledger")
