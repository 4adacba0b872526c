"""The connection to a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import BadHeaderError

from runtime import bus, streams
from runtime.permissions import USERS, question, subscriber
from tests.chaos.proxy import Link
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


async def test_who_waits_for_an_answer_on_a_connection_that_is_lost_may_ask_again_at_once(
    broker: Broker,
) -> None:
    asked, unanswered = asyncio.Event(), 60.0

    async def hear(_: Msg) -> None:
        asked.set()

    await broker.nc.subscribe("a.question", cb=hear)
    async with await bus.connect(broker.url("operator"), "operator") as asker:
        asking = asyncio.create_task(asker.request("a.question", timeout=unanswered))
        async with asyncio.timeout(SOON_S):
            await asked.wait()
            asker._transport._io_writer.transport.abort()  # type: ignore[union-attr]  # as when the wire is cut
            with pytest.raises(nats.errors.TimeoutError):
                await asking
            ack = await asker.jetstream().publish("deliveries.test.kind", b"{}")
    assert ack.seq == 1


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


FULL_BYTES = 32 << 20
"""More than the system takes for a connection on which nobody reads."""


@pytest.fixture
async def forgotten(broker: Broker) -> AsyncIterator[Client]:
    """A client that has more to say than its connection takes, on which nothing passes any more and nobody is told."""
    address = urlsplit(broker.url("operator"))
    assert address.port
    link = Link(address.port)
    await link.open()
    client = await bus.connect(broker.url("operator").replace(str(address.port), str(link.port)), "operator")
    link.forget()
    assert client._transport
    client._transport.write(bytes(FULL_BYTES))
    try:
        yield client
    finally:
        closing = asyncio.create_task(client.close())
        await asyncio.wait({closing}, timeout=SOON_S)
        await link.close()


async def test_a_connection_that_takes_nothing_more_is_given_up_and_another_one_made(
    forgotten: Client,
) -> None:
    await forgotten._process_op_err(nats.errors.StaleConnectionError())  # as when pings are not answered
    async with asyncio.timeout(SOON_S):
        while not forgotten.is_connected:
            await asyncio.sleep(0.01)
    assert (await forgotten.jetstream().stream_info(streams.DELIVERIES)).config.name == streams.DELIVERIES


async def test_a_client_whose_connection_takes_nothing_more_can_be_closed(forgotten: Client) -> None:
    async with asyncio.timeout(SOON_S):
        await forgotten.close()
    assert forgotten.is_closed


async def test_a_deadline_holds_on_a_connection_that_takes_nothing_more(forgotten: Client) -> None:
    async def publish() -> None:
        async with asyncio.timeout(0.1):
            while True:
                await forgotten.publish("a.flood", bytes(1 << 19))

    publishing = asyncio.create_task(publish())
    await asyncio.wait({publishing}, timeout=SOON_S)
    assert publishing.done()
    with pytest.raises(TimeoutError):
        await publishing


@pytest.mark.parametrize(
    ("answer", "led"),
    [
        ('{"cluster": {"name": "odooops", "leader": "nats-2"}}', True),
        ('{"config": {"name": "DELIVERIES"}}', True),  # of a broker without a cluster
        ('{"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}', True),
        ('{"cluster": {"name": "odooops", "replicas": [{"name": "nats-1", "current": true}]}}', False),
        ('{"error": {"code": 503, "err_code": 10008}}', False),
        ("", False),  # no responders
    ],
)
def test_a_broker_is_at_work_if_it_knows_who_leads(answer: str, led: bool) -> None:
    assert bus.is_led(answer.encode()) is led


@pytest.mark.parametrize("user", [*USERS, "a_subscriber"])
def test_everybody_may_ask_whether_the_broker_is_at_work_of_the_log_if_he_works_on_it(user: str) -> None:
    allowed = (USERS.get(user) or subscriber(user)).publish
    assert question(user) in allowed or allowed == (">",)
    assert question(user).endswith(".EVENTS" if user in ("notifier", "a_subscriber") else ".DELIVERIES")


async def test_the_only_broker_is_never_left(broker: Broker) -> None:
    async with await bus.connect(broker.url("ingest"), "ingest") as client:
        assert isinstance(client, bus._Client) and client.watching is not None
        await asyncio.wait_for(client.watching, SOON_S)
