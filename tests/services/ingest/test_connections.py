"""What one connection may take, and how many there may be. Real HTTP."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse

from runtime import embedded, process
from tests.services.ingest.door import BODY, HOST, Door, eventually, head, line_to, open_door, request

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

SOON_MS = 300


async def test_a_head_has_a_limit(door: Door) -> None:
    async with door.line() as line:
        await line.send(
            request().replace(b"host:", b"x: " + 4 * process.HEAD_BYTES_MAX * b"x" + b"\r\nhost:")
        )
        assert (await line.reply()).status == 431
        assert await line.closed()
    assert (await door.post()).status_code == 200


@pytest.mark.parametrize("before", [b"", b"POST /webhooks/git", b"POST /webhooks/github HTTP/1.1\r\nhost: d"])
async def test_a_connection_that_says_nothing_is_closed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(process, "HEAD_READ_MS_MAX", SOON_MS)
    async with open_door(broker.url, broker.js) as door, door.line() as line:
        await line.send(before)
        async with asyncio.timeout(5):
            assert await line.closed()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux cuts off who reads nothing")
async def test_who_asks_and_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "UNREAD_MS_MAX", SOON_MS)
    port = embedded.free_port()
    async with process.serve_http(PlainTextResponse(20_000_000 * "x"), HOST, port), line_to(port) as heard:
        await heard.send(head("HEAD", "/", {}))
        await heard.reply(body=False)
        without = len(os.listdir("/dev/fd"))
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect((HOST, port))
            deaf.sendall(head("GET", "/", {}))

            async def open_files(more: int) -> bool:
                return len(os.listdir("/dev/fd")) == without + more

            await eventually(partial(open_files, 2))
            await eventually(partial(open_files, 1), 5)


async def test_who_comes_when_all_connections_are_taken_waits_its_turn(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(process, "HEAD_READ_MS_MAX", SOON_MS)
    async with open_door(broker.url, broker.js) as door, door.line() as first, door.line() as second:
        for line in (first, second):
            await line.send(request(sent=1))
        await door.holds(2)
        async with door.line() as third:
            await third.send(request(delivery="third"))
            reply = asyncio.create_task(third.reply())
            done, _ = await asyncio.wait({reply}, timeout=0.2)
            assert not done
            await first.send(BODY[1:])
            assert (await first.reply()).status == 200
            assert (await reply).json()["delivery"] == "github:third"
        await second.send(BODY[1:])
        assert (await second.reply()).json()["duplicate"] is True


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"),
    [
        (1_024, 524_288, process.CONNECTIONS_MAX),
        (1_024, 1_024, 1_024 - process.OTHER_FILES_MAX),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, process.CONNECTIONS_MAX),
        (1_024, resource.RLIM_INFINITY, process.CONNECTIONS_MAX),
        (64, 64, 1),
    ],
)
def test_there_are_as_many_connections_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    assert process.connections_max() == allowed
    new_soft, new_hard = limits[-1]
    assert new_hard == hard
    assert soft in (new_soft, 1_024)
