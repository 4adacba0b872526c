"""Several processes that replay one log: this one deals the blocks, and works beside the others.

They speak by lines of JSON over pipes. To this one: `next`, and a block's `turn`, `settled` and `folded`; from it a
`block`, or `end`, and `go`. Whoever finds the other end of its pipe closed is alone, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from contracts.ssot import Environments, ProviderFile
from runtime.bus import BrokerAway
from services.projector.blocks import Block, Folding, Until
from services.projector.work import Addresses, Busy
from services.projector.write import RefoldTooWide

PROCESSES_MAX = 8
"""More than that wait for Postgres, not for a processor."""
BLOCK_COUNT_MAX = 1_000
"""Deliveries folded in one transaction."""
LOCKED_COUNT_MAX = 4_000
"""Identities that are locked at a time: Postgres' own settings have room for about twice as many, with all others."""

Pace = Callable[[], float]
"""Seconds for which to wait before the next block."""
Told = Callable[[int, int], None]
"""Hears of each block: deliveries folded, and left out."""

_MEMBER = ("-P", "-m", "services.projector.crew_member")


class ProcessFailed(Exception):
    """one of the processes of a replay could not go on; the message says why"""


KNOWN: dict[str, type[Exception]] = {each.__name__: each for each in (BrokerAway, Busy, RefoldTooWide)}
"""What a process may fail of that has a name of its own."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do; sent to it before anything else."""

    addresses: Addresses
    sources: Sequence[tuple[str, ProviderFile, object, Environments]]
    """Their providers are found by name: they are code, which is not sent."""
    schema: str
    models: Collection[str]
    until: Until
    stuck: Collection[int]
    passed_over: Collection[str]
    """Subjects of what is folded already."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Dealing:
    """Deals the blocks between two sequences."""

    def __init__(self, after: int, last: int, count: int, told: Told, pace: Pace) -> None:
        self._after, self._last, self._count, self._told, self._pace = after, last, count, told, pace
        self._dealt = 0
        self._turn = 0
        self._settled: set[int] = set()
        self._waiting: dict[int, asyncio.Event] = {}

    async def next(self) -> Block | None:
        """The next block, once it may be read."""
        if self._after < self._last and (wait_s := self._pace()) > 0:
            await asyncio.sleep(wait_s)
        if self._after >= self._last:
            return None
        after, self._after = self._after, min(self._after + self._count, self._last)
        self._dealt += 1
        return Block(self._dealt - 1, after, self._after)

    async def turn(self, number: int) -> None:
        """Return when all blocks before this one are settled."""
        if number > self._turn:
            await self._waiting.setdefault(number, asyncio.Event()).wait()

    def settled(self, number: int) -> None:
        """Let the next block be settled."""
        self._settled.add(number)
        while self._turn in self._settled:
            self._settled.remove(self._turn)
            self._turn += 1
        if (waiting := self._waiting.pop(self._turn, None)) is not None:
            waiting.set()

    def folded(self, number: int, count: int, left_out: int) -> None:
        """A block is in the tables."""
        self._told(count, left_out)


def block_count(processes: int) -> int:
    """Deliveries of a block: each process locks the identities of one."""
    return min(BLOCK_COUNT_MAX, LOCKED_COUNT_MAX // processes)


async def replay(
    folding: Folding,
    dealing: Dealing,
    passed_over: Collection[str],
    others: int = 0,
    task: Task | None = None,
) -> None:
    """Fold all blocks that are dealt: this process, and `others` beside it that are given the `task`.

    Raises ProcessFailed, or one of KNOWN, where one of them cannot go on; none is left behind.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(others):
                group.create_task(_serve(pickle.dumps(task), dealing))
            group.create_task(folding.blocks(dealing, passed_over))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _serve(task: bytes, dealing: Dealing) -> None:
    """Start a process, deal blocks to it until there are none, and see it end."""
    # By our own code, whatever lies in the current folder; in a session of its own: a Ctrl-C is for us, who end it.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_MEMBER, stdin=PIPE, stdout=PIPE, start_new_session=True, env=env
    )
    try:
        said, to = process.stdout, process.stdin
        assert said is not None
        assert to is not None
        to.write(task)
        await _answer(said, to, dealing)
        if code := await process.wait():
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ProcessFailed(f"a process of the replay {how}; nothing was changed: try again")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answer(said: StreamReader, to: StreamWriter, dealing: Dealing) -> None:
    """Answer what a process says until it says no more."""

    async def go(number: int) -> None:
        await dealing.turn(number)
        to.write(line("go"))

    waiting: set[asyncio.Task[None]] = set()
    try:
        async for each in said:
            what, *values = json.loads(each)
            if what == "next":
                block = await dealing.next()
                to.write(line("block", *block) if block is not None else line("end"))
            elif what == "turn":
                waiting.add(asyncio.create_task(go(*values)))
            elif what == "settled":
                dealing.settled(*values)
            elif what == "folded":
                dealing.folded(*values)
            else:
                name, sentence = values
                raise KNOWN.get(name, ProcessFailed)(sentence)
    finally:
        for each_turn in waiting:
            each_turn.cancel()


def line(*said: object) -> bytes:
    """What one process says to another."""
    return json.dumps(said).encode() + b"\n"
