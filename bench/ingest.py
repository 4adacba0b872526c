"""Ingest beside its limit: acknowledged deliveries per second over HTTP and bare publishes to the same stream.

The real process, the real broker with every write fsynced, 64 keep-alive connections; every window of ingest
has a window of bare nats-py publishing beside it, because a virtual machine's disk is not the same twice.
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
from bench.servers import POLL_S, START_S_MAX, cpu_s, running, service
from runtime import bus, embedded, ports, streams

REPEATS = 5
WINDOW_S = 1.5
CONNECTIONS = 64

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
        address, pid = await stack.enter_async_context(door(urls["ingest"]))
        loads = {}
        for bodies in (REAL, SMALL):
            for name, protocol, where in (("ingest", "http", address), ("bare", "nats", urls["operator"])):
                for senders in (CONNECTIONS, 1):
                    loads[name, bodies, senders] = await stack.enter_async_context(
                        load(protocol, where, bodies, senders)
                    )
        runs: Runs = defaultdict(list)
        for repeat in range(-1, REPEATS):  # the first one warms up
            for what in list(loads)[:: 1 if repeat % 2 else -1]:
                before = cpu_s(pid)
                found = await _window(loads[what], WINDOW_S)
                if found["refused"]:
                    raise RuntimeError(f"{what}: {found['refused']} requests were not answered with 200")
                found["cpu_us"] = 1e6 * (cpu_s(pid) - before) / found["count"]
                await js.purge_stream(streams.DELIVERIES)
                for figure, value in found.items() if repeat >= 0 else ():
                    runs[*what, figure].append(value)
        return _results(runs)


def _results(runs: Runs) -> list[Result]:
    results = []
    limit = "bare js.publish"
    for bodies, words in ((REAL, "real bodies"), (SMALL, "5 KB bodies")):
        rates, bare = (runs[who, bodies, CONNECTIONS, "rate"] for who in ("ingest", "bare"))
        results += [
            measured(f"{limit}, {words}, {CONNECTIONS} at once", "/s", bare),
            measured(f"ingest, {words}, {CONNECTIONS} connections", "/s", rates, limit, bare),
            measured(
                f"ingest, {words}, its processor time for one",
                "µs",
                runs["ingest", bodies, CONNECTIONS, "cpu_us"],
            ),
        ]
        for figure, name in (("p50_ms", "p50"), ("p99_ms", "p99")):
            alone, bare = (runs[who, bodies, 1, figure] for who in ("ingest", "bare"))
            results.append(measured(f"ingest, {words}, one alone, {name}", "ms", alone, limit, bare))
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
async def door(url: str) -> AsyncIterator[tuple[str, int]]:
    """The real ingest, ready: its address and process id."""
    port, ops_port = embedded.free_port(), embedded.free_port()
    settings = {
        "NATS_URL_INGEST": url,
        "ODOOOPS_PORT": str(port),
        "ODOOOPS_OPS_PORT": str(ops_port),
        "GITHUB_WEBHOOK_SECRET": corpus.SECRET.decode(),
    }
    async with service("ingest", settings) as process:
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
