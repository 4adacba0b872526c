"""How a service lives: one event loop, a clean stop on SIGTERM, health and metrics on a port of their own."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.ssot import BadSsot
from runtime import log as logs
from runtime import settings as settings_module
from runtime import tracing
from runtime.ports import LISTEN_BACKLOG
from runtime.settings import BadSettings, Settings
from runtime.version import VERSION

HEAD_READ_MS_MAX = 10_000
"""Of a request's head; a connection on which nothing comes is closed after this time, too."""
HEAD_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 4_096
"""Open at once, where the process may have so many files open; more wait to be accepted."""
OTHER_FILES_MAX = 256
STOP_S_MAX = 6.0
"""For the requests in hand, after a process was told to stop. It promises to have ended within 10 s."""
OPS_STOP_S_MAX = 0.5
"""For those at the ops port: they keep nobody."""
LAST_WORDS_S_MAX = 0.5
"""For an answer to what is cut off."""
END_S_MAX = 9.5
"""After it was told to stop, a process ends whatever it waits for: a server may say nothing for a minute."""
UNREAD_MS_MAX = 10_000
"""For an answer to be taken: who asks on and on and reads nothing would hold a connection for ever."""
UNHEARD_S_MAX = 0.2
"""From a connection that was accepted to the first that is heard on it."""
LOOPBACK = "127.0.0.1"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared with, not bound to

LOOK_S_MAX = 2.0
"""For one server to say how it is."""
MEASURE_S_MAX = 4.0
"""For what is measured when figures are asked for. Prometheus waits for 10 s."""

BUILD = Gauge("odooops_build_info", "1: which code the process runs", ["service", "version"])
PROBLEM = Gauge(
    "odooops_problem", "1 for each part that keeps the process from its work, as /readyz names it", ["part"]
)

EXIT_LOST = 70
"""The exit code of a process that only a restart can help."""

Ready = Callable[[], Coroutine[Any, Any, dict[str, str]]]
"""What is wrong, by part; empty when all is well."""
Measure = Callable[[], Coroutine[Any, Any, None]]
"""Sets the gauges that nothing sets by itself: first to what is not known, in case it is cut off."""
T = TypeVar("T")
_let_go: set[asyncio.Task[Any]] = set()
"""What `within` no longer waits for."""


class _Server(Server):
    """Granian, on a socket that listens already and is its own from then on."""

    def __init__(self, app: ASGIApp, listening_fd: int, **how: Any) -> None:
        super().__init__(app, **how)
        self._listening_fd = listening_fd

    def _init_shared_socket(self) -> None:
        self._ssp = None
        holder: Any = SocketHolder  # its author did not tell its type how it is made
        self._shd: Any = holder(self._listening_fd, uds=False, backlog=LISTEN_BACKLOG)
        self._sfd: Any = self._listening_fd


@asynccontextmanager
async def serve_http(
    app: ASGIApp,
    host: str,
    port: int,
    listening_fd: int | None = None,
    leave: Callable[[], Awaitable[None]] | None = None,
    stop_s_max: float | None = None,
) -> AsyncIterator[None]:
    """Serve `app` in this event loop while the block runs; on the way out, `leave` and finish the requests in hand.

    Those that are still in hand `stop_s_max` (STOP_S_MAX) after the block are cancelled, and may answer yet.
    `listening_fd` is a socket that listens there already; whoever else has it serves on when we stop.
    """
    in_hand: set[asyncio.Task[Any]] = set()

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        in_hand.add(task)
        try:
            await app(scope, receive, send)
        finally:
            in_hand.discard(task)

    listener = await _listener(host, port) if listening_fd is None else _given(listening_fd)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; each connection has it of the socket that it came by
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS_MAX)
    server = _Server(
        known,
        listener.detach(),
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backpressure=connections_max(),
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_READ_MS_MAX, max_buffer_size=HEAD_BYTES_MAX),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    serving.add_done_callback(_ended_by_itself)
    try:
        yield
    finally:
        serving.remove_done_callback(_ended_by_itself)
        loop = asyncio.get_running_loop()
        until = loop.time() + (STOP_S_MAX if stop_s_max is None else stop_s_max)
        if leave is not None:
            await leave()
        if listening_fd is not None:
            with _accepting_nothing(listening_fd):
                await asyncio.sleep(UNHEARD_S_MAX)
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=until - loop.time())
        for task in in_hand:
            task.cancel()
        await asyncio.wait({serving}, timeout=LAST_WORDS_S_MAX)


def connections_max() -> int:
    """CONNECTIONS_MAX, or as many as the limit of open files allows, which is raised as far as it may be."""
    wanted = CONNECTIONS_MAX + OTHER_FILES_MAX
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - OTHER_FILES_MAX)


def _ended_by_itself(serving: asyncio.Task[None]) -> None:
    lost("the HTTP server has ended")


