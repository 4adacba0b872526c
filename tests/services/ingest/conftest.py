"""A door, open for one test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from providers.github import PROVIDER
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import GITHUB, Door, open_door
from tests.services.ingest.own_broker import OwnBroker, own_broker

if TYPE_CHECKING:
    from tests.conftest import Broker


@pytest.fixture
async def door(broker: Broker) -> AsyncIterator[Door]:
    closed = Endpoint(source_of(PROVIDER, "plane", secrets=["PLANE_WEBHOOK_SECRET"]), list)
    async with open_door(broker.url, broker.js, [*GITHUB, closed]) as opened:
        yield opened


@pytest.fixture
def stoppable() -> Iterator[OwnBroker]:
    """A broker that the test may stop."""
    if os.environ.get("SERVERS", "embedded") != "embedded":
        pytest.skip("stops the broker, which only the embedded one allows")
    with own_broker() as broker:
        yield broker
