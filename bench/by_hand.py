"""The projector's limit: a loop that only fetches, parses and writes the same rows of the same models.

No events, no conflicts, no locks, no waiting for servers, no bisecting, no SQLAlchemy in between: what one would
write by hand for speed alone. Runs as a process of its own: `python -m bench.by_hand NATS_URL DATABASE_URL`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import asyncpg
import nats.errors
import orjson
import uvloop

from contracts import delivery as wire
from read_models.merge import join_all, merge_sql
from read_models.registry import LEDGER, READ_MODELS
from runtime import bus, streams
from services.projector.understand import ledger_row, understand
from tests.samples import SOURCES

WORKERS = 2
IDLE_S = 1.0


async def work(js: Any, connection: Any, merges: dict[str, str]) -> None:
    subscription = await js.pull_subscribe_bind(consumer=streams.PROJECTOR, stream=streams.DELIVERIES)
    while True:
        try:
            messages = await subscription.fetch(streams.FETCH_COUNT, timeout=IDLE_S)
        except nats.errors.TimeoutError:
            return
        now = datetime.now(UTC)
        rows: dict[str, list[Any]] = {}
        for message in messages:
            entry = wire.from_message(
                message.subject, message.headers, message.data, bus.sequence_of(message)
            )
            understood = understand(SOURCES, entry)
            rows.setdefault(LEDGER.name, []).append(ledger_row(understood, now))
            for name, row in understood.rows:
                rows.setdefault(name, []).append(row)
        async with connection.transaction():
            for model in READ_MODELS:
                if model.name in rows:
                    joined = list(join_all(model, rows[model.name]).values())
                    await connection.execute(
                        merges[model.name], orjson.dumps(joined, default=orjson.Fragment).decode()
                    )
        for message in messages:
            await message.ack()


async def main(nats_url: str, database_url: str) -> None:
    nc = await bus.connect(nats_url, "projector")
    merges = {model.name: merge_sql(model, "ops").replace(":rows", "$1") for model in READ_MODELS}
    connections = [await asyncpg.connect(database_url) for _ in range(WORKERS)]
    await asyncio.gather(*(work(nc.jetstream(), connection, merges) for connection in connections))
    for connection in connections:
        await connection.close()
    await nc.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
