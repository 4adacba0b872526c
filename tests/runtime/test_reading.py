"""Reading a stream from front to back on a real broker: nothing is left out, whatever happens on the way."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg

from runtime import streams
from runtime.bus import sequence_of
from runtime.pull import Pull
from runtime.reading import Reading
from tests.conftest import Broker

pytestmark = pytest.mark.anyio

SUBJECT = "deliveries.github.issues"


async def publish(broker: Broker, count: int) -> int:
    """Store so many messages; the last sequence."""
    for _ in range(count):
        last = (await broker.js.publish(SUBJECT, b"x")).seq
    return last


async def read(reading: Reading, last: int) -> list[int]:
    """The sequences up to `last`."""
    return [sequence_of(message) async for messages in reading.upto(last) for message in messages]


async def test_what_came_while_the_reader_was_open_is_read(broker: Broker) -> None:
    reading = Reading(broker.nc, streams.DELIVERIES)
    assert [1] == await read(reading, await publish(broker, 1))
    for first in range(2, 40, 4):  # each is sent at once, as the last one that there is
        last = await publish(broker, 4)
        await broker.nc.flush()
        assert list(range(first, last + 1)) == await read(reading, last)
    await reading.close()


async def test_what_was_lost_on_the_way_is_read_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, lost = Pull.fetch, list[Msg]()

    async def losing(self: Pull, wait_s: float, most: int | None = None) -> list[Msg]:
        messages = await fetch(self, wait_s, most)
        if not lost and len(messages) > 1:
            lost.append(messages.pop(0))
        return messages

    monkeypatch.setattr(Pull, "fetch", losing)
    last = await publish(broker, 20)
    reading = Reading(broker.nc, streams.DELIVERIES)
    assert list(range(1, last + 1)) == await read(reading, last)
    assert lost
    await reading.close()


async def test_no_more_is_sent_than_stands_where_it_reads_to(broker: Broker) -> None:
    await publish(broker, 200)
    reading = Reading(broker.nc, streams.DELIVERIES)

    assert list(range(1, 101)) == await read(reading, 100)

    sent = [
        each.delivered.consumer_seq
        for each in await broker.js.consumers_info(streams.DELIVERIES)
        if each.name != streams.PROJECTOR and each.delivered is not None
    ]
    assert [100] == sent
    await reading.close()


async def test_a_broker_that_forgot_the_reader_is_asked_again_and_gaps_are_passed_over(
    broker: Broker,
) -> None:
    last = await publish(broker, 5)
    reading = Reading(broker.nc, streams.DELIVERIES)
    assert [1, 2, 3] == await read(reading, 3)
    for consumer in await broker.js.consumers_info(streams.DELIVERIES):
        if str(consumer.name).startswith("reading_"):
            await broker.js.delete_consumer(streams.DELIVERIES, str(consumer.name))
    await publish(broker, 3)
    for erased in (7, 8):
        await broker.js.delete_msg(streams.DELIVERIES, erased)
    assert [4, 5, 6] == await read(reading, 8)
    assert (last, 8) == (5, reading.position)
    await reading.close()
