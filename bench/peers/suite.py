"""OdooOps beside what one would use instead, by turns, on one Postgres (`fsync` and `synchronous_commit` on) and with
the same GitHub deliveries.

Three kinds of work: from a filled log to ledger and rows; the door, from a signed request to its acknowledgement; and
both, from requests until the last row is there (webhook: until its last command has ended). For the first, OdooOps has
two ways: the projector, which publishes the events too, and the rebuild, which does not and uses all processors; for
the others, one. It does more than they do: it keeps every body in a log of its own, merges by version, tells a repeated
delivery and a conflict of bodies. All but the rebuild run in one process for each service that OdooOps has for it.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from nats.js import JetStreamContext

from bench import corpus, ingest, projector, rebuild
from bench.load import REAL
from bench.peers import emmett_events, install, rows, webhook_command
from bench.result import Result, measured, unmeasured
from bench.servers import POLL_S, START_S_MAX, Servers, cpu_s, running, servers, service
from read_models.registry import READ_MODELS
from runtime import bus, embedded, streams
from services.projector.understand import understand
from tests.samples import SOURCES

REPEATS = 5
DELIVERIES = 12_000
"""From 10,000 on a rebuild takes as many processes as there are processors."""
WINDOW_S = 1.5
CONNECTIONS = 64
PEER_S_MAX = 60.0
IDLE_S = 0.2
SCHEMA = "peer"
"""Where a peer has its own tables."""
OURS = "OdooOps"
REPLAY = "OdooOps's rebuild"
"""Rows and ledger without events, as the others do, before it makes its indexes."""
STARLETTE, EVENTSOURCING, PROCRASTINATE, EMMETT, WEBHOOK = (
    "Starlette handler",
    "eventsourcing",
    "procrastinate",
    "emmett-postgresql",
    "webhook",
)
COUNTS = {STARLETTE: 2_790, EVENTSOURCING: 930, PROCRASTINATE: 744, EMMETT: 1_302}
"""Each peer folds the first so many of them, which keep it busy for about two seconds."""
FILES = {
    STARLETTE: "handler.py",
    EVENTSOURCING: "eventsourcing_app.py",
    PROCRASTINATE: "procrastinate_jobs.py",
    EMMETT: "emmett_events.py",
    WEBHOOK: "webhook_command.py",
}

Rates = dict[str, list[float]]
"""Deliveries per second, by who did it."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How a peer folds a filled log: its command, which prints its rates."""

    command: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Door:
    """Somebody who takes webhooks: what one window of load makes of it, and its own tables."""

    rate: Callable[[bool], Awaitable[float]]
    """Acknowledgements per second; if so told, of requests of which all is done."""
    tables: str


def about() -> str:
    """How each peer was used, in the words of its file."""
    texts = {name: (install.HERE / file).read_text(encoding="utf-8") for name, file in FILES.items()}
    told = (f"**{name}**: {ast.get_docstring(ast.parse(text))}" for name, text in texts.items())
    return "\n\n".join([*told, f"Installed into `.bench/`: {install.versions()}."])


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    missing: dict[str, str] = {}
    async with servers() as given:
        database = await asyncpg.connect(given.postgres[embedded.MIGRATOR])
        await database.execute(f"ALTER ROLE {embedded.MIGRATOR} SET search_path = {SCHEMA}, public")
        await database.execute(f"SET search_path = {SCHEMA}, public")
        nc = await bus.connect(given.nats["operator"], "operator")
        js = nc.jetstream()
        await streams.provision(js)
        await projector.fill(nc, corpus.deliveries(DELIVERIES))
        folding = await _fold_by_turns(given, js, database, _folds(given, missing))
        await _empty(database)
        async with AsyncExitStack() as stack:
            doors = await _doors(stack, given, js, database, missing)
            taking = await _take_by_turns(js, database, doors, to_the_end=False)
            await _start_workers(stack, given, doors)
            both = await _take_by_turns(js, database, doors, to_the_end=True)
        await database.close()
        await nc.close()
    return [
        *_results(folding, "from a filled log to ledger and rows"),
        *_results(taking, f"a signed request to its acknowledgement, {CONNECTIONS} connections"),
        *_results(both, f"requests until all is done, {CONNECTIONS} connections"),
        *(unmeasured(name, reason) for name, reason in missing.items()),
    ]


