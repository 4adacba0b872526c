"""A short run of the suite, and its proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtime.embedded import LOOPBACK
from tests.chaos.proxy import SLOW_S, Link
from tests.chaos.run import command, run, told

pytestmark = pytest.mark.anyio

SEED = 5
SECONDS = 4.0
SOON_S = 5.0
NEVER_S = 0.1


async def test_after_a_short_run_all_laws_hold() -> None:
    print(f"seed {SEED}: {command(SEED, SECONDS)}")
    result = await run(SEED, SECONDS)
    assert result.holds, told(result)
    assert result.tally["acknowledged"] > result.tally["sent"] / 2
    assert result.parked


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A link to a server that says everything again."""

    async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(100):
            writer.write(said)
        writer.close()

    server = await asyncio.start_server(again, LOOPBACK, 0)
    made = Link("a>b", server.sockets[0].getsockname()[1])
    await made.open()
    yield made
    await made.close()
    server.close()


class Line:
    """A connection through the link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, link: Link) -> Line:
        return cls(*await asyncio.open_connection(LOOPBACK, link.port))

    async def heard(self, wait_s: float = SOON_S) -> bytes:
        async with asyncio.timeout(wait_s):
            return await self.reader.read(100)

    async def says(self, word: bytes, wait_s: float = SOON_S) -> bytes:
        self.writer.write(word)
        return await self.heard(wait_s)


async def test_a_link_passes_on_what_is_said_and_the_end(link: Link) -> None:
    line = await Line.to(link)
    assert b"hello" == await line.says(b"hello")
    line.writer.write_eof()
    assert b"" == await line.heard()


async def test_a_cut_is_noticed_and_nobody_gets_through_until_it_is_healed(link: Link) -> None:
    line = await Line.to(link)
    assert b"hello" == await line.says(b"hello")
    link.refuse()
    with pytest.raises(ConnectionResetError):
        await line.heard()
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert await (await Line.to(link)).says(b"hello")
    link.heal()
    assert b"hello" == await (await Line.to(link)).says(b"hello")


async def test_what_a_hole_swallows_comes_out_when_it_is_healed(link: Link) -> None:
    line = await Line.to(link)
    assert b"one" == await line.says(b"one")
    link.swallow()
    with pytest.raises(TimeoutError):
        await line.says(b"two", NEVER_S)
    link.heal()
    assert b"two" == await line.heard()


async def test_who_is_forgotten_hears_nothing_ever_again_and_others_get_through(link: Link) -> None:
    line = await Line.to(link)
    assert b"one" == await line.says(b"one")
    link.forget()
    link.heal()
    with pytest.raises(TimeoutError):
        await line.says(b"two", NEVER_S)
    assert b"three" == await (await Line.to(link)).says(b"three")


async def test_a_slow_link_takes_its_time(link: Link) -> None:
    line = await Line.to(link)
    link.slow()
    began = asyncio.get_running_loop().time()
    assert b"hello" == await line.says(b"hello")
    assert asyncio.get_running_loop().time() - began >= 2 * SLOW_S
