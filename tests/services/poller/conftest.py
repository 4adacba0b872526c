"""Broker and API of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import wait_none

from runtime import bus, postgres
from runtime import http as outgoing
from runtime.http import HttpClient
from tests.api import Api
from tests.conftest import Broker
from tests.servers import Database
from tests.services.poller.running import Shop


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "_backoff_s", wait_none())


@pytest.fixture
async def store(broker: Broker) -> AsyncIterator[Shop]:
    complaints: list[str] = []

    async def heard(complaint: str) -> None:
        complaints.append(complaint)

    nc = await bus.connect(broker.url("poller"), "poller", heard)
    try:
        with Api() as api:
            async with HttpClient() as http:
                yield Shop(broker, nc, http, api)
    finally:
        await nc.close()
    # Whatever a poller does, its own login is enough for.
    assert [] == [each for each in complaints if "ermission" in each]


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()
