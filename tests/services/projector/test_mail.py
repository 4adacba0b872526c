"""Mail on a real broker and a real Postgres: one row however it is told, and a conflict where a token comes twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from runtime import streams
from runtime.postgres import make_engine
from tests.conftest import Broker
from tests.providers.driving import NOW, delivery_of
from tests.samples import SOURCES
from tests.servers import Database
from tests.services.projector.running import clean_fold, event_ids, project_all, store
from tests.tables import count, empty, snapshot

pytestmark = pytest.mark.anyio

SOURCE = SOURCES["mailgun"]
FIXTURES = Path(__file__).parents[2] / "providers" / "mailgun" / "fixtures" / "current"
EVENT: dict[str, Any] = json.loads((FIXTURES / "delivered.signed.json").read_bytes())["event-data"]
JSON = {"content-type": "application/json"}


@pytest.fixture
async def engine(database: Database, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


def webhook(token: str, **changes: Any) -> Delivery:
    """Mailgun's webhook about the recorded event, perhaps changed by whoever has seen its signature."""
    body = json.dumps({"signature": {"token": token}, "event-data": {**EVENT, **changes}}).encode()
    return delivery_of(SOURCE, "delivered", body, headers=JSON, identity=token)


def polled(run: str) -> Delivery:
    """The same event as a poll shows it: without the domain, with another key order."""
    item = {name: EVENT[name] for name in sorted(EVENT, reverse=True) if name != "domain"}
    page = json.dumps({"items": [item], "paging": {}}).encode()
    assert SOURCE.provider.items is not None
    (found,) = SOURCE.provider.items("events", "mg.example.com/events", page)
    return delivery_of(
        SOURCE, f"observed.{found.kind}", found.body, identity=f"{run}:{found.ref}", via="poll"
    )


ORDERS = [
    ("webhook", "retry", "poll"),
    ("poll", "webhook", "retry"),
    ("retry", "poll", "webhook"),
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_webhook_retry_and_poll_are_one_row_and_one_event(
    broker: Broker, engine: AsyncEngine, order: tuple[str, ...]
) -> None:
    said = {"webhook": webhook("t-1"), "retry": webhook("t-2"), "poll": polled("run-1")}
    await store(broker, [said[name] for name in order])
    await project_all(broker, engine)

    assert 1 == await count(engine, "mail_events")
    assert 1 == await count(engine, "platform_events")
    assert 1 == len(await event_ids(broker))
    assert 3 == await count(engine, "deliveries", "status = 'projected'")
    found = await snapshot(engine)
    assert found == await clean_fold(broker, engine)


async def test_a_token_with_another_body_is_a_conflict_and_folds_nothing(
    broker: Broker, engine: AsyncEngine
) -> None:
    """The signature does not cover the event: whoever has seen it can put another beside it."""
    forged = webhook("t-1", event="complained", id="forged")
    await store(broker, [webhook("t-1"), forged])
    await project_all(broker, engine)

    assert 2 == (await broker.js.stream_info(streams.DELIVERIES)).state.messages
    assert 1 == await count(
        engine, "deliveries", "identity = 't-1' AND status = 'projected' AND stream_seq = 1"
    )
    assert 1 == await count(
        engine, "deliveries", "identity = 't-1' AND status = 'conflict' AND stream_seq = 2"
    )
    assert 1 == await count(engine, "mail_events", "event = 'delivered'")
    assert 0 == await count(engine, "mail_events", "event = 'complained'")
    assert 1 == len(await event_ids(broker))


async def test_the_first_body_of_a_token_wins_in_any_order_of_folding(
    broker: Broker, engine: AsyncEngine
) -> None:
    await store(broker, [webhook("t-1"), webhook("t-1", id="second"), webhook("t-1", id="third")])
    wanted = await clean_fold(broker, engine)
    await empty(engine)
    await project_all(broker, engine, count=2)

    assert wanted == await snapshot(engine)
    assert 2 == await count(engine, "deliveries", "status = 'conflict'")
    assert 1 == await count(engine, "mail_events", "provider_event_id = 'CCXMjJ7nQi2N3BPigGOdgQ'")


async def test_the_plain_reader_sees_the_mail_but_nobodys_name(
    broker: Broker, engine: AsyncEngine, database: Database
) -> None:
    await store(broker, [webhook("t-1")])
    await project_all(broker, engine)
    reader = make_engine(database.url("reader"), "test")
    seen = "ref, env, event, message_id, transport, stamp, severity, reason, code, tags, received_at"
    async with reader.connect() as connection:
        (row,) = await connection.execute(text(f"SELECT {seen} FROM ops.mail_events"))
        audit = await connection.execute(text("SELECT message, correlation_id FROM ops.platform_events"))
        told = f"{tuple(row)}{[tuple(each) for each in audit]}"
    await reader.dispose()

    assert not any(name in told for name in ("alice", "Rechnung", "billing@"))
    assert ("delivered", NOW) == (row.event, row.received_at)


async def test_raw_is_json_that_postgres_can_look_into(broker: Broker, engine: AsyncEngine) -> None:
    await store(broker, [webhook("t-1")])
    await project_all(broker, engine)

    where = "raw::jsonb #>> '{message,headers,subject}' = 'Rechnung für Zoë' AND tags::jsonb ? 'invoice'"
    assert 1 == await count(engine, "mail_events", where)
