"""What tests of rebuilds need: work in the operator's hands, and a log of every provider's deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from contracts.delivery import Delivery
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted
from runtime import postgres
from services.projector.rebuild import Progress, Work
from tests.conformance.test_every_provider import CASES
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.servers import Database

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
