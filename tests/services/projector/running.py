"""Drives the projector in tests: in this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.delivery import Delivery
from providers.port import Source, Unintelligible
from runtime import bus, streams
from runtime.bus import Message
from services.projector.app import Projector
from services.projector.understand import understand
from services.projector.write import Writer
from tests.conftest import Broker
from tests.processes import forked
from tests.samples import SOURCES
from tests.servers import Database
from tests.tables import SQL, Snapshot, empty, snapshot

DEADLINE_S = 30.0
POLL_S = 0.02
SHORT_ACK_WAIT_S = 1.0


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what gives no signal, under a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {DEADLINE_S:.0f} s") from None


async def store(broker: Broker, entries: Iterable[Delivery]) -> None:
    """Put deliveries into the log one by one, in this order; two with one message id need `forget_ids` between."""
    for entry in entries:
        await bus.store_delivery(broker.js, entry)


async def store_batch(broker: Broker, entries: Sequence[Delivery]) -> None:
    """Put many deliveries into the log, in this order."""
    messages = [Message(entry.subject, entry.body, wire.to_headers(entry)) for entry in entries]
    await bus.publish_all(broker.nc, streams.DELIVERIES, messages)


async def shorten_ack_wait(broker: Broker) -> None:
    """Let the broker redeliver soon after a crash."""
    found = await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    await broker.js.add_consumer(streams.DELIVERIES, found.config.evolve(ack_wait=SHORT_ACK_WAIT_S))


async def drained(broker: Broker) -> bool:
    """Whether every delivery has been acknowledged."""
    info = await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    return not info.num_pending and not info.num_ack_pending


async def all_said(engine: AsyncEngine) -> bool:
    """Whether nothing waits in the outbox."""
    async with engine.connect() as connection:
        return not (
            await connection.execute(text("SELECT EXISTS (SELECT FROM projector.outbox)"))
        ).scalar_one()


async def taken(broker: Broker) -> bool:
    """Whether a projector has deliveries in hand."""
    return bool((await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)).num_ack_pending)


@asynccontextmanager
async def projecting(
    broker: Broker, engine: AsyncEngine, count: int = 1, sources: Mapping[str, Source] = SOURCES
) -> AsyncIterator[list[Projector]]:
    """`count` projectors at work while the block runs."""
    stopping = asyncio.Event()
    clients = [await bus.connect(broker.url("projector"), "projector") for _ in range(count)]
    projectors = [Projector(nc, engine, sources, structlog.get_logger(), stopping) for nc in clients]
    async with asyncio.TaskGroup() as group:
        for projector in projectors:
            group.create_task(projector.work())
            group.create_task(projector.keep_draining())
        try:
            yield projectors
        finally:
            stopping.set()
    for projector in projectors:
        await projector.pull.close()
        await projector.nc.flush()  # nothing that is stored from now on is sent to it
        await projector.nc.close()


async def project_all(
    broker: Broker, engine: AsyncEngine, count: int = 1, sources: Mapping[str, Source] = SOURCES
) -> None:
    """Run projectors until the log is drained, and what they found is in it, too."""

    async def done() -> bool:
        return await drained(broker) and await all_said(engine) and await drained(broker)

    async with projecting(broker, engine, count, sources):
        await until(done, "the log is drained")


def _older(delivery: Delivery, source: Source) -> NoReturn:
    raise Unintelligible("older_code", "this code cannot read it")


OLDER = {
    name: replace(source, provider=replace(source.provider, normalize=_older))
    for name, source in SOURCES.items()
}
"""The sources as code knows them that understands none of their deliveries."""


async def park_all(broker: Broker, engine: AsyncEngine) -> None:
    """Run a projector of older code until all of the log is parked."""
    await project_all(broker, engine, sources=OLDER)


async def clean_fold(broker: Broker, engine: AsyncEngine) -> Snapshot:
    """What the tables hold when the whole log is folded from nothing, in order."""
    await empty(engine)
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    for seq in range(1, last + 1):
        await fold_one(broker, engine, seq)
    return await snapshot(engine)


async def fold_one(broker: Broker, engine: AsyncEngine, seq: int) -> None:
    """Fold the delivery at `seq` by itself."""
    writer = Writer(engine, SQL, SOURCES, lambda n: bus.read_delivery(broker.js, n))
    await writer.fold([understand(SOURCES, await bus.read_delivery(broker.js, seq))])


async def event_ids(broker: Broker) -> list[str]:
    """The ids of everything in EVENTS, in order."""
    return [headers["ce-id"] for headers in await events(broker)]


async def events(broker: Broker) -> list[Mapping[str, str]]:
    """The headers of everything in EVENTS, in order."""
    last = (await broker.js.stream_info(streams.EVENTS)).state.last_seq
    messages = [await broker.js.get_msg(streams.EVENTS, seq) for seq in range(1, last + 1)]
    return [message.headers or {} for message in messages]


def environment(broker: Broker, database: Database) -> dict[str, str]:
    """What a projector process needs to know."""
    return {
        **os.environ,
        "NATS_URL": broker.url("projector"),
        "DATABASE_URL_PROJECTOR": database.url("projector"),
    }


# A projector that kills itself at a place that a test names: no stub, the real process up to that point.
_KILLED_AT = """
import os, signal, sys
from runtime import bus, process, streams
from services.projector import app, drift, write

streams.FETCH_COUNT = {count}

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

{patch}
sys.exit(process.run("projector", app.main))
"""
IN_A_TRANSACTION = "between two tables of one transaction"
PLACES = {
    IN_A_TRANSACTION: (
        "merge = write.Writer.merge_rows\n"
        "async def half(self, connection, rows, *sights):\n"
        "    await merge(self, connection, {name: rows[name] for name in list(rows)[:2]})\n"
        "    die()\n"
        "write.Writer.merge_rows = half"
    ),
    "after the commit, before publishing": "bus.publish_all = die",
    "after publishing, before the acknowledgement": "app.Projector._count = die",
}

A_DRIFT_NOT_SAID = "after the commit of a drift, before publishing"
_OF_DRIFT = {
    A_DRIFT_NOT_SAID: (
        "async def nothing(self):\n    pass\napp.Projector.keep_draining = nothing\ndrift.drain = die"
    )
}


async def run_until_killed(
    broker: Broker, database: Database, place: str, folder: Path, count: int = streams.FETCH_COUNT
) -> None:
    """A projector process that dies by SIGKILL at `place`; returns when it is dead. It needs a `folder`.

    It has up to `count` deliveries in a batch.
    """
    code = _KILLED_AT.format(patch=(PLACES | _OF_DRIFT)[place], count=count)
    with forked(["-c", code], environment(broker, database), folder / "projector") as process:
        assert -signal.SIGKILL == await process.ended(DEADLINE_S), process.said()
