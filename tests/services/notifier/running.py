"""A notifier that runs in the test's own event loop, and what a test asks it and its surroundings."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import wait_none

from contracts.envelope import Event, to_headers
from runtime import embedded, streams
from runtime import http as outgoing
from runtime.postgres import make_engine
from runtime.settings import Settings
from services.notifier import app, memory, notify
from services.notifier import slack as slack_module
from services.notifier.memory import Entry, Key
from services.notifier.message import message_id, render
from tests.slack_double import CHANNEL, TOKEN, SlackDouble

if TYPE_CHECKING:
    from tests.conftest import Broker
    from tests.servers import Database

WAIT_S_MAX = 20.0
POLL_S = 0.02
SOON_S = 0.2

T = TypeVar("T")
Row = dict[str, Any]


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Shorten what the notifier waits for, so that a test sees the next try."""
    for module, names in (
        (slack_module, ("MEND_S", "RATE_LIMITED_S")),
        (notify, ("AGAIN_S_MIN", "IN_HAND_S")),
        (app, ("RETRY_S",)),
    ):
        for name in names:
            patch.setattr(module, name, SOON_S)
    patch.setattr(notify, "AGAIN_S_MAX", 2.0)
    patch.setattr(slack_module, "PACE_S", 0.0)
    patch.setattr(outgoing, "_backoff_s", wait_none())


async def eventually(found: Callable[[], Awaitable[T]], wait_s: float = WAIT_S_MAX) -> T:
    """The first true answer of `found`; asks again and again, because table and broker give no signal."""
    deadline = time.monotonic() + wait_s
    while not (answer := await found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing of the kind happened within {wait_s:.0f} s; last answer: {answer!r}")
        await asyncio.sleep(POLL_S)
    return answer


@dataclass
class Place:
    """Broker, database and Slack of one test, and the settings that lead a notifier to them."""

    broker: Broker
    database: Database
    slack: SlackDouble
    engine: AsyncEngine = field(init=False)
    ops_port: int = field(init=False, default_factory=embedded.free_port)

    def __post_init__(self) -> None:
        self.engine = make_engine(self.database.url("notifier"), "test")

    @property
    def by_bot(self) -> dict[str, str]:
        return {
            "slack_bot_token": TOKEN,
            "slack_channel": CHANNEL,
            "slack_api_url": self.slack.api_url,
            **self.addresses,
        }

    @property
    def by_webhook(self) -> dict[str, str]:
        return {"slack_webhook_url": self.slack.webhook_url, **self.addresses}

    @property
    def addresses(self) -> dict[str, str]:
        return {
            "nats_url_notifier": self.broker.url("notifier"),
            "database_url_notifier": self.database.url("notifier"),
            "odooops_ops_port": str(self.ops_port),
        }

    async def publish(self, *events: Event, copy: str = "", replayed: str | None = None) -> None:
        """Publish as the projector does, or as a replay; `copy` gives a message id of its own."""
        for event in events:
            headers = to_headers(event, "github:a-delivery", replayed)
            headers["Nats-Msg-Id"] += copy
            await self.broker.js.publish(event.subject, event.model_dump_json().encode(), headers=headers)

    async def rows(self) -> list[Row]:
        async with self.engine.connect() as connection:
            found = await connection.execute(select(memory.messages).order_by(memory.messages.c.ref))
            return [dict(row._mapping) for row in found]

    async def settled(self, count: int) -> list[Row]:
        """All rows, once there are `count` and every event is acknowledged."""
        rows: list[Row] = []

        async def told() -> bool:
            # A consumer that was just made may not count yet what was just published: nothing pending is no proof.
            nonlocal rows
            await self.acknowledged()
            rows = await self.rows()
            return len(rows) >= count

        await eventually(told)
        await self.acknowledged()
        rows = await self.rows()
        assert len(rows) == count
        return rows

    async def acknowledged(self) -> None:
        """Wait until every event in the stream is done with."""

        async def done() -> bool:
            info = await self.broker.js.consumer_info(streams.EVENTS, streams.NOTIFIER)
            return not info.num_pending and not info.num_ack_pending

        await eventually(done)

    async def crashed_before(self, event: Event, destination: str) -> str:
        """Leave the row that a notifier leaves which died between `posting` and the end; returns the id."""
        told = render(event)
        assert told is not None
        key = Key(destination, told.about, told.kind)
        entry = Entry(
            key=key,
            message_id=message_id(destination, told.about, told.kind),
            event_id=event.id,
            text=told.text,
            blocks=told.blocks,
            channel=CHANNEL,
            occurred_at=event.occurred_at,
        )
        async with self.engine.begin() as connection:
            assert await memory.enter(connection, entry)
        return entry.message_id

    async def ready(self) -> dict[str, Any]:
        """What /readyz says; empty while nobody listens."""
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.ops_port}/readyz")
            except httpx.TransportError:
                return {}
        said: dict[str, Any] = answer.json()
        assert answer.status_code == (200 if said["ok"] else 503)
        return said

    async def says(self, **problems: str) -> None:
        """Wait until /readyz names exactly these problems."""

        async def named() -> bool:
            return bool((await self.ready()).get("problems") == problems)

        await eventually(named)


@asynccontextmanager
async def running(given: dict[str, str]) -> AsyncIterator[io.StringIO]:
    """A notifier while the block runs, stopped in order at its end; gives its log."""
    text = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(text),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.BoundLogger,
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(app.main(Settings(**given), log, stopping))  # type: ignore[arg-type]
    try:
        yield text
    finally:
        stopping.set()
        await asyncio.wait_for(task, WAIT_S_MAX)
