"""At its start the poller says which settings of the broker could lose what it finds; it may not ask the servers."""

from __future__ import annotations

from typing import Any

import pytest

from runtime import bus, streams
from services.poller.app import audit
from tests.conftest import Broker

pytestmark = pytest.mark.anyio


class Log:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, event: str, **words: Any) -> None:
        self.warnings.append({"event": event, **words})


async def test_a_poller_names_what_could_lose_what_it_finds_and_asks_only_what_it_may(broker: Broker) -> None:
    complaints: list[str] = []

    async def heard(reason: str) -> None:
        complaints.append(reason)

    log = Log()
    nc = await bus.connect(broker.url("poller"), "poller", heard)
    try:
        await audit(nc, log)
        assert log.warnings == []
        config = (await broker.js.stream_info(streams.POLLER_STREAM)).config
        await broker.js.update_stream(config.evolve(allow_rollup_hdrs=True))
        await broker.js.delete_stream(streams.DELIVERIES)
        await audit(nc, log)
        assert complaints == []
    finally:
        await nc.close()
    assert [(each["severity"], each["part"]) for each in log.warnings] == [
        ("error", f"stream {streams.DELIVERIES}"),
        ("warning", f"stream {streams.POLLER_STREAM}"),
    ]
