"""Keys and values on a real broker, written and read by the poller's login."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtime import bus, streams
from runtime.bucket import Bucket, Moved
from runtime.bus import BrokerAway, LogFull
from tests.conftest import Broker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bucket(broker: Broker) -> AsyncIterator[Bucket]:
    nc = await bus.connect(broker.url("poller"), "poller")
    yield Bucket(nc.jetstream())
    await nc.close()


async def test_a_value_is_read_as_it_was_written(bucket: Bucket) -> None:
    assert await bucket.get("a.b") == (None, 0)
    await bucket.put("a.b", b"\0value")
    await bucket.put("a.c", b"")
    assert await bucket.get("a.b") == (b"\0value", 1)
    assert await bucket.get("a.c") == (b"", 2)


async def test_an_update_is_taken_only_at_the_revision_that_it_names(bucket: Bucket) -> None:
    first = await bucket.update("a", b"1", 0)
    for revision in (0, first + 1):
        with pytest.raises(Moved):
            await bucket.update("a", b"2", revision)
    second = await bucket.update("a", b"3", first)
    assert await bucket.get("a") == (b"3", second)


async def test_of_updates_at_once_one_is_taken(bucket: Bucket) -> None:
    updates = (bucket.update("a", b"%d" % n, 0) for n in range(20))
    outcomes = await asyncio.gather(*updates, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(int) == 1
    assert [type(outcome) for outcome in outcomes].count(Moved) == 19


async def test_what_an_operator_removed_is_none_and_may_be_written_again(
    bucket: Bucket, broker: Broker
) -> None:
    await bucket.put("a", b"1")
    await (await broker.js.key_value(streams.POLLER_BUCKET)).delete("a")
    value, revision = await bucket.get("a")
    assert (value, revision) == (None, 2)
    assert await bucket.update("a", b"2", revision) == 3


async def test_a_bucket_that_is_missing_or_full_is_said(bucket: Bucket, broker: Broker) -> None:
    info = await broker.js.stream_info(streams.POLLER_STREAM)
    await broker.js.update_stream(info.config, max_msgs=1)
    await bucket.put("a", b"1")
    with pytest.raises(LogFull):
        await bucket.put("b", b"1")
    await broker.js.delete_stream(streams.POLLER_STREAM)
    with pytest.raises(BrokerAway, match=streams.POLLER_STREAM):
        await bucket.get("a")