@contextmanager
def _accepting_nothing(listening_fd: int) -> Iterator[None]:
    """From here on, leave new connections to whoever else has the socket.

    Granian closes a connection of which it has heard nothing yet when it stops, and cannot be told to accept no more:
    so each of its descriptors of that socket becomes one of a socket that nobody connects to.
    """
    ours = os.fstat(listening_fd).st_ino
    with socket.create_server((LOOPBACK, 0)) as nobodys:
        nobodys.setblocking(False)  # noqa: FBT003
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # the one by which the folder was read
                if os.fstat(int(name)).st_ino == ours:
                    os.dup2(nobodys.fileno(), int(name))
        yield


def _given(descriptor: int) -> socket.socket:
    """The socket that was handed to us; raises BadSettings where it does not listen for TCP, or is none."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise BadSettings(f"ODOOOPS_LISTEN_FD is {descriptor}: {error.strerror}") from None
    internet = found.family in (socket.AF_INET, socket.AF_INET6)
    if not internet or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.detach()
        raise BadSettings(f"ODOOOPS_LISTEN_FD is {descriptor}: that is no TCP socket that listens")
    return found


async def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises BadSettings where this process cannot.

    The port may be held for it (`ports.reserve`), so it is shared: two that listen would split the requests.
    """
    try:
        family, kind, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(found)
            if await _answers(str(found[0]), port):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            listener.listen(LISTEN_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadSettings(f"cannot listen on {host}:{port}: {reason}") from None
    return listener


async def _answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection(_EVERYWHERE.get(address, address), port)
    except OSError:
        return False
    writer.close()
    return True


async def _nothing() -> None:
    return


async def within(seconds: float, asking: Coroutine[Any, Any, T]) -> T:
    """What `asking` returns; raises TimeoutError after `seconds`.

    Unlike `asyncio.timeout` it does not wait until what it cancels has ended: the client of a database that hangs may
    take as long again to give its connection back.
    """
    task = asyncio.create_task(asking)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _let_go.add(task)
            task.add_done_callback(_gone)
    if task in _let_go:
        raise TimeoutError
    return task.result()


def _gone(task: asyncio.Task[Any]) -> None:
    _let_go.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, or Python complains of one that nobody has seen


def ops_app(ready: Ready, measure: Measure = _nothing) -> Starlette:
    """/healthz (the loop turns), /readyz (the work can be done; 503 names what is wrong) and /metrics."""
    measuring: asyncio.Task[None] | None = None

    async def known() -> dict[str, str]:
        try:
            return await within(MEASURE_S_MAX, ready())
        except TimeoutError:
            return {"unknown": f"not known within {MEASURE_S_MAX:g} s"}

    async def measured_in_time() -> None:
        with suppress(TimeoutError):
            await within(MEASURE_S_MAX, measure())

    async def measured() -> None:
        problems, _ = await asyncio.gather(known(), measured_in_time())
        PROBLEM.clear()
        for part in problems:
            PROBLEM.labels(part).set(1)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        problems = await known()
        return JSONResponse({"ok": not problems, "problems": problems}, 503 if problems else 200)

    async def metrics(request: Request) -> Response:
        # Whoever asks meanwhile gets the same figures: in a queue, each would wait for all before it.
        nonlocal measuring
        if measuring is None or measuring.done():
            measuring = asyncio.create_task(measured())
        await asyncio.shield(measuring)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


@asynccontextmanager
async def serve_ops(settings: Settings, ready: Ready, measure: Measure = _nothing) -> AsyncIterator[None]:
    """Serve the ops port while the block runs, where one is set."""
    if settings.odooops_ops_port == 0:
        yield
        return
    app, host, port = ops_app(ready, measure), settings.odooops_ops_host, settings.odooops_ops_port
    async with serve_http(app, host, port, stop_s_max=OPS_STOP_S_MAX):
        yield


async def before_stop(task: asyncio.Task[Any], stopping: asyncio.Event) -> bool:
    """Whether `task` is done, as it may wait for ever, before the process is told to stop; else it is cancelled."""
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        return True
    task.cancel()
    return False


def lost(reason: str) -> None:
    """End the process at once: only a new process helps, or it was to end by now."""
    sys.stderr.write(json.dumps({"level": "critical", "event": "exiting", "reason": reason}) + "\n")
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
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each that nobody asks for
    BUILD.labels(service, VERSION).set(1)
    tracing.start(service, settings, log)
    ends_at = math.inf

    async def supervised() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            nonlocal ends_at
            if not stopping.is_set():
                ends_at = time.monotonic() + END_S_MAX
                loop.call_later(END_S_MAX, lost, "what was in hand did not end in time; it comes again")
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        log.info("starting")
        await main(settings, log, stopping)
        log.info("stopped")

    try:
        uvloop.run(supervised())
    except (BadSettings, BadSsot) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the loop is gone that heard them, and it has ended well
        tracing.stop(ends_at - time.monotonic())
    return 0
