"""The audit stream: each filter is answered by an index, each event told once and by whom it was told first."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import pytest
from sqlalchemy import text

from contracts.envelope import SHORT_CHARS_MAX
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests import samples
from tests.servers import Database
from tests.tables import SQL, empty, snapshot

pytestmark = pytest.mark.anyio

FILTERS = {
    "env = 'prod'": "platform_events_env",
    "service = 'deploy'": "platform_events_service",
    "level = 'error'": "platform_events_level",
    "level IN ('warn', 'error')": "platform_events_level",
    "to_tsvector('simple', message) @@ plainto_tsquery('simple', 'invoice')": "platform_events_message",
    "correlation_id = '3484a3f'": "platform_events_correlation_id",
    "actor = 'octocat'": "platform_events_actor",
    "ref = 'github:org/repo#7'": "platform_events_ref",
    "occurred_at > now() - interval '1 hour'": "platform_events_occurred_at",
    "received_at > now() - interval '1 hour'": "platform_events_received_at",
}


@pytest.mark.parametrize("condition", FILTERS)
async def test_a_filter_is_answered_by_its_index(database: Database, condition: str) -> None:
    engine = make_engine(database.url("reader"), "test")
    try:
        async with engine.connect() as connection:
            # An empty table is read whole unless that is made to look dear.
            await connection.execute(text("SET enable_seqscan = off"))
            query = f"EXPLAIN SELECT event_id FROM ops.platform_events WHERE {condition}"
            plan = "\n".join(row[0] for row in await connection.execute(text(query)))
    finally:
        await engine.dispose()

    assert FILTERS[condition] in plan


async def test_who_told_of_an_event_first_stays_its_teller(database: Database) -> None:
    engine = make_engine(database.url("projector"), "test")
    webhook = samples.delivery("workflow_run", samples.body("workflow_run.completed.01"), seq=5)
    again = replace(samples.at(webhook, seq=9, identity="redelivered"), received_at=webhook.received_at)
    try:
        for order in ((webhook, again), (again, webhook)):
            await empty(engine)
            for delivery in order:
                writer = Writer(engine, SQL, samples.SOURCES, unread)
                await writer.fold([understand(samples.SOURCES, delivery)])
            (row,) = (await snapshot(engine))["platform_events"]
            assert row["delivery"] == webhook.name
    finally:
        await engine.dispose()


async def unread(seq: int) -> NoReturn:
    raise AssertionError(f"nothing is read back, and {seq} neither")


async def test_a_name_longer_than_an_index_takes_is_cut_and_costs_no_row(database: Database) -> None:
    body = samples.body("issues.opened.15").replace(
        b'"login": "Codertocat"', b'"login": "%s"' % ("名" * 3_000).encode()
    )
    engine = make_engine(database.url("projector"), "test")
    try:
        understood = understand(samples.SOURCES, samples.delivery("issues", body, seq=1))
        await Writer(engine, SQL, samples.SOURCES, unread).fold([understood])
        (row,) = (await snapshot(engine))["platform_events"]
    finally:
        await engine.dispose()

    assert row["actor"] == "名" * SHORT_CHARS_MAX
