"""The place that a notifier works in, new for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.services.notifier.running import Place, hurry
from tests.slack_double import SlackDouble

if TYPE_CHECKING:
    from tests.conftest import Broker
    from tests.servers import Database


@pytest.fixture
async def place(broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    hurry(monkeypatch)
    with SlackDouble() as slack:
        made = Place(broker, database, slack)
        yield made
        await made.engine.dispose()
