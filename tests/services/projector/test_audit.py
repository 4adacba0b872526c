"""At its start the projector says which settings could lose something, and works on."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime import bus, streams
from services.projector.app import Projector
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.warned import Warned

pytestmark = pytest.mark.anyio


async def test_a_projector_names_each_setting_once_the_worst_first(
    broker: Broker, engine: AsyncEngine
) -> None:
    info = await broker.js.stream_info(streams.DELIVERIES)
    await broker.js.update_stream(info.config, duplicate_window=60.0, allow_atomic=False)
    nc = await bus.connect(broker.url("projector"), "projector")
    log = Warned()
    try:
        await Projector(nc, engine, SOURCES, log, asyncio.Event()).audit()
    finally:
        await nc.close()
    # The tests' own Postgres runs without fsync. What is harmless is not said.
    assert [(each["event"], each["severity"], each["part"]) for each in log.warnings] == [
        ("settings", "error", "database"),
        ("settings", "warning", "stream DELIVERIES"),
    ]
    assert all(each["says"] and each["could_lose"] and each["mend"] for each in log.warnings)


async def test_a_projector_whose_broker_is_away_says_that_nothing_is_known(
    broker: Broker, engine: AsyncEngine
) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")
    log = Warned()
    projector = Projector(nc, engine, SOURCES, log, asyncio.Event())
    await nc.close()
    await projector.audit()
    assert ("unknown", "broker") in log.parts
