"""Erasing overwrites: not even the broker's files hold the text any more."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from nats.js.errors import APIError

from runtime import bus, streams
from runtime.bus import Message
from runtime.erase import erase_body, erase_message
from runtime.streams import BODIES_STREAM, DELIVERIES
from tests.conftest import Broker
from tests.deploy.deliveries import LARGE, delivery
from tests.services.ingest.own_broker import own_broker

pytestmark = pytest.mark.anyio

BLOCK_FILLED_COUNT = 4_000
"""Messages of FILLER after which the broker closes a file, compresses it, and begins another."""
FILLER_BYTES = 2_400


def holding(folder: Path, mark: bytes) -> list[str]:
    """The broker's files in which a text stands as it is."""
    return [path.name for path in folder.rglob("*.*") if path.is_file() and mark in path.read_bytes()]


async def test_an_erased_message_is_in_no_file_of_the_brokers(anyio_backend: object) -> None:
    # A text that compresses badly stands in a compressed file as it is.
    mark = uuid4().hex.encode()
    with own_broker() as server:
        await server.start()
        async with server.operator() as js:
            await bus.store_delivery(js, delivery("old", mark))
            filler = [
                Message(
                    "deliveries.github.ping", uuid4().bytes * (FILLER_BYTES // 16), {"Nats-Msg-Id": str(n)}
                )
                for n in range(BLOCK_FILLED_COUNT)
            ]
            await bus.publish_all(js._nc, DELIVERIES, filler)
            newest, _ = await bus.store_delivery(js, delivery("new", mark))
            assert 2 == len(holding(server.folder, mark))
            for left, seq in ((1, newest), (0, 1)):
                assert await erase_message(js, DELIVERIES, seq)
                assert left == len(holding(server.folder, mark))


async def test_what_is_not_there_is_no_error(broker: Broker) -> None:
    seq, _ = await bus.store_delivery(broker.js, delivery("one", b"{}"))
    assert await erase_message(broker.js, DELIVERIES, seq)
    for gone in (seq, seq + 7):
        assert not await erase_message(broker.js, DELIVERIES, gone)
    assert 0 == await erase_body(broker.js, "none of this name")


async def test_a_stream_that_refuses_is_an_error(broker: Broker) -> None:
    seq, _ = await bus.store_delivery(broker.js, delivery("one", b"{}"))
    config = (await broker.js.stream_info(DELIVERIES)).config
    await broker.js.update_stream(config.evolve(sealed=True))
    with pytest.raises(APIError):
        await erase_message(broker.js, DELIVERIES, seq)


async def test_a_large_body_goes_with_all_its_pieces_and_an_equal_one_of_another_delivery_stays(
    broker: Broker,
) -> None:
    for identity in ("one", "two"):
        await bus.store_delivery(broker.js, delivery(identity, LARGE))
    assert 4 == await erase_body(broker.js, bus.body_object_name(delivery("one", LARGE)))
    assert 4 == (await broker.js.stream_info(BODIES_STREAM)).state.messages
    assert LARGE == (await bus.read_delivery(broker.js, 2)).body


async def test_a_body_that_was_erased_in_part_or_stored_twice_goes_as_well(broker: Broker) -> None:
    name = bus.body_object_name(delivery("one", LARGE))
    await bus.store_delivery(broker.js, delivery("one", LARGE))
    # Two processes that store it at the same time both find nothing there before.
    found = await broker.js.get_last_msg(BODIES_STREAM, bus.description_subject(name))
    await broker.js.publish(bus.description_subject(name), found.data or b"")
    await broker.js.publish(bus.description_subject(name), b"no JSON")
    await erase_message(broker.js, BODIES_STREAM, 1)
    assert 5 == await erase_body(broker.js, name)
    assert 0 == (await broker.js.stream_info(streams.BODIES_STREAM)).state.messages
