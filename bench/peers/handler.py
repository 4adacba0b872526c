"""What one would write instead: Starlette and asyncpg, one handler, one transaction for each delivery.

Follows https://www.starlette.io/requests/ and https://magicstack.github.io/asyncpg/current/usage.html#connection-pools,
served by granian in one process, as ours is. The handler verifies the HMAC over the raw bytes, understands the body by
our code, and in one Postgres transaction inserts the delivery with its body and upserts the rows of its read models;
then it answers. Where the log is filled already, the same transaction runs without HTTP and without the body, from
memory, as often at a time as the pool has connections.

It leaves out: a log to fold again from, merging by version (the last write wins), conflicts of bodies, events for
subscribers, limits on bodies and memory, answers when Postgres is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench import corpus
from bench.peers import rows
from bench.peers.said import say
from contracts.delivery import Delivery, body_sha256
from runtime import embedded, process
from services.projector.understand import understand
from tests.samples import SOURCES

CONNECTIONS = 10
UPSERTS = rows.upserts("$")
TABLE = """
CREATE TABLE IF NOT EXISTS deliveries (
  source text, identity text, kind text, received_at timestamptz, body_sha256 text, body bytea,
  PRIMARY KEY (source, identity))
"""
INSERT = "INSERT INTO deliveries VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"


async def store(connection: Any, delivery: Delivery, *, ledger: bool) -> None:
    """One delivery, in one transaction: with its body at the door, with a row of the ledger from a filled log."""
    understood = understand(SOURCES, delivery)
    async with connection.transaction():
        if not ledger:
            d = delivery
            await connection.execute(
                INSERT, d.source, d.identity, d.kind, d.received_at, d.body_sha256, d.body
            )
        for model, row in rows.rows_of(understood, ledger=ledger):
            await connection.execute(UPSERTS[model.name], *rows.values(model, row))


def verified(body: bytes, headers: Any) -> bool:
    """Whether GitHub's signature is that of the body."""
    signature = "sha256=" + hmac.new(corpus.SECRET, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, headers.get("x-hub-signature-256", ""))


def received(request: Request, body: bytes, seq: int) -> Delivery:
    """The delivery that a request brings."""
    return Delivery(
        source="github",
        identity=request.headers["x-github-delivery"],
        kind=request.headers["x-github-event"],
        via="webhook",
        received_at=datetime.now(UTC),
        body=body,
        body_sha256=body_sha256(body),
        headers={name: request.headers[name] for name in ("x-github-event", "content-type")},
        seq=seq,
    )


async def serve(url: str, port: int) -> None:
    """Take webhooks until SIGTERM."""
    numbers = itertools.count(1)
    async with pool_of(url) as pool:
        await pool.execute(TABLE)

        async def webhook(request: Request) -> Response:
            body = await request.body()
            if not verified(body, request.headers):
                return JSONResponse({"ok": False}, status_code=401)
            async with pool.acquire() as connection:
                await store(connection, received(request, body, next(numbers)), ledger=False)
            return JSONResponse({"ok": True})

        await until_told(Starlette(routes=[Route("/webhooks/github", webhook, methods=["POST"])]), port)


async def until_told(app: Starlette, port: int) -> None:
    """Serve `app` as our ingest is served, until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with process.serve_http(app, embedded.LOOPBACK, port):
        await stopping.wait()


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[Any]:
    """Connections, all open."""
    pool = await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    try:
        yield pool
    finally:
        await pool.close()


async def drain(url: str, count: int) -> None:
    """`count` deliveries from memory."""
    waiting = iter(list(rows.deliveries(count)))
    async with pool_of(url) as pool:

        async def work() -> None:
            async with pool.acquire() as connection:
                for delivery in waiting:
                    await store(connection, delivery, ledger=True)

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
        say(rows=count / (time.perf_counter() - started))
