"""What tests of rebuilds need: work in the operator's hands, and a log of every provider's deliveries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted
from contracts.own import delivery_of
from providers.port import Source
from read_models.table import SCHEMA
from runtime import bus, postgres, streams
from services.projector.shadow import About, ours
from services.projector.understand import parked, understand
from services.projector.work import Progress, Work
from services.projector.write import Entry, Writer
from tests.conformance.test_every_provider import CASES
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, SOURCES, body, delivery
from tests.servers import Database
from tests.services.projector.running import project_all, store, store_batch
from tests.tables import SQL, count

NOW = datetime.now(UTC)


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


async def entries(work: Work, where: str = "true") -> list[Entry]:
    """What the ledger says of deliveries, in the order of the log."""
    columns = "source, identity, body_sha256, stream_seq, status, reason, refs, event_count"
    async with work.engine.connect() as connection:
        rows = await connection.execute(
            text(f"SELECT {columns} FROM ops.deliveries WHERE {where} ORDER BY stream_seq")
        )
        return [Entry(*row) for row in rows]


ISSUE = "github:Codertocat/Hello-World#"


def issue(number: int, identity: str | None = None, received_at: datetime = RECEIVED_AT) -> Delivery:
    """That an issue was opened; its ref is ISSUE and the number, its title says that it was read rightly."""
    said = json.loads(body("issues.opened.15"))
    said["issue"] |= {"number": number, "title": "right"}
    made = delivery("issues", json.dumps(said).encode(), 0, identity or f"issue-{number}")
    return replace(made, received_at=received_at)


def misread_title(given: Delivery, right: Callable[[], list[Event]]) -> list[Event]:
    """Reads another title."""
    return [event.model_copy(update={"title": "misread"}) for event in right()]


def misread(wrong: Callable[[Delivery, Callable[[], list[Event]]], list[Event]]) -> Mapping[str, Source]:
    """The sources with each normaliser replaced: `wrong` is given a delivery and the way to its right events."""

    def of(source: Source) -> Source:
        right = source.provider.normalize

        def normalize(delivery: Delivery, given: Source) -> list[Event]:
            return wrong(delivery, lambda: list(right(delivery, given)))

        return replace(source, provider=replace(source.provider, normalize=normalize))

    return {name: of(source) for name, source in SOURCES.items()}


async def fold_as(work: Work, sources: Mapping[str, Source], batch: int = 50) -> None:
    """Fold the whole log by the code of `sources`."""
    js = work.nc.jetstream()
    last = (await js.stream_info(streams.DELIVERIES)).state.last_seq
    writer = replace(work, sources=sources).writer(SCHEMA)
    for start in range(1, last + 1, batch):
        read = [await bus.read_delivery(js, seq) for seq in range(start, min(start + batch, last + 1))]
        await writer.fold([understand(sources, delivery) for delivery in read])


def discarded(given: Delivery, seq: int) -> DeliveryDiscarded:
    """An operator's word that `given`, which stands at `seq`, is not to be folded."""
    return DeliveryDiscarded(
        delivery_source=given.source,
        delivery_identity=given.identity,
        body_sha256=given.body_sha256,
        seq=seq,
        why="a test",
        occurred_at=NOW,
    )


def redacted(given: Delivery, seq: int) -> DeliveryRedacted:
    """An operator's word that the body of `given`, which stands at `seq`, was erased."""
    return DeliveryRedacted(
        delivery_source=given.source,
        delivery_identity=given.identity,
        body_sha256=given.body_sha256,
        seq=seq,
        why="a test",
        occurred_at=NOW,
        kind=given.kind,
        via=given.via,
        verified_by=given.verified_by,
        received_at=given.received_at,
        body_bytes=len(given.body),
        last_seq=seq,
        last_received_at=given.received_at,
        refs=["github:a/b#1"],
    )


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
    writer = Writer(engine, SQL, sources, lambda seq: bus.read_delivery(broker.js, seq))
    batch = [await bus.read_delivery(broker.js, seq) for seq in range(1, last + 1)]
    await writer.fold([understand(sources, delivery) for delivery in batch])


def said(event: DeliveryDiscarded | DeliveryRedacted) -> Delivery:
    """An operator's word as it stands in the log."""
    return delivery_of(event, "cli", NOW)


async def soak(broker: Broker, engine: AsyncEngine) -> list[Delivery]:
    """A log with all that can become of a delivery, folded by two projectors; its plain deliveries."""
    entries = list(mixed())
    await store_batch(broker, entries)
    late = delivery("issues", body("issues.opened.15"), 0, "understood-late")
    seq, _ = await bus.store_delivery(broker.js, late)
    writer = Writer(engine, SQL, SOURCES, lambda n: bus.read_delivery(broker.js, n))
    found = await bus.read_delivery(broker.js, seq)
    await writer.fold([parked(found, "shape_mismatch", "older code did not understand it")])
    assert 1 == await count(engine, "deliveries", "status = 'parked' AND identity = 'understood-late'")

    async def publish(_: object) -> None:
        """What a retry publishes is not looked at here."""

    await writer.retry([understand(SOURCES, found)], publish)
    await forget_ids(broker)
    await project_all(broker, engine, 2)
    poison = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")
    await store(broker, [*unlike(entries), *entries[::4], poison])
    webhooks = [(n, entry) for n, entry in enumerate(entries, 1) if entry.source == "github"]
    await store(broker, [said(discarded(entry, n)) for n, entry in webhooks[::5]])
    await project_all(broker, engine, 2)
    return entries
