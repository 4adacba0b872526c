"""The projector beside its limit: a full log of real deliveries into ledger, rows and events; and what it weighs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import uvloop
from nats.aio.client import Client
from nats.js import JetStreamContext

from bench import corpus
from bench.result import Result, measured
from bench.servers import POLL_S, Servers, cpu_s, running, servers, service
from contracts import delivery as wire
from contracts.delivery import Delivery
from read_models.registry import READ_MODELS
from runtime import bus, streams
from runtime.bus import Message

DELIVERIES = 30_000
REPEATS = 5
STREAMS = {"of GitHub": corpus.deliveries, "of all providers mixed": corpus.mixed}
DRAIN_S_MAX = 120.0
MILLION = 1_000_000
GIGA = 1e9


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    async with servers() as given:
        nc = await bus.connect(given.nats["operator"], "operator")
        js = nc.jetstream()
        await streams.provision(js)
        results: list[Result] = []
        for words, stream in STREAMS.items():
            await js.purge_stream(streams.DELIVERIES)
            await fill(nc, stream(DELIVERIES))
            results += await _by_turns(given, js, words, weigh=not results)
        await nc.close()
    return results


async def _by_turns(given: Servers, js: JetStreamContext, words: str, *, weigh: bool) -> list[Result]:
    """The loop by hand and the projector over the log as it is, by turns."""
    rates: list[float] = []
    limits: list[float] = []
    costs: list[float] = []
    weight: list[Result] = []
    for _ in range(REPEATS):
        limits.append((await drain(given, js, by_hand=True))[0])
        rate, cost = await drain(given, js, by_hand=False)
        rates.append(rate)
        costs.append(cost)
        if weigh and not weight:
            weight = await _weight(given)
    return [
        measured(f"hand-written loop, {DELIVERIES:,} deliveries {words}, rows only", "/s", limits),
        measured(
            f"projector, {words}: ledger, rows and events, one process",
            "/s",
            rates,
            "the hand-written loop",
            limits,
        ),
        measured(f"projector, {words}, CPU of its process per delivery", "µs", costs),
        *weight,
    ]


async def fill(nc: Client, entries: Iterable[Delivery]) -> None:
    """Put deliveries into the log."""
    batch: list[Message] = []
    for entry in entries:
        batch.append(Message(entry.subject, entry.body, wire.to_headers(entry)))
        if len(batch) == streams.ATOMIC_BATCH_COUNT_MAX:
            await bus.publish_all(nc, streams.DELIVERIES, batch)
            batch = []
    await bus.publish_all(nc, streams.DELIVERIES, batch)


async def drain(
    given: Servers, js: JetStreamContext, *, by_hand: bool, count: int = DELIVERIES
) -> tuple[float, float]:
    """The `count` deliveries of the log into empty tables: how many per second, and µs of CPU for each.

    From the first one taken to the last one acknowledged.
    """
    await _forget(given, js)
    async with _loop(given, by_hand) as process:
        async with asyncio.timeout(DRAIN_S_MAX):
            while not (await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)).num_ack_pending:
                await asyncio.sleep(POLL_S)
            started, cpu = time.perf_counter(), cpu_s(process.pid)
            while True:
                info = await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
                if not info.num_pending and not info.num_ack_pending:
                    break
                await asyncio.sleep(POLL_S)
        took = time.perf_counter() - started
        return count / took, 1e6 * (cpu_s(process.pid) - cpu) / count


@asynccontextmanager
async def _loop(given: Servers, by_hand: bool) -> AsyncIterator[asyncio.subprocess.Process]:
    nats_url, database_url = given.nats["projector"], given.postgres["projector"]
    if by_hand:
        async with running([sys.executable, "-m", "bench.by_hand", nats_url, database_url]) as process:
            yield process
    else:
        settings = {"NATS_URL_PROJECTOR": nats_url, "DATABASE_URL_PROJECTOR": database_url}
        async with service("projector", settings) as process:
            yield process


async def _forget(given: Servers, js: JetStreamContext) -> None:
    """Empty tables, no events, and a consumer that has seen nothing."""
    connection = await asyncpg.connect(given.postgres["odooops"])
    for model in READ_MODELS:
        await connection.execute(f"TRUNCATE ops.{model.name}")
    await connection.close()
    await js.purge_stream(streams.EVENTS)
    await js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)
    # The broker remembers event ids for two hours, purge or not: only a new stream forgets them.
    await js.delete_stream(streams.EVENTS)
    await streams.provision(js)


async def _weight(given: Servers) -> list[Result]:
    """Gigabytes on disk for a million deliveries, by where they lie."""
    connection = await asyncpg.connect(given.postgres["projector"])
    tables = float(await connection.fetchval("SELECT pg_database_size(current_database())"))
    await connection.close()
    store = given.folder / "nats" / "jetstream"
    parts = {
        "log (DELIVERIES), compressed by the broker": _bytes(store, streams.DELIVERIES),
        "events (EVENTS), kept 30 days": _bytes(store, streams.EVENTS),
        "tables (Postgres)": tables,
    }
    per_million = MILLION / DELIVERIES / GIGA
    return [
        measured(f"on disk for a million deliveries: {what}", "GB", [size * per_million])
        for what, size in parts.items()
    ]


def _bytes(store: Path, stream: str) -> float:
    (folder,) = store.glob(f"**/streams/{stream}")
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
