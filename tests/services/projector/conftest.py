"""The projector's own login, for every test that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime import postgres
from tests.servers import Database


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()
