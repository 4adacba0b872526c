"""Brokers on the committed configuration, and what a client of one of their users may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from runtime import bus, streams
from tests.deploy import brokers


@pytest.fixture
def committed() -> Iterator[brokers.Brokers]:
    """A new broker on the committed configuration: cheaper than a second life of one, whose server now and then
    (1 in 1,000) cannot make a stream that was deleted just before.
    """
    with brokers.running(1) as single:
        yield single


@dataclass(frozen=True)
class Door:
    """A user's connection, and every complaint that the broker sent on it."""

    nc: Client
    complaints: list[str] = field(default_factory=list)

    @property
    def js(self) -> JetStreamContext:
        return self.nc.jetstream()

    async def may_publish(self, subject: str, reply: str = "", headers: dict[str, str] | None = None) -> bool:
        """Whether the broker took an empty message."""
        return not await self._complained(self.nc.publish(subject, b"", reply, headers))

    async def may_subscribe(self, subject: str) -> bool:
        """Whether the broker lets this user listen there."""
        return not await self._complained(self.nc.subscribe(subject))

    async def _complained(self, act: Awaitable[object]) -> bool:
        before = len(self.complaints)
        await act
        # The broker complains before it answers what it was asked later, so nothing has to be waited for. Asked
        # twice, because nats-py's first question may overtake what is still to be sent.
        await self.nc.flush()
        await self.nc.flush()
        return len(self.complaints) > before


@dataclass(frozen=True)
class House:
    """A broker with its streams new and empty. `operator` is the one who made them."""

    brokers: brokers.Brokers
    operator: Door

    @asynccontextmanager
    async def enter(self, user: str) -> AsyncIterator[Door]:
        """Come in as `user`."""
        complaints: list[str] = []

        async def heard(complaint: str) -> None:
            complaints.append(complaint)

        nc = await bus.connect(self.brokers.url(user), user, heard)
        try:
            yield Door(nc, complaints)
        finally:
            await nc.close()

    async def count(self, stream: str) -> int:
        """How many messages a stream holds; raises NotFoundError where it is gone."""
        return int((await self.operator.js.stream_info(stream)).state.messages)


@pytest.fixture
async def house(committed: brokers.Brokers, anyio_backend: object) -> AsyncIterator[House]:
    nc = await bus.connect(committed.url("operator"), "operator")
    assert [] == await streams.provision(nc.jetstream())
    yield House(committed, Door(nc))
    await nc.close()
