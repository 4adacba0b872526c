"""What tests of rebuilds need: work in the operator's hands, and a log of every provider's deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.port import Source
from runtime import bus, postgres, streams
from services.projector.rebuild import Progress, Work
from services.projector.shadow import About, ours
from services.projector.sql import Sql
from services.projector.understand import understand
from services.projector.write import Writer
from tests.conformance.test_every_provider import CASES
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.servers import Database


@asynccontextmanager
async def working(broker: Broker, database: Database) -> AsyncIterator[Work]:
    """Work with the operator's rights on broker and database."""
    engine = postgres.make_engine(database.url("operator"), "test")
    told: list[Progress] = []
    try:
        yield Work(broker.nc, engine, SOURCES, told.append)
    finally:
        await engine.dispose()


def mixed() -> Iterator[Delivery]:
    """A delivery for each sample of each provider, one provider after another by turns."""
    rows = [[(case, sample) for sample in case.samples] for case in CASES.values()]
    for rank in range(max(map(len, rows))):
        for row in rows:
            if rank < len(row):
                case, sample = row[rank]
                made = case.delivery(sample)
                yield replace(made, identity=f"{made.identity[:100]}-{rank}", seq=0)


def unlike(entries: Sequence[Delivery]) -> list[Delivery]:
    """A second body for the identity of some of these, as no sender should have it."""
    webhooks = [entry for entry in entries if entry.via == "webhook"]
    return [
        replace(other, identity=entry.identity)
        for entry, other in pairwise(webhooks)
        if entry.source == other.source and entry.body != other.body
    ]


def again(entries: Sequence[Delivery], mark: str) -> list[Delivery]:
    """The same bodies once more, as deliveries of their own."""
    return [replace(entry, identity=f"{entry.identity[:100]}-{mark}") for entry in entries]


async def forget_ids(broker: Broker) -> None:
    """Let the broker take a message id again that it had a moment ago."""
    info = await broker.js.stream_info(streams.DELIVERIES)
    await broker.js.update_stream(info.config.evolve(duplicate_window=0.1))


async def schemas(engine: AsyncEngine) -> dict[str, About]:
    """The schemas beside ops that are ours."""
    async with engine.connect() as connection:
        return await ours(connection)


def wrong(sources: Mapping[str, Source]) -> dict[str, Source]:
    """The same sources with a mistake in GitHub's normaliser: every title is in capitals."""
    github = sources["github"]

    def normalize(delivery: Delivery, source: Source) -> list[Event]:
        said: list[Any] = list(github.provider.normalize(delivery, source))
        return [
            event.model_copy(update={"title": event.title.upper()})
            if isinstance(getattr(event, "title", None), str)
            else event
            for event in said
        ]

    return {**sources, "github": replace(github, provider=replace(github.provider, normalize=normalize))}


async def fold_all(broker: Broker, engine: AsyncEngine, sources: Mapping[str, Source] = SOURCES) -> None:
    """Fold the whole log in one batch, by the code of `sources`."""
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    writer = Writer(engine, Sql.of(), sources, lambda seq: bus.read_delivery(broker.js, seq))
    batch = [await bus.read_delivery(broker.js, seq) for seq in range(1, last + 1)]
    await writer.fold([understand(sources, delivery) for delivery in batch])