def _results(rates: Rates, work: str) -> list[Result]:
    """The rates at one kind of work, and how many times as fast OdooOps was, run by run."""
    own = {name: rates.pop(name) for name in (OURS, REPLAY) if name in rates}
    results = [measured(f"{name}, {work}", "/s", found) for name, found in own.items()]
    for name, found in rates.items():
        if name not in FILES:  # a part of its work, for which OdooOps has no like
            results.append(measured(name, "/s", found))
            continue
        results.append(measured(f"{name}, {work}", "/s", found))
        for us, ours in own.items():
            ratios = [mine / its for mine, its in zip(ours, found, strict=True)]
            results.append(measured(f"{us} in times of {name}", "x", ratios))
    return results


def _folds(given: Servers, missing: dict[str, str]) -> dict[str, Fold]:
    """Those that fold, installed."""
    url, python = given.postgres[embedded.MIGRATOR], [sys.executable, "-m"]
    folds: dict[str, Fold] = {}

    def starlette() -> Fold:
        return Fold([*python, "bench.peers", "handler", "drain", url, str(COUNTS[STARLETTE])], os.environ)

    def eventsourcing() -> Fold:
        command = [*python, "bench.peers", "eventsourcing_app", "drain", url, str(COUNTS[EVENTSOURCING])]
        return Fold(command, install.python_packages())

    def procrastinate() -> Fold:
        command = [*python, "bench.peers", "procrastinate_jobs", "drain", url, str(COUNTS[PROCRASTINATE])]
        return Fold(command, install.python_packages())

    def emmett() -> Fold:
        command = install.emmett()
        events = given.folder / "events.jsonl"
        emmett_events.write_events(events, COUNTS[EMMETT])
        return Fold([*command, url, str(events)], os.environ)

    for name, make in {
        STARLETTE: starlette,
        EVENTSOURCING: eventsourcing,
        PROCRASTINATE: procrastinate,
        EMMETT: emmett,
    }.items():
        try:
            folds[name] = make()
        except install.Missing as error:
            missing[name] = str(error)
    return folds


async def _fold_by_turns(
    given: Servers, js: JetStreamContext, database: Any, folds: dict[str, Fold]
) -> Rates:
    rates: Rates = defaultdict(list)
    for _ in range(REPEATS):
        rates[OURS].append((await projector.drain(given, js, by_hand=False, count=DELIVERIES))[0])
        rates[REPLAY].append((await rebuild.process_of(given, "rebuild")).replay_rate)
        for name, fold in folds.items():
            await _empty(database)
            async with running(fold.command, env={**fold.env}, stdout=PIPE, stderr=None) as process:
                async with asyncio.timeout(PEER_S_MAX):
                    said, _error = await process.communicate()
            for work, rate in json.loads(said).items():
                rates[name if work == "rows" else f"{name}, {work} alone"].append(rate)
            await _require_rows(database, name)
    return rates


async def _require_rows(database: Any, name: str) -> None:
    """Raise where a peer did not write what OdooOps would have."""
    expected: dict[str, set[Any]] = defaultdict(set)
    for delivery in rows.deliveries(COUNTS[name]):
        for model, row in rows.rows_of(understand(SOURCES, delivery)):
            expected[model.name].add(tuple(getattr(row, column) for column in model.key))
    for table, keys in expected.items():
        found = await database.fetchval(f"SELECT count(*) FROM {rows.SCHEMA}.{table}")
        if found != len(keys):
            raise RuntimeError(f"{name} wrote {found} rows of {table}, not {len(keys)}")


async def _empty(database: Any) -> None:
    """No rows, and nothing of an earlier peer."""
    await database.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    await database.execute(f"CREATE SCHEMA {SCHEMA}")
    await _truncate(database, "")


async def _truncate(database: Any, more: str) -> None:
    tables = [f"{rows.SCHEMA}.{model.name}" for model in READ_MODELS]
    await database.execute(f"TRUNCATE {', '.join([*tables, *more.split()])} CASCADE")


