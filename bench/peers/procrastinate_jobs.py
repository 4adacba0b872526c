"""procrastinate 3.10.0 (PyPI), a queue of jobs in Postgres: the webhook defers a job, a worker upserts.

Follows https://procrastinate.readthedocs.io/en/stable/howto/basics/defer.html, …/basics/batch_defer.html (to fill the
queue), …/basics/connector.html and …/basics/worker.html: the async `PsycopgConnector`, one worker in one process, ten
jobs at a time (thirty, as in its documentation, were no faster). The body travels in the job's arguments as Base64: as
JSON text, of which its driver escapes each quote twice in Python, deferring took three times as long. The job
understands it by our code and upserts ledger and rows in one transaction over a pool of asyncpg's.

It leaves out: a log to fold again from (a finished job is history), merging by version, conflicts of bodies, the
recognition of a delivery that comes twice, events for subscribers.
"""

from __future__ import annotations

import itertools
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

from procrastinate import App, PsycopgConnector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.peers import handler, rows
from bench.peers.said import say
from contracts.delivery import Delivery

QUEUE = "deliveries"
CONCURRENCY = 10
CONNECTIONS = 10
DEFERRED_AT_ONCE = 500


def make(url: str, pool: Any = None) -> tuple[App, Any]:
    """The application and its one task."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=CONNECTIONS, max_size=CONNECTIONS))

    @app.task(queue=QUEUE, name="fold")
    async def fold(*, body: str, received_at: float, **named: Any) -> None:
        at = datetime.fromtimestamp(received_at, UTC)
        delivery = Delivery(via="webhook", received_at=at, body=b64decode(body), **named)
        async with pool.acquire() as connection:
            await handler.store(connection, delivery, ledger=True)

    return app, fold


def arguments(delivery: Delivery) -> dict[str, Any]:
    """What a job knows of its delivery."""
    return {
        "source": delivery.source,
        "identity": delivery.identity,
        "kind": delivery.kind,
        "received_at": delivery.received_at.timestamp(),
        "body": b64encode(delivery.body).decode(),
        "body_sha256": delivery.body_sha256,
        "headers": dict(delivery.headers),
        "seq": delivery.seq,
    }


async def serve(url: str, port: int) -> None:
    """Take webhooks until SIGTERM: a job each."""
    app, fold = make(url)
    numbers = itertools.count(1)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def webhook(request: Request) -> Response:
            body = await request.body()
            if not handler.verified(body, request.headers):
                return JSONResponse({"ok": False}, status_code=401)
            await fold.defer_async(**arguments(handler.received(request, body, next(numbers))))
            return JSONResponse({"ok": True})

        routes = [Route("/webhooks/github", webhook, methods=["POST"])]
        await handler.until_told(Starlette(routes=routes), port)


async def work(url: str, _: int) -> None:
    """Work off jobs until SIGTERM."""
    async with handler.pool_of(url) as pool:
        app, _ = make(url, pool)
        async with app.open_async():
            await app.run_worker_async(queues=[QUEUE], concurrency=CONCURRENCY)


async def drain(url: str, count: int) -> None:
    """`count` jobs, deferred before, worked off."""
    async with handler.pool_of(url) as pool:
        app, fold = make(url, pool)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            jobs = [arguments(delivery) for delivery in rows.deliveries(count)]
            for n in range(0, count, DEFERRED_AT_ONCE):
                await fold.batch_defer_async(*jobs[n : n + DEFERRED_AT_ONCE])
            started = time.perf_counter()
            await app.run_worker_async(
                queues=[QUEUE], concurrency=CONCURRENCY, wait=False, install_signal_handlers=False
            )
            say(rows=count / (time.perf_counter() - started))
