"""The connection to a real broker."""

from __future__ import annotations

import asyncio

import nats
import pytest
from nats.aio.msg import Msg
from nats.errors import BadHeaderError

from runtime import streams
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


@pytest.mark.parametrize(
    "headers",
    [
        {"ce-id": "one", "Sender-x-github-event": "issues"},
        {"empty": "", "percent": "%0D%0A", "sentence": "a: b, c"},
        {"umlaut": "Jörg", "blanks": "  in between  "},
        {"injected": "one\r\nOther: two"},
        {"line": "one\ntwo", "carriage": "one\rtwo", "separator": "a\x85b"},
    ],
)
async def test_headers_go_out_as_nats_py_itself_writes_them(broker: Broker, headers: dict[str, str]) -> None:
    ours = await broker.js.publish("deliveries.test.kind", b"{}", headers=dict(headers))
    async with await nats.connect(broker.url("operator")) as plain:
        its = await plain.jetstream().publish("deliveries.test.kind", b"{}", headers=dict(headers))

    stored = [await broker.js.get_msg(streams.DELIVERIES, ack.seq) for ack in (ours, its)]

    assert stored[0].headers == stored[1].headers
    assert {b"{}"} == {message.data for message in stored}
    assert headers.keys() == (stored[0].headers or {}).keys()


@pytest.mark.parametrize("name", ["with space", "with:colon", "with\r\nline"])
async def test_no_header_has_a_name_that_nats_py_refuses(broker: Broker, name: str) -> None:
    with pytest.raises(BadHeaderError):
        await broker.nc.publish("deliveries.test.kind", b"{}", headers={name: "value"})
