"""What a change of code would do to the live tables is named, and nothing is done."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime import postgres
from services.projector.preview import look
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.rebuilding import entries, mixed, working
from tests.services.projector.running import project_all, store_batch
from tests.tables import count

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def test_the_same_code_changes_nothing(broker: Broker, database: Database, engine: AsyncEngine) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    async with working(broker, database) as work:
        found = await look(work, await entries(work), limit=5)
    assert [] == [each for each in found.compared if not each.equal]
    assert (0, (), ()) == (sum(each.missing for each in found.compared), found.wide, found.new)
    assert await count(engine, "deliveries", "status IN ('projected', 'ignored', 'parked')") == found.read
    assert await count(engine, "work_items") == sum(
        each.rows for each in found.compared if each.model == "work_items"
    )
