"""Large bodies, slow bodies, half bodies: bounded in size, time and memory. Real HTTP, real broker."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

import httpx
import pytest

from contracts.ssot import Limit
from providers.port import Refused
from runtime import streams
from services.ingest.body import Memory
from services.ingest.limits import Limits
from tests.services.ingest.door import BODY, PATH, Door, Line, head, open_door, request, signed

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

CHUNK_BYTES = 1_000_000
LARGEST = b'{"pad": "%s"}' % (b"x" * (streams.BODY_BYTES_MAX - 11))


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def begin_chunked(line: Line, body: bytes = BODY) -> None:
    await line.send(head("POST", PATH, {"transfer-encoding": "chunked", **signed(body)}))


async def test_a_body_of_the_largest_size_is_stored(door: Door) -> None:
    assert len(LARGEST) == streams.BODY_BYTES_MAX
    assert (await door.post(LARGEST)).json()["seq"] == 1
    (delivery,) = await door.stored()
    assert delivery.body == LARGEST


async def test_a_chunked_body_is_stored(door: Door) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(0, len(BODY), 5):
            yield BODY[n : n + 5]

    answer = await door.client.post(PATH, content=pieces(), headers=signed())
    assert answer.status_code == 200
    (delivery,) = await door.stored()
    assert delivery.body == BODY


@pytest.mark.parametrize("size", [streams.INLINE_BODY_BYTES_MAX, streams.INLINE_BODY_BYTES_MAX + 1])
async def test_a_body_is_stored_on_both_sides_of_the_claim_check(door: Door, size: int) -> None:
    body = b'{"pad": "%s"}' % (b"x" * (size - 11))
    assert (await door.post(body)).status_code == 200
    (delivery,) = await door.stored()
    assert delivery.body == body
    objects = (await door.js.stream_info(streams.BODIES_STREAM)).state.messages
    assert (objects == 0) == (size == streams.INLINE_BODY_BYTES_MAX)


async def test_equal_large_bodies_at_once_are_stored_once(door: Door) -> None:
    body = b'{"pad": "%s"}' % random.Random(1).randbytes(500_000).hex().encode()
    answers = await asyncio.gather(*(door.post(body) for _ in range(5)))
    assert [answer.status_code for answer in answers] == 5 * [200]
    (delivery,) = await door.stored()
    assert delivery.body == body


async def test_too_large_by_its_own_word_is_refused_and_the_answer_can_be_read(door: Door) -> None:
    body = LARGEST + b" "
    answer = await door.post(body)
    assert str(streams.BODY_BYTES_MAX) in await door.refused(413, "body_too_large", answer)
    assert (await door.post()).status_code == 200


async def test_too_large_by_count_is_refused_and_the_answer_can_be_read(door: Door) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(0, len(LARGEST), CHUNK_BYTES):
            yield LARGEST[n : n + CHUNK_BYTES]
        yield b" "

    answer = await door.client.post(PATH, content=pieces(), headers=signed(LARGEST + b" "))
    assert str(streams.BODY_BYTES_MAX) in await door.refused(413, "body_too_large", answer)


async def test_a_large_body_for_nobody_is_read_so_that_the_answer_can_be(door: Door) -> None:
    answer = await door.client.post("/webhooks/nobody", content=LARGEST)
    await door.refused(404, "unknown_source", answer)


async def test_a_body_without_end_is_cut_off(door: Door) -> None:
    async with door.line() as line:
        await begin_chunked(line)
        reply = asyncio.create_task(line.reply())
        sent, piece = 0, chunked(CHUNK_BYTES * b"x")
        while not reply.done():
            assert sent < 2 * streams.DRAIN_BYTES_MAX
            try:
                await line.send(piece)
            except ConnectionError:
                break
            sent += CHUNK_BYTES
        assert sent >= streams.DRAIN_BYTES_MAX
        await door.refused(413, "body_too_large", await reply)
        assert await line.closed()


async def test_a_sender_that_asks_first_is_told_to_go_on(door: Door) -> None:
    async with door.line() as line:
        headers = {"content-length": str(len(BODY)), "expect": "100-continue", **signed()}
        await line.send(head("POST", PATH, headers))
        assert (await line.reply()).status == 100
        await line.send(BODY)
        assert (await line.reply()).status == 200


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: what a request leaves has to go by itself."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("sent", [0, 5])
async def test_a_slow_body_is_refused_in_time_and_its_connection_closed(
    door: Door, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setattr(streams, "BODY_READ_S_MAX", 0.2)
    async with door.line() as line:
        await line.send(request(sent=sent))
        async with asyncio.timeout(2):
            assert "0.2 s" in await door.refused(408, "body_too_slow", await line.reply())
        assert await line.closed()


async def test_a_body_that_trickles_is_not_waited_for_as_long_as_one_that_flows(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BODY_GRACE_S", 0.2)
    async with door.line() as slow, door.line() as fast:
        whole = request(b"{}" + 40_000 * b" ")
        for line, sent in ((slow, 35_000), (fast, 1_000)):  # an earlier one has 8 s more
            await line.send(whole[:-sent])
        await slow.send(whole[-35_000:-34_999])
        async with asyncio.timeout(5):
            await door.refused(408, "body_too_slow", await slow.reply())
            await fast.send(whole[-1_000:])
            assert (await fast.reply()).status == 200


@pytest.mark.parametrize(("size", "status"), [(1, 400), (2_000, 200)])
async def test_a_body_in_crumbs_is_refused(door: Door, size: int, status: int) -> None:
    body = b"{" + (2 * streams.BODY_PIECES_FREE * size) * b" " + b"}"
    async with door.line() as line:
        await line.send(head("POST", PATH, {"transfer-encoding": "chunked", **signed(body)}))
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            await line.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await line.send(b"0\r\n\r\n")
        reply = await line.reply()
    assert (reply.status, reply.json().get("reason")) == (
        status,
        "too_many_chunks" if status == 400 else None,
    )


async def test_a_slow_body_that_is_refused_anyway_is_not_waited_for_longer(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BODY_READ_S_MAX", 0.2)
    async with door.line() as line:
        await line.send(head("POST", PATH, {"content-length": "100"}) + b"half")
        async with asyncio.timeout(2):
            await door.refused(401, "missing_signature", await line.reply())


async def test_a_sender_that_leaves_midway_leaves_nothing(door: Door) -> None:
    async with door.line() as line:
        await line.send(request(sent=-1))
        await door.holds(len(BODY) - 1)
    async with door.line() as line:
        await begin_chunked(line)
        await line.send(chunked(BODY[:10]))
        await door.holds(10)
    await door.holds(0)
    assert await door.count() == 0


async def test_a_body_that_breaks_the_protocol_is_refused(door: Door) -> None:
    async with door.line() as line:
        await begin_chunked(line)
        await line.send(chunked(BODY) + b"no length\r\n")
        await door.refused(400, "body_incomplete", await line.reply())


async def test_the_bytes_in_hand_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BODIES_IN_FLIGHT_BYTES_MAX", 2 * len(BODY) - 2)
    async with door.line() as first, door.line() as second:
        await first.send(request(sent=-1, delivery="first"))
        await door.holds(len(BODY) - 1)
        await door.refused(503, "too_many_bytes", await door.post(delivery="announced"))
        await begin_chunked(second)
        await second.send(chunked(BODY) + chunked(b""))
        await door.refused(503, "too_many_bytes", await second.reply())
        await first.send(BODY[-1:])
        assert (await first.reply()).status == 200
    assert (await door.post(delivery="later")).status_code == 200


def test_one_stranger_leaves_room_for_others_and_all_strangers_for_who_is_known() -> None:
    memory, held = Memory(), dict[str | None, int]()
    for sender in ("a stranger", "another", "one more", "and another", None):
        held[sender] = 0
        with suppress(Refused):
            while True:
                memory.require_room(1_000_000, sender)
                memory.hold(1_000_000, sender)
                held[sender] += 1_000_000
    assert list(held.values()) == [64_000_000, 64_000_000, 64_000_000, 0, 64_000_000]
    memory.hold(-held["another"], "another")
    memory.require_room(1_000_000, "and another")


async def test_slow_bodies_of_strangers_keep_no_known_sender_out(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BODIES_OF_STRANGERS_BYTES_MAX", len(BODY))
    proxies, addresses = [ip_network("127.0.0.0/8")], Limits(addresses=Limit(per_s=1, burst=10))
    async with open_door(broker.url, broker.js, limits=addresses, proxies=proxies) as door:

        async def post(address: str, delivery: str) -> httpx.Response:
            headers = {**signed(delivery=delivery), "x-forwarded-for": address}
            return await door.client.post(PATH, content=BODY, headers=headers)

        assert (await post("9.9.9.9", "first")).status_code == 200
        async with door.line() as line:
            await line.send(request(sent=-1).replace(b"host:", b"x-forwarded-for: 6.6.6.6\r\nhost:"))
            await door.holds(len(BODY) - 1)
            assert (await post("7.7.7.7", "stranger")).json()["reason"] == "too_many_bytes"
            assert (await post("9.9.9.9", "second")).status_code == 200


async def test_announced_bytes_that_do_not_come_take_no_memory(door: Door) -> None:
    async with door.line() as line:
        await line.send(request(LARGEST, sent=100))
        await door.holds(100)


async def test_an_answer_that_nobody_reads_harms_nobody(door: Door) -> None:
    for n in range(20):
        async with door.line() as line:
            await line.send(request(delivery=f"gone-{n}"))

    answer: httpx.Response = await door.post(delivery="stays")
    assert answer.status_code == 200
