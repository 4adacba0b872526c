"""Folding the whole log anew: its rate beside the hand-written loop, its memory, and verification beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass

import asyncpg
import uvloop
from nats.js import JetStreamContext

from bench import corpus
from bench.projector import DELIVERIES, drain, fill
from bench.result import Result, measured
from bench.servers import Servers, running, servers
from runtime import bus, streams
from services.projector.swap import KEPT

REPEATS = 5
FEW, MANY = 20_000, 200_000
REBUILD_S_MAX = 240.0
MEGA = 1e6
LIMIT = "the hand-written loop"


@dataclass(frozen=True, slots=True)
class Run:
    """What one rebuild or verification took, all its processes together."""

    deliveries: int
    seconds: float
    replay_rate: float
    """Deliveries per second into tables without indexes, before those are made and anything is compared."""
    cpu_s: float
    peak_bytes: int


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    async with servers() as given:
        nc = await bus.connect(given.nats["operator"], "operator")
        js = nc.jetstream()
        await streams.provision(js)
        await fill(nc, corpus.deliveries(DELIVERIES))
        results = await _by_turns(given, js)
        runs, limit = {}, 0.0
        for count in (FEW, MANY):
            await js.purge_stream(streams.DELIVERIES)
            await fill(nc, corpus.mixed(count))
            limit = (await drain(given, js, by_hand=True, count=count))[0]
            runs[count] = await process_of(given, "rebuild")
        await nc.close()
    mixed = f"{MANY:,} deliveries of all providers mixed"
    return [
        *results,
        measured(f"hand-written loop, {mixed}, rows only", "/s", [limit]),
        measured(f"rebuild, {mixed}, replay", "/s", [runs[MANY].replay_rate], LIMIT, [limit]),
        measured(f"rebuild, {mixed}, to the swap", "s", [runs[MANY].seconds]),
        measured(
            f"rebuild, peak memory of its processes at {MANY:,} deliveries",
            "MB",
            [runs[MANY].peak_bytes / MEGA],
            f"that at {FEW:,}",
            [runs[FEW].peak_bytes / MEGA],
        ),
    ]


async def _by_turns(given: Servers, js: JetStreamContext) -> list[Result]:
    """The loop by hand, a rebuild and a verification of what that left, by turns."""
    limits: list[float] = []
    rebuilt: list[Run] = []
    verified: list[Run] = []
    for _ in range(REPEATS):
        limits.append((await drain(given, js, by_hand=True))[0])
        rebuilt.append(await process_of(given, "rebuild"))
        verified.append(await process_of(given, "verify"))
    github = f"{DELIVERIES:,} deliveries of GitHub"
    return [
        measured(f"hand-written loop, {github}, rows only, beside rebuilds", "/s", limits),
        measured(f"rebuild, {github}, replay", "/s", [each.replay_rate for each in rebuilt], LIMIT, limits),
        measured(f"rebuild, {github}, to the swap", "s", [each.seconds for each in rebuilt]),
        measured(
            f"rebuild, {github}, CPU of its processes per delivery",
            "µs",
            [1e6 * each.cpu_s / each.deliveries for each in rebuilt],
        ),
        measured(
            f"verify, {github}",
            "s",
            [each.seconds for each in verified],
            "rebuild",
            [each.seconds for each in rebuilt],
        ),
    ]


async def process_of(given: Servers, what: str) -> Run:
    """A rebuild or a verification by a process of its own; the old tables are not kept."""
    command = [
        sys.executable,
        "-m",
        "bench.rebuilding",
        what,
        given.nats["operator"],
        given.postgres["operator"],
    ]
    async with running(command, stdout=PIPE, stderr=None) as process:
        async with asyncio.timeout(REBUILD_S_MAX):
            said, _ = await process.communicate()
    connection = await asyncpg.connect(given.postgres["odooops"])
    for row in await connection.fetch(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)", KEPT
    ):
        await connection.execute(f"DROP SCHEMA {row['nspname']} CASCADE")
    await connection.close()
    return Run(*json.loads(said))


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
