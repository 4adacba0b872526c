"""What tests of rebuilds need: work in the operator's hands, and a log of every provider's deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy import text

from contracts.delivery import Delivery
from runtime import postgres
from services.projector.rebuild import Progress, Work
from services.projector.write import Entry
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


async def entries(work: Work, where: str = "true") -> list[Entry]:
    """What the ledger says of deliveries, in the order of the log."""
    columns = "source, identity, body_sha256, stream_seq, status, reason, refs, event_count"
    async with work.engine.connect() as connection:
        rows = await connection.execute(
            text(f"SELECT {columns} FROM ops.deliveries WHERE {where} ORDER BY stream_seq")
        )
        return [Entry(*row) for row in rows]
