"""A poller's means in one test: broker, API, and a source of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from nats.aio.client import Client

from contracts.delivery import Delivery
from contracts.polls import ListingCompleted, PollFinished, PollStarted
from contracts.registry import decode
from providers.polling import Scope
from providers.port import Source
from runtime import bus, streams
from runtime.bucket import Bucket
from runtime.http import HttpClient
from services.poller import turn
from services.poller.lease import Leases
from services.poller.memory import key_of
from services.poller.pace import Limits
from services.poller.run import Order, Report, Run
from services.poller.turn import Work
from tests.api import Api
from tests.conftest import Broker
from tests.services.poller.shop import TOKEN, scope, shop

WAIT_S_MAX = 20.0
LOOK_S = 0.01
T = TypeVar("T")


async def eventually(found: Callable[[], Awaitable[T]]) -> T:
    """The first true answer of `found`: the broker gives no signal of what is stored."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not (answer := await found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing of the kind within {WAIT_S_MAX:.0f} s; last answer: {answer!r}")
        await asyncio.sleep(LOOK_S)
    return answer


@dataclass
class Shop:
    """Broker and API of one test. Pollers come in by `work`, each with leases of its own."""

    broker: Broker
    nc: Client
    """The poller's own connection, with its permissions."""
    http: HttpClient
    api: Api
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What was logged."""

    def work(self, owner: str = "here", lease_s: float = 60.0, renew_s: float = 15.0, **limits: Any) -> Work:
        """What a poller works with."""
        js = self.nc.jetstream()
        bucket = Bucket(js)
        return Work(
            js=js,
            http=self.http,
            bucket=bucket,
            leases=Leases(bucket, owner, lease_s, renew_s),
            log=structlog.wrap_logger(None, processors=[self._hear]),
            limits=Limits(**{"post_pause_s": 0.0, **limits}),
        )

    def source(self, *scopes: Scope, **more: Any) -> Source:
        """The source whose API this is."""
        return shop(self.api.address, scopes, **more)

    async def poll(self, polled: Scope | None = None, work: Work | None = None, **how: Any) -> Report:
        """A whole run, as the poller makes it; its parts are `polled`'s."""
        chosen = polled or scope()
        means = work or self.work()
        ordered, run = self.ordered(chosen, means, **how)
        seen = await means.leases.look(ordered.source.name, chosen.name)
        held = await turn.begin(means, ordered, seen)
        assert held is not None
        return await turn.carry_out(means, ordered, run, held)

    def ordered(self, polled: Scope, work: Work, **how: Any) -> tuple[Order, Run]:
        """A run that has not begun."""
        ordered = turn.order(self.source(polled), polled, "manual", **how)
        return ordered, turn.prepare(work, ordered, TOKEN.encode())

    async def rehearse(self, polled: Scope, **how: Any) -> Report:
        """A dry run."""
        _, run = self.ordered(polled, self.work(), dry_run=True, **how)
        await run.drive()
        return run.report

    async def log(self) -> list[Delivery]:
        """Everything in DELIVERIES."""
        last = (await self.broker.js.stream_info(streams.DELIVERIES)).state.last_seq
        return [await bus.read_delivery(self.broker.js, seq) for seq in range(1, last + 1)]

    async def observed(self) -> list[tuple[str, Any]]:
        """What runs stored of things: kind and item, in order."""
        return [
            (each.kind, json.loads(each.body)["item"])
            for each in await self.log()
            if each.kind.startswith("observed.")
        ]

    async def said(self, *types: Any) -> list[Any]:
        """The events of these types that runs said."""
        events = [decode(each.kind, each.body) for each in await self.log() if each.source == "odooops"]
        return [event for event in events if isinstance(event, types)]

    async def starts(self) -> list[PollStarted]:
        return await self.said(PollStarted)

    async def ends(self) -> list[PollFinished]:
        return await self.said(PollFinished)

    async def listings(self) -> list[ListingCompleted]:
        return await self.said(ListingCompleted)

    async def remembered(self) -> int:
        """How many keys the poller's bucket has."""
        return int((await self.broker.js.stream_info(streams.POLLER_STREAM)).state.messages)

    async def forget(self) -> None:
        """Lose the memory."""
        await self.broker.js.purge_stream(streams.POLLER_STREAM)

    async def lease(self, polled: Scope) -> dict[str, Any]:
        """What the lease of a scope says."""
        value, _ = await Bucket(self.broker.js).get(key_of("lease", "shop", polled.name))
        return dict(json.loads(value or b"{}"))

    def _hear(self, logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
        self.lines.append({"level": method, **line})
        raise structlog.DropEvent


def statuses(ends: Sequence[PollFinished]) -> list[str]:
    return [end.status for end in ends]