async def _doors(
    stack: AsyncExitStack, given: Servers, js: JetStreamContext, database: Any, missing: dict[str, str]
) -> dict[str, Door]:
    """Everybody who takes webhooks, started, each with a load of its own."""
    url = given.postgres[embedded.MIGRATOR]

    async def projected() -> bool:
        info = await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
        return not info.num_pending and not info.num_ack_pending

    async def at_once() -> bool:
        return True

    async def worked_off() -> bool:
        waiting = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
        return not await database.fetchval(waiting)

    async def door(address: str, tables: str, done: Callable[[], Awaitable[bool]]) -> Door:
        load = await stack.enter_async_context(ingest.load("http", address, REAL, CONNECTIONS))

        async def rate(to_the_end: bool) -> float:
            return await _rate(load, done if to_the_end else None)

        return Door(rate, tables)

    async def python_door(module: str, env: Mapping[str, str]) -> str:
        port = embedded.free_port()
        command = [sys.executable, "-m", "bench.peers", module, "serve", url, str(port)]
        await stack.enter_async_context(running(command, env={**env}))
        return await _listening(port)

    address, _ = await stack.enter_async_context(ingest.door("services.ingest", given.nats["ingest"]))
    doors = {OURS: await door(address, "", projected)}
    doors[STARLETTE] = await door(await python_door("handler", os.environ), "deliveries", at_once)
    try:
        address = await python_door("procrastinate_jobs", install.python_packages())
        doors[PROCRASTINATE] = await door(address, "procrastinate_jobs", worked_off)
    except install.Missing as error:
        missing[PROCRASTINATE] = str(error)
    try:
        doors[WEBHOOK] = Door(partial(_webhook_rate, install.webhook(), given.folder), "")
    except install.Missing as error:
        missing[WEBHOOK] = str(error)
    return doors


async def _webhook_rate(binary: str, folder: Path, to_the_end: bool) -> float:
    """A window of a process of its own: the commands that it did not come to must not run in the next one's time."""
    config, port = folder / "hooks.json", embedded.free_port()
    config.write_text(webhook_command.hooks(), encoding="utf-8")
    async with running(webhook_command.command(binary, config, port)) as process:
        address = await _listening(port)
        async with ingest.load("http", address, REAL, CONNECTIONS) as load:
            return await _rate(load, partial(_idle, process.pid) if to_the_end else None)


async def _idle(pid: int) -> bool:
    before = cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    return cpu_s(pid) == before


async def _start_workers(stack: AsyncExitStack, given: Servers, doors: dict[str, Door]) -> None:
    """What makes the rows of those whose door does not."""
    settings = {
        "NATS_URL_PROJECTOR": given.nats["projector"],
        "DATABASE_URL_PROJECTOR": given.postgres["projector"],
    }
    await stack.enter_async_context(service("projector", settings))
    if PROCRASTINATE in doors:
        url = given.postgres[embedded.MIGRATOR]
        command = [sys.executable, "-m", "bench.peers", "procrastinate_jobs", "work", url, "0"]
        await stack.enter_async_context(running(command, env={**install.python_packages()}))


async def _take_by_turns(
    js: JetStreamContext, database: Any, doors: dict[str, Door], *, to_the_end: bool
) -> Rates:
    """Windows of load by turns."""
    rates: Rates = defaultdict(list)
    for repeat in range(-1, REPEATS):  # the first one warms up
        for name, door in doors.items():
            await js.purge_stream(streams.DELIVERIES)
            await _truncate(database, door.tables)
            rate = await door.rate(to_the_end)
            if repeat >= 0:
                rates[name].append(rate)
    return rates


async def _rate(load: Process, done: Callable[[], Awaitable[bool]] | None) -> float:
    """A window: how many acknowledgements a second, or where `done` is given, how many until that held."""
    assert load.stdin is not None
    assert load.stdout is not None
    started = time.perf_counter()
    load.stdin.write(f"{WINDOW_S}\n".encode())
    async with asyncio.timeout(PEER_S_MAX):
        found: dict[str, float] = json.loads(await load.stdout.readline())
        if found["refused"]:
            raise RuntimeError(f"{found['refused']} requests were not answered with 200")
        if done is None:
            return found["rate"]
        while not await done():
            await asyncio.sleep(POLL_S)
    return found["count"] / (time.perf_counter() - started)


async def _listening(port: int) -> str:
    """The address, once somebody is there."""
    async with asyncio.timeout(START_S_MAX):
        while True:
            try:
                _, writer = await asyncio.open_connection(embedded.LOOPBACK, port)
            except OSError:
                await asyncio.sleep(POLL_S)
            else:
                writer.close()
                return f"http://{embedded.LOOPBACK}:{port}"


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
