"""The projector's pull, on a real broker."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import bus, streams
from runtime.bus import Message
from runtime.pull import ConsumerGone, Pull
from tests.conftest import Broker
from tests.servers import in_thread
from tests.services.ingest.own_broker import own_broker

pytestmark = pytest.mark.anyio

LONG_S = 60.0
SOON_S = 10.0


async def stored(broker: Broker, count: int) -> None:
    for n in range(count):
        await broker.js.publish("deliveries.test.kind", b"%d" % n)


async def test_the_first_message_comes_without_waiting_for_a_full_batch(broker: Broker) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 100)
    waiting = asyncio.create_task(pull.fetch(LONG_S))
    await stored(broker, 1)

    assert [b"0"] == [message.data for message in await asyncio.wait_for(waiting, SOON_S)]
    await nc.close()


async def test_everything_comes_once_in_batches_of_at_most_the_count(broker: Broker) -> None:
    await stored(broker, 250)
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 100)
    seen: list[bytes] = []
    async with asyncio.timeout(SOON_S):
        while len(seen) < 250:
            batch = await pull.fetch(LONG_S)
            assert 0 < len(batch) <= 100
            seen += [message.data for message in batch]

    assert [b"%d" % n for n in range(250)] == seen
    await nc.close()


async def test_a_batch_is_full_where_the_log_has_enough(broker: Broker) -> None:
    """A full one takes many reads from the socket; three small ones would cost three transactions."""
    large = b"x" * 20_000
    messages = [Message("deliveries.test.kind", large, {"Nats-Msg-Id": f"large-{n}"}) for n in range(120)]
    await bus.publish_all(broker.nc, streams.DELIVERIES, messages)
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 50)

    assert [50, 50, 20] == [len(await pull.fetch(LONG_S)) for _ in range(3)]
    await nc.close()


async def test_a_batch_does_not_wait_for_what_the_broker_keeps_back(broker: Broker) -> None:
    found = await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    await broker.js.add_consumer(streams.DELIVERIES, found.config.evolve(max_ack_pending=3))
    await stored(broker, 10)
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10)

    assert 3 == len(await asyncio.wait_for(pull.fetch(LONG_S), SOON_S))
    await nc.close()


async def test_headers_and_sequences_arrive_as_they_are(broker: Broker) -> None:
    headers = {
        "Nats-Msg-Id": "one",
        "sender-link": '<https://a.example/?b=c>; rel="next"',
        "sender-name": "Jörg",
    }
    stored_as = await broker.js.publish("deliveries.test.kind", b"{}", headers=headers)
    nc = await bus.connect(broker.url("projector"), "projector")

    (message,) = await Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 100).fetch(LONG_S)

    assert headers == message.headers
    assert stored_as.seq == message.metadata.sequence.stream == bus.sequence_of(message)
    assert 0 == message.metadata.num_pending == bus.waiting_behind(message)
    await nc.close()


@pytest.mark.parametrize("place", ["domain.account.", "_.account."])
async def test_where_a_message_stands_is_known_in_a_domain_too(place: str) -> None:
    message = Msg(Client(), reply=f"$JS.ACK.{place}DELIVERIES.projector.1.77.5.1700000000000000000.3.token")

    assert 77 == message.metadata.sequence.stream == bus.sequence_of(message)
    assert 3 == message.metadata.num_pending == bus.waiting_behind(message)


async def test_nothing_there_is_an_empty_batch(broker: Broker) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")

    assert [] == await Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10).fetch(0.05)
    await nc.close()


async def test_a_deleted_consumer_is_an_error_and_not_a_silence(broker: Broker) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10)
    waiting = asyncio.create_task(pull.fetch(LONG_S))
    await broker.js.publish("deliveries.test.kind", b"first")
    await asyncio.wait_for(waiting, SOON_S)

    await broker.js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)

    for _ in range(2):
        with pytest.raises(ConsumerGone):
            await asyncio.wait_for(pull.fetch(LONG_S), SOON_S)
    await nc.close()


async def test_a_failure_between_two_fetches_is_told_at_once(broker: Broker) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10)
    assert [] == await pull.fetch(0.05)
    await broker.js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)
    await asyncio.wait_for(_until_failed(pull), SOON_S)

    with pytest.raises(ConsumerGone):
        await asyncio.wait_for(pull.fetch(LONG_S), SOON_S)
    await nc.close()


async def test_what_was_pulled_and_not_fetched_goes_back_at_once(broker: Broker) -> None:
    await stored(broker, 3)
    first = await bus.connect(broker.url("projector"), "projector")
    leaving = Pull(first, streams.DELIVERIES, streams.PROJECTOR, 10)
    await leaving._ask()
    await asyncio.wait_for(_until_pulled(broker, 3), SOON_S)
    await first.flush()
    await leaving.close()
    await first.close()

    assert {b"0", b"1", b"2"} == await _fetched(broker, 3)


async def test_what_is_on_its_way_when_the_pull_is_closed_goes_back_at_once(broker: Broker) -> None:
    await stored(broker, 3)
    first = await bus.connect(broker.url("projector"), "projector")
    leaving = Pull(first, streams.DELIVERIES, streams.PROJECTOR, 10)
    await leaving._ask()
    await first._flush_pending(force_flush=True)
    # Meanwhile nothing is read here: the messages are sent, and not yet taken, when the pull is closed.
    in_thread(lambda: asyncio.run(_until_sent(broker.url("operator"), 3)))
    await leaving.close()
    await first.close()

    assert {b"0", b"1", b"2"} == await _fetched(broker, 3)


async def test_a_broker_that_says_nothing_holds_no_close_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pull.CLOSE_S_MAX", 0.05)
    with own_broker() as broker:
        await broker.start()
        async with broker.operator():
            nc = await bus.connect(broker.url("projector"), "projector")
            pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10)
            assert [] == await pull.fetch(0.05)
            broker.pause()
            await asyncio.wait_for(pull.close(), 1.0)
            broker.resume()
            await nc.close()


async def _fetched(broker: Broker, count: int) -> set[bytes]:
    """What another process gets."""
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 10)
    fetched: set[bytes] = set()
    async with asyncio.timeout(SOON_S):
        while len(fetched) < count:
            fetched |= {message.data for message in await pull.fetch(LONG_S)}
    await nc.close()
    return fetched


async def _until_sent(url: str, count: int) -> None:
    nc = await bus.connect(url, "operator")
    js = nc.jetstream()
    async with asyncio.timeout(SOON_S):
        while (await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)).num_ack_pending < count:
            await asyncio.sleep(0.01)
    await nc.close()


async def _until_pulled(broker: Broker, count: int) -> None:
    while (await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)).num_ack_pending < count:
        await asyncio.sleep(0.01)


async def _until_failed(pull: Pull) -> None:
    while pull._failure is None:
        await asyncio.sleep(0.01)


async def test_who_is_cancelled_as_a_message_comes_is_cancelled_and_loses_no_message(broker: Broker) -> None:
    nc = await bus.connect(broker.url("projector"), "projector")
    pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, 100)
    take, fetching = pull._take, asyncio.create_task(pull.fetch(LONG_S))

    async def cancelled_with_it(message: Msg) -> None:
        await take(message)
        fetching.cancel()

    pull._take = cancelled_with_it  # type: ignore[method-assign]
    await stored(broker, 1)

    async with asyncio.timeout(SOON_S):
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert [b"0"] == [message.data for message in await pull.fetch(LONG_S)]
    await nc.close()
