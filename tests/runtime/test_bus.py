"""The connection to a real broker."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from tests.conftest import Broker

pytestmark = pytest.mark.anyio

SOON_S = 10.0


async def test_who_is_cancelled_as_the_answer_comes_is_cancelled(broker: Broker) -> None:
    """Else an interrupted rebuild goes on, and whoever waits for its end waits for nothing."""
    asked = asyncio.Event()

    async def hear(_: Msg) -> None:
        asked.set()

    await broker.nc.subscribe("a.question", cb=hear)
    asking = asyncio.create_task(broker.nc.request("a.question", timeout=SOON_S))
    async with asyncio.timeout(SOON_S):
        await asked.wait()
    (answer,) = broker.nc._resp_map.values()
    answer.set_result(Msg(broker.nc, data=b"an answer"))
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
