"""Webhook to visible row: from before the request is sent to a reader that sees the ledger's row."""

from __future__ import annotations

import asyncio
import statistics
import time

import asyncpg
import httpx
import uvloop

from bench import corpus
from bench.result import Result, measured
from bench.servers import POLL_S, START_S_MAX, Servers, servers, service
from runtime import bus, embedded, streams

OFFERED_PER_S = 200
WINDOWS = 5
WINDOW_S = 4.0
LOOK_EVERY_S = 0.002
SEEN_S_MAX = 30.0


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    async with servers() as given:
        nc = await bus.connect(given.nats["operator"], "operator")
        await streams.provision(nc.jetstream())
        await nc.close()
        port = embedded.free_port()
        ingest = {
            "NATS_URL_INGEST": given.nats["ingest"],
            "ODOOOPS_PORT": str(port),
            "GITHUB_WEBHOOK_SECRET": corpus.SECRET.decode(),
        }
        projector = {
            "NATS_URL_PROJECTOR": given.nats["projector"],
            "DATABASE_URL_PROJECTOR": given.postgres["projector"],
        }
        async with service("ingest", ingest), service("projector", projector):
            windows = await _windows(given, f"http://{embedded.LOOPBACK}:{port}")
    medians = [1e3 * statistics.median(window) for window in windows]
    worst = [1e3 * statistics.quantiles(window, n=100)[98] for window in windows]
    return [
        measured(f"webhook to visible row at {OFFERED_PER_S}/s, p50", "ms", medians),
        measured(f"webhook to visible row at {OFFERED_PER_S}/s, p99", "ms", worst),
    ]


async def _windows(given: Servers, url: str) -> list[list[float]]:
    count = int(OFFERED_PER_S * WINDOW_S)
    prepared = list(corpus.requests(count * (WINDOWS + 1)))
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=START_S_MAX) as client:
        async with asyncio.timeout(START_S_MAX):
            while not await _answers(client):
                await asyncio.sleep(POLL_S)
        connection = await asyncpg.connect(given.postgres["reader"])
        windows = [
            await _window(client, connection, prepared[n * count : (n + 1) * count])
            for n in range(WINDOWS + 1)
        ]
        await connection.close()
    return windows[1:]  # the first one warms up


async def _window(
    client: httpx.AsyncClient, connection: asyncpg.Connection, prepared: list[tuple[bytes, dict[str, str]]]
) -> list[float]:
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    looking = asyncio.create_task(_look(connection, len(prepared), seen))
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n, (body, headers) in enumerate(prepared):
            await asyncio.sleep(max(0.0, started + n / OFFERED_PER_S - time.perf_counter()))
            sent[headers["x-github-delivery"]] = time.perf_counter()
            group.create_task(_post(client, body, headers))
    await asyncio.wait_for(looking, SEEN_S_MAX)
    return [seen[identity] - at for identity, at in sent.items()]


async def _post(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
    answer = await client.post("/webhooks/github", content=body, headers=headers)
    answer.raise_for_status()


async def _look(connection: asyncpg.Connection, count: int, seen: dict[str, float]) -> None:
    """Note when each new row of the ledger is first seen."""
    last = await connection.fetchval("SELECT COALESCE(max(stream_seq), 0) FROM ops.deliveries")
    while len(seen) < count:
        rows = await connection.fetch("SELECT identity FROM ops.deliveries WHERE stream_seq > $1", last)
        now = time.perf_counter()
        for row in rows:
            seen.setdefault(row["identity"], now)
        await asyncio.sleep(LOOK_EVERY_S)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
