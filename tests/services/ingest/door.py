"""A door in the test's own event loop, and what a test says to it: over real HTTP, to a real broker."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import structlog
from nats.js import JetStreamContext

from contracts.delivery import Delivery
from providers.github import PROVIDER
from providers.github.verify import sign
from providers.port import Secret
from runtime import bus, embedded, process, streams
from services.ingest.group_commit import store_by
from services.ingest.limits import Limits, Network
from services.ingest.receive import Endpoint, Receiver
from services.ingest.spool import Spool
from tests.providers.driving import source_of

HOST = embedded.LOOPBACK
SECRET = Secret("GITHUB_WEBHOOK_SECRET", b"a secret that must not be seen")
GITHUB = [Endpoint(source_of(PROVIDER), lambda: [SECRET])]
PATH = "/webhooks/github"
BODY = b'{"zen": "Keep it logically awesome.", "hook_id": 7}'
WAIT_S_MAX = 20.0
POLL_S = 0.01

T = TypeVar("T")


async def eventually(found: Callable[[], Awaitable[T]], wait_s: float = WAIT_S_MAX) -> T:
    """The first true answer of `found`; asks again and again, because a server gives no signal."""
    deadline = time.monotonic() + wait_s
    while not (answer := await found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing of the kind happened within {wait_s:g} s; last answer: {answer!r}")
        await asyncio.sleep(POLL_S)
    return answer


def signed(
    body: bytes = BODY,
    delivery: str = "d-1",
    event: str = "ping",
    content_type: str = "application/json",
    secret: Secret = SECRET,
) -> dict[str, str]:
    """The headers of a genuine request."""
    return {
        "content-type": content_type,
        "x-github-event": event,
        "x-github-delivery": delivery,
        **sign(body, secret),
    }


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, for a socket."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: door",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def request(body: bytes = BODY, sent: int | None = None, **how: Any) -> bytes:
    """A genuine request for a socket, cut off after `sent` bytes of its body."""
    headers = {"content-length": str(len(body)), **signed(body, **how)}
    return head("POST", PATH, headers) + body[:sent]


@dataclass(frozen=True)
class Reply:
    """One answer, read from a socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.body)
        return said


class Line:
    """A connection to the door, written to and read from by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bool = True, wait_s: float = WAIT_S_MAX) -> Reply:
        """The next answer; `body` is False where the method allows none."""
        async with asyncio.timeout(wait_s):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            length = int(headers.get("content-length", 0)) if body else 0
            return Reply(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        """Wait until the door has hung up."""
        async with asyncio.timeout(WAIT_S_MAX):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 20)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


@dataclass
class Door:
    """A running door and the log behind it."""

    receiver: Receiver
    port: int
    js: JetStreamContext
    """The operator's."""
    client: httpx.AsyncClient
    written: io.StringIO = field(repr=False)

    async def post(self, body: bytes = BODY, **how: Any) -> httpx.Response:
        """A genuine request."""
        return await self.client.post(PATH, content=body, headers=signed(body, **how))

    async def refused(self, status: int, reason: str, answer: httpx.Response | Reply) -> str:
        """Check a refusal's shape, and that nothing was stored; the sentence."""
        said = answer.json()
        code = answer.status if isinstance(answer, Reply) else answer.status_code
        assert (code, answer.headers["content-type"]) == (status, "application/json")
        assert said == {"ok": False, "error": said["error"], "code": status, "reason": reason}
        assert ("retry-after" in answer.headers) == (status == 503)
        assert await self.count() == 0
        return str(said["error"])

    def line(self) -> Any:
        """A connection of one's own."""
        return line_to(self.port)

    async def count(self) -> int:
        """How many messages the log has."""
        return (await self.js.stream_info(streams.DELIVERIES)).state.messages

    async def stored(self) -> list[Delivery]:
        """Everything in the log."""
        return await stored(self.js)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log that say `event`."""
        lines = [json.loads(line) for line in self.written.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    async def holds(self, count: int) -> None:
        """Wait until this many bytes of bodies are in memory."""

        async def held() -> bool:
            return self.receiver.memory.held == count

        await eventually(held)


async def stored(js: JetStreamContext) -> list[Delivery]:
    """Everything in the log, in order."""
    last = (await js.stream_info(streams.DELIVERIES)).state.last_seq
    return [await bus.read_delivery(js, seq) for seq in range(1, last + 1)]


def logger() -> tuple[Any, io.StringIO]:
    """A log, and what is written to it."""
    written = io.StringIO()
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    return (
        structlog.wrap_logger(
            structlog.PrintLogger(written),
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(0),
        ),
        written,
    )


@asynccontextmanager
async def open_door(
    url: Callable[[str], str],
    js: JetStreamContext,
    endpoints: Sequence[Endpoint] = GITHUB,
    spool_dir: Path | None = None,
    limits: Limits | None = None,
    proxies: Sequence[Network] = (),
) -> AsyncIterator[Door]:
    """A door while the block runs. Afterwards no memory is held, and its log shows no secret."""
    log, written = logger()
    nc = await bus.connect(url("ingest"), "ingest")
    spool = Spool(spool_dir, log) if spool_dir else None
    receiver = Receiver(endpoints, log, spool, limits, proxies)
    receiver.store = store_by(nc)
    draining = asyncio.create_task(spool.keep_draining(receiver.store)) if spool else None
    port = embedded.free_port()
    client = httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=WAIT_S_MAX)
    try:
        async with process.serve_http(receiver, HOST, port), client:
            yield Door(receiver, port, js, client, written)
    finally:
        if draining:
            draining.cancel()
            await asyncio.wait({draining})
        await nc.close()
    assert receiver.memory.held == 0
    shows_no_secret(written.getvalue())


def shows_no_secret(text: str) -> None:
    """A log quotes neither a secret nor a signature."""
    assert SECRET.value.decode() not in text
    assert "sha256=" not in text
