"""Ingest beside its limits: acknowledged deliveries per second over HTTP, bare publishes to the same stream, and
the door with no log behind it.

The real process, the real broker with every write fsynced, keep-alive connections that each send the next request
when the last is answered; every window of ingest has one of the others beside it, because a virtual machine's disk
is not the same twice.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from bench import corpus
from bench.load import REAL, SMALL
from bench.result import Result, measured
from bench.servers import POLL_S, START_S_MAX, cpu_s, module, running
from runtime import bus, embedded, ports, streams

REPEATS = 5
WINDOW_S = 1.5
FEW, MANY = 64, 256
"""Connections."""
INGEST, BARE, VERIFY = "ingest", "bare js.publish", "verifying alone"
WINDOWS = [
    *((who, bodies, senders) for bodies in (REAL, SMALL) for who in (INGEST, BARE) for senders in (1, FEW)),
    *((who, SMALL, MANY) for who in (INGEST, BARE)),
    *((VERIFY, SMALL, senders) for senders in (FEW, MANY)),
]
WORDS = {REAL: "real bodies", SMALL: "5 KB bodies"}

Runs = dict[tuple[str, str, int, str], list[float]]
"""By who took them, which bodies, how many at once, and the figure."""


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="odooops-bench-"))
        stack.callback(shutil.rmtree, folder)
        urls = await stack.enter_async_context(broker(folder))
        nc = await bus.connect(urls["operator"], "operator")
        stack.push_async_callback(nc.close)
        js = nc.jetstream()
        await streams.provision(js)
        address, pid = await stack.enter_async_context(door("services.ingest", urls["ingest"]))
        verifying, verifying_pid = await stack.enter_async_context(door("bench.verify_only", urls["ingest"]))
        at = {INGEST: ("http", address), BARE: ("nats", urls["operator"]), VERIFY: ("http", verifying)}
        pids = {INGEST: pid, BARE: pid, VERIFY: verifying_pid}
        loads = {}
        for who, bodies, senders in WINDOWS:
            loads[who, bodies, senders] = await stack.enter_async_context(load(*at[who], bodies, senders))
        runs: Runs = defaultdict(list)
        for repeat in range(-1, REPEATS):  # the first one warms up
            for what in list(loads)[:: 1 if repeat % 2 else -1]:
                before = cpu_s(pids[what[0]])
                found = await _window(loads[what], WINDOW_S)
                if found["refused"]:
                    raise RuntimeError(f"{what}: {found['refused']} requests were not answered with 200")
                found["cpu_us"] = 1e6 * (cpu_s(pids[what[0]]) - before) / found["count"]
                await js.purge_stream(streams.DELIVERIES)
                for figure, value in found.items() if repeat >= 0 else ():
                    runs[*what, figure].append(value)
        return _results(runs)


def _results(runs: Runs) -> list[Result]:
    results = []
    for bodies, senders in ((REAL, FEW), (SMALL, FEW), (SMALL, MANY)):
        rates, bare = (runs[who, bodies, senders, "rate"] for who in (INGEST, BARE))
        words = f"{WORDS[bodies]}, {senders} connections"
        results += [
            measured(f"{BARE}, {words}", "/s", bare),
            measured(f"ingest, {words}", "/s", rates, BARE, bare),
            measured(f"ingest, {words}, p99", "ms", runs[INGEST, bodies, senders, "p99_ms"]),
            measured(f"ingest, {words}, its CPU for one", "µs", runs[INGEST, bodies, senders, "cpu_us"]),
        ]
        if ceiling := runs.get((VERIFY, bodies, senders, "rate")):
            results.append(
                measured(f"ingest beside the door without a log, {words}", "/s", rates, VERIFY, ceiling)
            )
    for bodies in (REAL, SMALL):
        for figure, name in (("p50_ms", "p50"), ("p99_ms", "p99")):
            alone, bare = (runs[who, bodies, 1, figure] for who in (INGEST, BARE))
            results.append(measured(f"ingest, {WORDS[bodies]}, one alone, {name}", "ms", alone, BARE, bare))
    return results


async def _window(generator: Process, seconds: float) -> dict[str, float]:
    assert generator.stdin is not None
    assert generator.stdout is not None
    generator.stdin.write(f"{seconds}\n".encode())
    async with asyncio.timeout(seconds + START_S_MAX):
        found: dict[str, float] = json.loads(await generator.stdout.readline())
    return found


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[dict[str, str]]:
    """A broker alone, with an address per user; a database beside it would take its part of the disk."""
    port = embedded.free_port()
    passwords = embedded.credentials(folder)["nats"]
    async with running(embedded.prepare_nats(folder, port, passwords)):
        async with asyncio.timeout(START_S_MAX):
            while not await embedded.nats_answers(port):
                await asyncio.sleep(POLL_S)
        yield {user: embedded.nats_url(port, user, passwords) for user in passwords}


@asynccontextmanager
async def door(name: str, url: str) -> AsyncIterator[tuple[str, int]]:
    """A door, `services.ingest` or one like it, ready: its address and process id."""
    port, ops_port = embedded.free_port(), embedded.free_port()
    settings = {
        "NATS_URL_INGEST": url,
        "ODOOOPS_PORT": str(port),
        "ODOOOPS_OPS_PORT": str(ops_port),
        "GITHUB_WEBHOOK_SECRET": corpus.SECRET.decode(),
    }
    async with module(name, settings) as process:
        async with asyncio.timeout(START_S_MAX):
            while await ports.problems_at(embedded.LOOPBACK, ops_port) != {}:
                await asyncio.sleep(POLL_S)
        yield f"http://{embedded.LOOPBACK}:{port}", process.pid


def load(protocol: str, address: str, bodies: str, senders: int) -> AbstractAsyncContextManager[Process]:
    """A generator of load, waiting for its first window."""
    command = [sys.executable, "-m", "bench.load", protocol, address, bodies, str(senders)]
    return running(command, stdin=PIPE, stdout=PIPE)


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
