"""A system with a million deliveries beside an empty one: `make bench-growth`.

The full one is made once and kept in .bench/growth until its recipe changes; a making that was broken off is taken up
again. Each run adds some tens of thousands of deliveries to it. The empty one is emptied before each of its turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop
from nats.aio.client import Client
from nats.js import JetStreamContext

from bench import latency, small
from bench.ingest import FEW as CONNECTIONS
from bench.ingest import WINDOW_S, door
from bench.load import SMALL
from bench.projector import fill
from bench.result import Result, measured
from bench.servers import POLL_S, ROOT, START_S_MAX, Servers, family_cpu_s, running, servers, service
from migrations.__main__ import head
from read_models.registry import READ_MODELS
from runtime import bus, embedded, streams

DELIVERIES = 1_000_000
KEPT = ROOT / ".bench" / "growth"
RECIPE = "recipe.json"
FILL_COUNT = 20_000
PROJECTORS = 2
TELL_EVERY_S = 10.0
REPEATS = 5
FRESH = 10_000
"""Deliveries of one measured turn: half of them about new things, half about known ones."""
FOLD_S_MAX = 1_800.0
BROKER_START_S_MAX = 120.0
SEED = 6
GIGA = 1e9
EMPTY = "an empty system"

Runs = dict[str, list[float]]


@dataclass(frozen=True)
class System:
    """One of the two, running."""

    given: Servers
    nc: Client
    js: JetStreamContext
    database: asyncpg.Connection

    async def last_seq(self) -> int:
        """Where the log ends, which is the number that the next delivery has."""
        return (await self.js.stream_info(streams.DELIVERIES)).state.last_seq

    async def fold(self, projectors: int = 1) -> dict[str, float]:
        """Fold what is in the log and not in the tables; what that took for each delivery."""
        info = await self.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
        count = info.num_pending or 0
        settings = {
            "NATS_URL_PROJECTOR": self.given.nats["projector"],
            "DATABASE_URL_PROJECTOR": self.given.postgres["projector"],
        }
        async with AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(service("projector", settings)) for _ in range(projectors)
            ]
            pids = {
                "projector": processes[0].pid,
                "Postgres": self.given.postgres_pid,
                "broker": self.given.nats_pid,
            }
            async with asyncio.timeout(FOLD_S_MAX):
                while count and info.num_pending == count:
                    await asyncio.sleep(POLL_S)
                    info = await self.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
                began = told = time.perf_counter()
                used = {name: family_cpu_s(pid) for name, pid in pids.items()}
                written = await self._wal()
                while info.num_pending or info.num_ack_pending:
                    await asyncio.sleep(POLL_S)
                    info = await self.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
                    if time.perf_counter() - told > TELL_EVERY_S:
                        told += TELL_EVERY_S
                        _tell(f"{info.num_pending:,} to fold")
            took = time.perf_counter() - began
            return {
                "µs": 1e6 * took / max(1, count),
                "WAL": (await self._wal() - written) / max(1, count),
                **{
                    name: 1e6 * (family_cpu_s(pid) - used[name]) / max(1, count) for name, pid in pids.items()
                },
            }

    async def _wal(self) -> float:
        return float(await self.database.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

    async def forget(self) -> None:
        """Empty tables and streams."""
        for model in READ_MODELS:
            await self.database.execute(f"TRUNCATE ops.{model.name}")
        for stream in (streams.DELIVERIES, streams.EVENTS):
            await self.js.delete_stream(stream)
        await streams.provision(self.js)


@asynccontextmanager
async def system(folder: Path) -> AsyncIterator[System]:
    """The system whose data lie in `folder`."""
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(folder))
        nc = await bus.connect(given.nats["operator"], "operator")
        stack.push_async_callback(nc.close)
        js = nc.jetstream()
        await streams.provision(js)
        database = await asyncpg.connect(given.postgres["odooops"])
        stack.push_async_callback(database.close)
        yield System(given, nc, js, database)


async def build() -> None:
    """Make the full system, or what is missing of it."""
    if KEPT.exists() and _written() != recipe():
        shutil.rmtree(KEPT)
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / RECIPE).write_text(json.dumps(recipe()), encoding="utf-8")
    async with system(KEPT) as full:
        if (first := await full.last_seq()) < DELIVERIES:
            _tell(f"making the full system in {KEPT}, once; {first:,} deliveries are in its log")
        while first < DELIVERIES:
            end = min(first + FILL_COUNT, DELIVERIES)
            await fill(full.nc, small.deliveries(first, end))
            first = end
        await full.fold(PROJECTORS)
        await full.database.execute("VACUUM (ANALYZE)")


def recipe() -> dict[str, object]:
    """What the full system was made by: when this changes, another one is made."""
    bodies = hashlib.sha256(b"".join(sample.body for sample in small.samples())).hexdigest()
    return {"deliveries": DELIVERIES, "tables": head(), "bodies": bodies}


def _written() -> object:
    path = KEPT / RECIPE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    await build()
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="odooops-bench-"))
        stack.callback(shutil.rmtree, folder)
        async with system(folder):
            pass
        results = await _starts(folder)
        full = await stack.enter_async_context(system(KEPT))
        empty = await stack.enter_async_context(system(folder))
        results += await _weight(full)
        results += await _folding(full, empty)
        results += await _latency(full, empty)
        results += await _acknowledging(full, empty)
        await full.fold()
    return results


async def _starts(empty: Path) -> list[Result]:
    """The broker alone, until it greets."""
    runs: dict[Path, list[float]] = {KEPT: [], empty: []}
    for _ in range(REPEATS):
        for folder, took in runs.items():
            port = embedded.free_port()
            command = embedded.prepare_nats(folder, port, embedded.credentials(folder)["nats"])
            began = time.perf_counter()
            async with running(command), asyncio.timeout(BROKER_START_S_MAX):
                while not await embedded.nats_answers(port):
                    await asyncio.sleep(POLL_S)
                took.append(time.perf_counter() - began)
    return [measured("start of the broker, full", "s", runs[KEPT], EMPTY, runs[empty])]


async def _weight(full: System) -> list[Result]:
    entries = await full.database.fetchval("SELECT count(*) FROM ops.deliveries")
    rows = [await full.database.fetchval(f"SELECT count(*) FROM ops.{model.name}") for model in READ_MODELS]
    tables = await full.database.fetchval("SELECT pg_database_size(current_database())")
    store = full.given.folder / "nats" / "jetstream"
    log, events = (
        sum(path.stat().st_size for path in store.rglob(f"streams/{stream}/**/*") if path.is_file())
        for stream in (streams.DELIVERIES, streams.EVENTS)
    )
    return [
        measured("the full system: deliveries in the ledger", "", [entries]),
        measured("the full system: rows in all other tables", "", [sum(rows) - entries]),
        measured("the full system on disk: log, compressed by the broker", "GB", [log / GIGA]),
        measured("the full system on disk: events", "GB", [events / GIGA]),
        measured("the full system on disk: tables and indexes", "GB", [tables / GIGA]),
    ]


async def _folding(full: System, empty: System) -> list[Result]:
    """Fresh deliveries, drained by turns. As many known things are in the empty system as the turn speaks of."""
    chosen = random.Random(SEED)  # the same ones in each run
    runs: dict[bool, Runs] = {True: defaultdict(list), False: defaultdict(list)}
    for repeat in range(-1, REPEATS):  # the first one warms up
        for is_full, which in ((True, full), (False, empty)):
            if not is_full:
                await which.forget()
                await fill(which.nc, small.deliveries(0, FRESH // 2))
                await which.fold()
            first = await which.last_seq()
            known = chosen.sample(range(DELIVERIES if is_full else FRESH // 2), FRESH // 2)
            await fill(which.nc, small.news(first, known, 1 + first // FRESH))
            for figure, value in (await which.fold()).items():
                if repeat >= 0:
                    runs[is_full][figure].append(value)
    return [
        measured(f"folding, full: {name}", unit, runs[True][figure], EMPTY, runs[False][figure])
        for figure, name, unit in (
            ("µs", "time for a delivery", "µs"),
            ("projector", "CPU of the projector for one", "µs"),
            ("Postgres", "CPU of Postgres for one", "µs"),
            ("broker", "CPU of the broker for one", "µs"),
            ("WAL", "write-ahead log for one", "B"),
        )
    ]


async def _latency(full: System, empty: System) -> list[Result]:
    rate = latency.TARGET_PER_S
    runs: dict[bool, Runs] = {True: defaultdict(list), False: defaultdict(list)}
    async with latency.path(full.given) as full_path, latency.path(empty.given) as empty_path:
        for _ in range(REPEATS):
            for is_full, way in ((True, full_path), (False, empty_path)):
                for figure, value in (await way.window(rate)).items():
                    runs[is_full][figure].append(value)
    return [
        measured(
            f"webhook to visible row at {rate}/s, full, {name}",
            "ms",
            runs[True][figure],
            EMPTY,
            runs[False][figure],
        )
        for figure, name in (("p50_ms", "p50"), ("p99_ms", "p99"))
    ]


async def _acknowledging(full: System, empty: System) -> list[Result]:
    """Webhooks answered with nobody folding them meanwhile."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    async with AsyncExitStack() as stack:
        loads = {}
        for is_full, which in ((True, full), (False, empty)):
            address, _ = await stack.enter_async_context(door("services.ingest", which.given.nats["ingest"]))
            command = [sys.executable, "-m", "bench.load", "http", address, SMALL, str(CONNECTIONS)]
            loads[is_full] = await stack.enter_async_context(running(command, stdin=PIPE, stdout=PIPE))
        for repeat in range(-1, REPEATS):  # the first one warms up
            for is_full, generator in loads.items():
                assert generator.stdin is not None
                assert generator.stdout is not None
                generator.stdin.write(f"{WINDOW_S}\n".encode())
                async with asyncio.timeout(WINDOW_S + START_S_MAX):
                    found = json.loads(await generator.stdout.readline())
                if repeat >= 0:
                    rates[is_full].append(found["rate"])
    return [
        measured(
            f"ingest, 5 KB bodies, {CONNECTIONS} connections, full", "/s", rates[True], EMPTY, rates[False]
        )
    ]


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
