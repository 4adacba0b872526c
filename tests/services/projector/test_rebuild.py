"""Rebuilding on real servers: the result is what the live tables are, and readers and projectors notice nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime import postgres
from services.projector.rebuild import rebuild
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.rebuilding import mixed, working
from tests.services.projector.running import project_all, store_batch
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def test_a_rebuild_finds_no_difference_and_leaves_the_same_rows(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    before = await snapshot(engine)

    async with working(broker, database) as work:
        done = await rebuild(work, limit=5, dry_run=False)

    assert [] == [each for each in done.compared if not each.equal]
    assert before == await snapshot(engine)
    assert done.kept is not None


async def test_a_row_changed_by_hand_is_named_with_both_values(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.work_items SET title = 'by hand' WHERE title IS NOT NULL"))
    changed = await count(engine, "work_items", "title = 'by hand'")

    async with working(broker, database) as work:
        found = await rebuild(work, limit=3, dry_run=True)

    (compared,) = [each for each in found.compared if not each.equal]
    assert ("work_items", changed, 3) == (compared.model, compared.changed, len(compared.differences))
    assert [["title"]] * 3 == [list(each.live or {}) for each in compared.differences]
    assert changed == await count(engine, "work_items", "title = 'by hand'")
