"""A process that another one deals blocks of the log to: `python -m services.projector.crew_member`, see crew.py."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from asyncio import Future, StreamReader, StreamReaderProtocol
from json import loads
from typing import NoReturn

import uvloop
from nats.aio.client import Client

from providers.port import Source
from providers.registry import PROVIDERS
from runtime import bus, postgres
from runtime.bus import BrokerAway
from runtime.reading import AWAY_S_MAX
from services.projector.blocks import Block, Folding
from services.projector.crew import KNOWN, Task, line
from services.projector.work import STATEMENT_S_MAX, Work

EXIT_FAILED = 1


class Dealt:
    """What the process that deals has said, and what is said to it."""

    def __init__(self) -> None:
        self._block: Future[Block | None] | None = None
        self._go: Future[None] | None = None

    async def listen(self) -> NoReturn:
        """Hear what it says. Ends this process when it is gone."""
        reader = StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: StreamReaderProtocol(reader), sys.stdin)
        async for each in reader:
            what, *values = loads(each)
            if what == "go" and self._go is not None:
                self._go.set_result(None)
            elif self._block is not None:
                self._block.set_result(Block(*values) if what == "block" else None)
        os._exit(EXIT_FAILED)

    async def next(self) -> Block | None:
        """The next block that nobody has; None where there is none."""
        self._block = asyncio.get_running_loop().create_future()
        say("next")
        return await self._block

    async def turn(self, number: int) -> None:
        """Return when all blocks before this one are settled."""
        self._go = asyncio.get_running_loop().create_future()
        say("turn", number)
        await self._go

    def settled(self, number: int) -> None:
        """Let the next block be settled."""
        say("settled", number)

    def folded(self, number: int, count: int, left_out: int) -> None:
        """A block is in the tables."""
        say("folded", number, count, left_out)


def say(*said: object) -> None:
    """Say a line to the process that deals; it is short, so that the pipe has room for it."""
    os.write(sys.stdout.fileno(), line(*said))


async def connected(address: str) -> Client:
    """A connection to the broker; raises BrokerAway after AWAY_S_MAX."""
    try:
        async with asyncio.timeout(AWAY_S_MAX):
            return await bus.connect(address, "operator")
    except TimeoutError:
        raise BrokerAway(f"the broker let no other process in within {AWAY_S_MAX:g} s") from None


async def run(task: Task) -> None:
    """Fold the blocks that are dealt."""
    dealt = Dealt()
    listening = asyncio.create_task(dealt.listen())
    engine = postgres.make_engine(task.addresses.database, "cli-operator", STATEMENT_S_MAX)
    nc = await connected(task.addresses.nats)
    sources = {
        name: Source(
            name=name,
            provider=PROVIDERS[file.provider_name],
            file=file,
            options=options,
            environments=environments,
        )
        for name, file, options, environments in task.sources
    }
    writer = Work(nc, engine, sources, lambda progress: None).writer(task.schema, task.models)
    await Folding(nc, writer, task.until, task.stuck).blocks(dealt, task.passed_over)
    listening.cancel()
    await engine.dispose()
    await nc.close()


def main() -> int:
    """The exit code."""
    try:
        task = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that has started this one
    except EOFError:
        return EXIT_FAILED
    try:
        uvloop.run(run(task))
    except Exception as error:  # noqa: BLE001  # whatever it is, the one who waits for us is to hear of it
        name = type(error).__name__
        origin = getattr(error, "orig", None) or error
        first = (str(origin).splitlines() or [name])[0]
        say("failed", name, first if name in KNOWN else f"a process of the replay failed: {name}: {first}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
