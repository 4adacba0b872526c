"""How a service lives: one event loop, a clean stop on SIGTERM, health and metrics on a port of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from runtime import log as logs
from runtime import settings as settings_module
from runtime.settings import BadSettings, Settings

HEADER_READ_MS_MAX = 10_000
REQUESTS_AT_ONCE_MAX = 1024
LISTEN_BACKLOG = 1024
STOP_S_MAX = 10.0
LISTEN_S_MAX = 5.0
_EVERYWHERE = "0.0.0.0"  # noqa: S104  # compared with, not bound to

EXIT_LOST = 70
"""The exit code of a process that only a restart can help."""

Ready = Callable[[], Awaitable[dict[str, str]]]
"""What is wrong, by part; empty when all is well."""


@asynccontextmanager
async def serve_http(app: ASGIApp, host: str, port: int) -> AsyncIterator[None]:
    """Serve `app` in this event loop while the block runs; on the way out, requests in hand are finished."""
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=LISTEN_BACKLOG,
        backpressure=REQUESTS_AT_ONCE_MAX,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_MS_MAX),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    try:
        await _until_listening(serving, host, port)
        yield
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=STOP_S_MAX)


async def _until_listening(serving: asyncio.Task[None], host: str, port: int) -> None:
    async with asyncio.timeout(LISTEN_S_MAX):
        while True:
            if serving.done():
                raise BadSettings(f"cannot listen on {host}:{port}: {serving.exception()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1" if host == _EVERYWHERE else host, port)
            except OSError:
                await asyncio.sleep(0.01)  # the server says by no signal when it listens
            else:
                writer.close()
                return


def ops_app(ready: Ready) -> Starlette:
    """/healthz (the loop turns), /readyz (the work can be done; 503 names what is wrong) and /metrics."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        problems = await ready()
        return JSONResponse({"ok": not problems, "problems": problems}, 503 if problems else 200)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


@asynccontextmanager
async def serve_ops(settings: Settings, ready: Ready) -> AsyncIterator[None]:
    """Serve the ops port while the block runs, where one is set."""
    if settings.odooops_ops_port == 0:
        yield
        return
    async with serve_http(ops_app(ready), settings.odooops_ops_host, settings.odooops_ops_port):
        yield


def lost(reason: str) -> None:
    """End the process at once: its broker client has given up for good, and only a new process helps."""
    sys.stderr.write(f'{{"level": "critical", "event": "exiting", "reason": "{reason}"}}\n')
    sys.stderr.flush()
    os._exit(EXIT_LOST)


def run(service: str, main: Callable[[Settings, Any, asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run `main(settings, log, stopping)` until it returns; SIGTERM and SIGINT set `stopping`. The exit code."""
    try:
        settings = settings_module.load()
    except BadSettings as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    log = logs.configure(service, settings.odooops_log_format)

    async def supervised() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        log.info("starting")
        await main(settings, log, stopping)
        log.info("stopped")

    try:
        uvloop.run(supervised())
    except BadSettings as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    return 0
