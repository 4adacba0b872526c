"""At its start the poller says which settings of the broker could lose what it finds; it may not ask the servers."""

from __future__ import annotations

import pytest

from runtime import bus, streams
from services.poller.app import audit
from tests.conftest import Broker
from tests.warned import Warned

pytestmark = pytest.mark.anyio


async def test_a_poller_names_what_could_lose_what_it_finds_and_asks_only_what_it_may(broker: Broker) -> None:
    complaints: list[str] = []

    async def heard(reason: str) -> None:
        complaints.append(reason)

    log = Warned()
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
    assert log.parts == [
        ("error", f"stream {streams.DELIVERIES}"),
        ("warning", f"stream {streams.POLLER_STREAM}"),
    ]
