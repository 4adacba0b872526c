"""A short run of the suite, and its proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from runtime import embedded
from runtime.embedded import LOOPBACK
from tests.chaos.proxy import SLOW_S, Link
from tests.chaos.run import run, told

pytestmark = pytest.mark.anyio

SEED = 1626
SECONDS = 3.0
SOON_S = 5.0
NEVER_S = 0.1


async def test_after_a_short_run_all_laws_hold() -> None:
    result = await run(SEED, SECONDS, brokers=1)
    print(told(result))
    assert result.holds
    assert {verb for verb, _ in result.hit} >= {"kill", "stop", "fill"}
    assert {name for name, count in result.tally.items() if count} >= {
        *("large", "stored", "spooled", "refused (spool_full)")
    }


class Line:
    """A connection through a link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def heard(self, wait_s: float = SOON_S) -> bytes:
        async with asyncio.timeout(wait_s):
            return await self.reader.read(100)

    async def says(self, word: bytes, wait_s: float = SOON_S) -> bytes:
        self.writer.write(word)
        return await self.heard(wait_s)


class Lines:
    """A link to a server that says everything again, and connections through it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Line:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.link.port)
        self.writers.append(writer)
        return Line(reader, writer)

    async def again(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(100):
                writer.write(said)
        writer.transport.abort()


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    to_port = embedded.free_port()
    link = Link(to_port)
    made = Lines(link)
    server = await asyncio.start_server(made.again, LOOPBACK, to_port)
    await link.open()
    yield made
    for writer in made.writers:
        writer.transport.abort()
    await link.close()
    server.close()
    await server.wait_closed()


async def test_a_link_passes_on_what_is_said_and_the_end(lines: Lines) -> None:
    line = await lines.connect()
    assert b"hello" == await line.says(b"hello")
    line.writer.write_eof()
    assert b"" == await line.heard()


async def test_a_cut_is_noticed_and_nobody_gets_through_until_it_is_healed(lines: Lines) -> None:
    line = await lines.connect()
    assert b"hello" == await line.says(b"hello")
    lines.link.refuse()
    with pytest.raises(ConnectionResetError):
        await line.heard()
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert await (await lines.connect()).says(b"hello")
    lines.link.heal()
    assert b"hello" == await (await lines.connect()).says(b"hello")


async def test_what_a_hole_swallows_comes_out_when_it_is_healed(lines: Lines) -> None:
    line = await lines.connect()
    assert b"one" == await line.says(b"one")
    lines.link.swallow()
    with pytest.raises(TimeoutError):
        await line.says(b"two", NEVER_S)
    lines.link.heal()
    assert b"two" == await line.heard()


async def test_who_is_forgotten_hears_nothing_ever_again_and_others_get_through(lines: Lines) -> None:
    line = await lines.connect()
    assert b"one" == await line.says(b"one")
    lines.link.forget()
    lines.link.heal()
    with pytest.raises(TimeoutError):
        await line.says(b"two", NEVER_S)
    assert b"three" == await (await lines.connect()).says(b"three")


async def test_where_nobody_is_connected_the_next_one_is_forgotten(lines: Lines) -> None:
    lines.link.forget()
    forgotten, other = await lines.connect(), await lines.connect()
    assert b"one" == await other.says(b"one")
    with pytest.raises(TimeoutError):
        await forgotten.says(b"two", NEVER_S)


async def test_a_slow_link_takes_its_time(lines: Lines) -> None:
    line = await lines.connect()
    lines.link.slow()
    began = asyncio.get_running_loop().time()
    assert b"hello" == await line.says(b"hello")
    assert asyncio.get_running_loop().time() - began >= 2 * SLOW_S
