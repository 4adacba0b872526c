"""Snapshots of streams larger than what is on its way at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError

from runtime import bus, snapshot, streams
from runtime.bus import BrokerAway, Message
from tests.conftest import Broker

pytestmark = pytest.mark.anyio

COUNT = 300
BODY_BYTES = 60_000
"""Of random bytes, so that all of it is 18 MB: more than a broker has on its way unconfirmed."""


async def gathered(pieces: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in pieces]


async def test_a_long_snapshot_comes_in_pieces_and_makes_the_same_stream(broker: Broker) -> None:
    sent = [
        Message("deliveries.github.push", os.urandom(BODY_BYTES), {"Nats-Msg-Id": str(n)})
        for n in range(COUNT)
    ]
    await bus.publish_all(broker.nc, streams.DELIVERIES, sent)
    said, coming = await snapshot.take(broker.nc, streams.DELIVERIES, consumers=False)
    pieces = await gathered(coming)
    assert COUNT == said["state"]["messages"]
    assert COUNT * BODY_BYTES < sum(map(len, pieces))
    assert max(map(len, pieces)) <= snapshot.PIECE_BYTES
    await broker.js.delete_stream(streams.DELIVERIES)

    # Cut off, it makes nothing; nor does what is no snapshot.
    with pytest.raises(APIError):
        await snapshot.give(broker.nc, said["config"], said["state"], pieces[:5])
    with pytest.raises(NotFoundError):
        await snapshot.info(broker.nc, streams.DELIVERIES)
    made = await snapshot.give(broker.nc, said["config"], said["state"], pieces)
    for key in ("messages", "first_seq", "last_seq", "bytes"):
        assert said["state"][key] == made["state"][key]
    last = await broker.js.get_msg(streams.DELIVERIES, COUNT)
    assert sent[-1].data == last.data
    # The projector's consumer was left out.
    assert [] == await broker.js.consumers_info(streams.DELIVERIES)


async def test_a_snapshot_that_the_broker_gives_up_is_none(broker: Broker) -> None:
    ended: Any = Msg(_client=broker.nc, headers={"Status": "408", "Description": "No Flow Response"})
    with pytest.raises(BrokerAway, match="gave up the snapshot of DELIVERIES: No Flow Response"):
        snapshot._require_end(ended, streams.DELIVERIES)


async def test_a_connection_that_is_lost_is_not_called_a_long_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for an answer then is told so at once, by the same error."""

    async def lost(*_: object, **__: object) -> Msg:
        raise nats.errors.TimeoutError

    nc = Client()
    monkeypatch.setattr(nc, "request", lost)
    with pytest.raises(BrokerAway, match="or the connection to it was lost"):
        await snapshot.info(nc, streams.DELIVERIES)


async def test_a_stream_that_is_not_there_has_no_snapshot(broker: Broker) -> None:
    with pytest.raises(NotFoundError):
        await snapshot.take(broker.nc, "NOTHING", consumers=False)
