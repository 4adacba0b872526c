"""Large bodies in the object store: whole and the right one, or said to be unreadable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import pytest
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import ServiceUnavailableError

from contracts.delivery import UnreadableDelivery
from runtime import bus, streams
from runtime.streams import BODIES, BODIES_STREAM
from tests.conftest import Broker
from tests.deploy.deliveries import LARGE, delivery

pytestmark = pytest.mark.anyio

KEPT = delivery("kept", LARGE)
NAME = bus.body_object_name(KEPT)
DESCRIPTION = bus.description_subject(NAME)
PIECES_ALL = f"$O.{BODIES}.C.>"


async def test_a_large_body_comes_back_byte_for_byte(broker: Broker) -> None:
    seq, _ = await bus.store_delivery(broker.js, KEPT)
    assert LARGE == (await bus.read_delivery(broker.js, seq)).body


async def test_any_client_of_the_object_store_can_read_it(broker: Broker) -> None:
    await bus.store_delivery(broker.js, KEPT)
    found = await (await broker.js.object_store(BODIES)).get(NAME)  # compares the digest
    assert (len(found.data or b""), 3) == (found.info.size, found.info.chunks)


async def test_a_body_is_stored_once_though_its_delivery_is_sent_twice(broker: Broker) -> None:
    for _ in range(2):
        await bus.store_delivery(broker.js, KEPT)
    assert 4 == (await broker.js.stream_info(BODIES_STREAM)).state.messages


@pytest.mark.parametrize(
    "said", [nats.errors.TimeoutError(), ServiceUnavailableError()], ids=["lost", "no_leader"]
)
async def test_a_large_body_is_stored_though_its_first_question_has_no_answer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, said: Exception
) -> None:
    really, unanswered = broker.js.get_msg, [said]

    async def get_msg(*args: Any, **options: Any) -> RawStreamMsg:
        if unanswered:
            raise unanswered.pop()
        return await really(*args, **options)

    monkeypatch.setattr(streams, "RECONNECT_WAIT_S", 0.01)
    monkeypatch.setattr(broker.js, "get_msg", get_msg)
    seq, _ = await bus.store_delivery(broker.js, KEPT)
    assert LARGE == (await bus.read_delivery(broker.js, seq)).body


async def lose_all(js: JetStreamContext) -> None:
    await js.purge_stream(BODIES_STREAM)


async def lose_a_piece(js: JetStreamContext) -> None:
    await js.delete_msg(BODIES_STREAM, 2)


async def replace(js: JetStreamContext) -> None:
    other = delivery("other", LARGE[::-1])
    await bus.store_delivery(js, other)
    info = await js.get_last_msg(BODIES_STREAM, bus.description_subject(bus.body_object_name(other)))
    await js.purge_stream(BODIES_STREAM, subject=DESCRIPTION)
    await js.publish(DESCRIPTION, info.data or b"")


async def garble(js: JetStreamContext) -> None:
    await js.purge_stream(BODIES_STREAM, subject=DESCRIPTION)
    await js.publish(DESCRIPTION, b"no JSON")


@pytest.mark.parametrize(
    "harm, reason",
    [
        (lose_all, "is not in the object store"),
        (lose_a_piece, "cannot be read: 2 of 3 pieces are there"),
        (replace, "is another one"),
        (garble, "cannot be read: Expecting value"),
    ],
)
async def test_a_spoilt_body_is_unreadable(
    broker: Broker, harm: Callable[[JetStreamContext], Awaitable[None]], reason: str
) -> None:
    seq, _ = await bus.store_delivery(broker.js, KEPT)
    await harm(broker.js)
    with pytest.raises(UnreadableDelivery, match=reason):
        await bus.read_delivery(broker.js, seq)
