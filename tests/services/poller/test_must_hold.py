"""Webhooks get lost, and the poll makes it good: GitHub lived through with and without losses, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.observation import is_observed
from contracts.polls import ListingCompleted
from read_models.registry import READ_MODELS
from runtime import bus, postgres, streams
from services.projector.rebuild import rebuild
from services.projector.sql import Sql
from services.projector.understand import understand
from services.projector.write import Writer
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.servers import Database, Postgres, fresh_database
from tests.services.poller.polled import poll
from tests.services.poller.repository import Repository, github
from tests.services.poller.running import Shop
from tests.services.projector.rebuilding import working
from tests.services.projector.running import project_all, store_batch
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio

LOST_SHARE = 0.2
BATCH = 200
THINGS = tuple(model for model in READ_MODELS if model.watched)
LOGS = ("platform_events", "run_events")

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
async def unharmed(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    """A second database: what the tables say where no webhook is lost."""
    with fresh_database(postgres_server) as other:
        made = postgres.make_engine(other.url("projector"), "test")
        yield made
        await made.dispose()


async def stored(broker: Broker, after: int = 0) -> list[Delivery]:
    """The log behind a sequence."""
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    return [await bus.read_delivery(broker.js, seq) for seq in range(after + 1, last + 1)]


async def fold(engine: AsyncEngine, deliveries: Sequence[Delivery], first_seq: int) -> None:
    """Fold deliveries as if they stood in a log of their own from `first_seq` on."""

    async def unread(seq: int) -> Delivery:
        raise AssertionError(f"nothing is read back, and {seq} neither")

    writer = Writer(engine, Sql.of(), SOURCES, unread)
    placed = [replace(each, seq=seq) for seq, each in enumerate(deliveries, first_seq)]
    for start in range(0, len(placed), BATCH):
        await writer.fold([understand(SOURCES, each) for each in placed[start : start + BATCH]])


async def things(engine: AsyncEngine, *, past: bool) -> Rows:
    """The tables about things by table and ref: what polls watch of each row.

    Without `past`, nothing of what is deleted or gone: no poll can tell how it was in the end, nor that it ever was.
    """
    found: Rows = {}
    async with engine.connect() as connection:
        for model in THINGS:
            columns = ", ".join(f"'{name}', t.{name}" for name in model.watched)
            statement = f"SELECT t.{model.ref_column} AS ref, jsonb_build_object({columns}) AS said"
            for row in await connection.execute(text(f"{statement} FROM ops.{model.name} AS t")):
                found[model.name, row.ref] = dict(row.said)
        if not past:
            away = text("SELECT work_item_ref FROM ops.work_items_now WHERE deleted OR gone")
            for ref in (await connection.execute(away)).scalars():
                del found["work_items", ref]
    return found


def unlike(some: Rows, others: Rows) -> set[str]:
    """The refs that are not alike."""
    return {key[1] for key in some.keys() | others.keys() if some.get(key) != others.get(key)}


async def told(engine: AsyncEngine) -> dict[str, set[str]]:
    """The ids of GitHub's events by log, whoever told of them first; not what we said ourselves."""
    found = {}
    async with engine.connect() as connection:
        for log in LOGS:
            statement = f"SELECT event_id FROM ops.{log} WHERE delivery NOT LIKE 'odooops:%'"
            found[log] = set((await connection.execute(text(statement))).scalars())
    return found


async def drifted(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT ref, cause FROM ops.drift_now"))
        return {row.ref: row.cause for row in rows}


def polled(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """What polls saw and listed."""
    return [each for each in deliveries if is_observed(each.kind) or each.kind == ListingCompleted.type]


async def test_a_poll_makes_good_what_lost_webhooks_would_have_told(
    store: Shop,
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    unharmed: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = Repository()
    repository.serve(store.api)
    repository.keep_time(monkeypatch)
    source = github(store.api)

    # All goes well at first, and a poll finds nothing to mend.
    repository.live(60)
    await store_batch(broker, repository.deliveries())
    await project_all(broker, engine)
    assert ["success"] * 2 == [report.status for report in await poll(store, source)]
    await project_all(broker, engine)
    assert {} == await drifted(engine)
    await fold(unharmed, repository.deliveries(), 1)
    await fold(unharmed, polled(await stored(broker)), 1_000)

    # Then one webhook in five is lost.
    repository.now += timedelta(minutes=15)
    already, quiet = len(repository.sent), await stored(broker)
    repository.live(240, LOST_SHARE)
    arrived = [each.delivery() for each in repository.sent[already:] if each.delivered]
    await store_batch(broker, arrived)
    await project_all(broker, engine)
    await fold(unharmed, [each.delivery() for each in repository.sent[already:]], 2_000)
    lost = [each.guid for each in repository.sent if not each.delivered]
    truth = await things(unharmed, past=False)
    differ = unlike(await things(engine, past=False), truth)
    assert len(lost) > 20
    assert len(differ) > 5

    before_the_poll = len(quiet) + len(arrived)
    assert ["success"] * 2 == [report.status for report in await poll(store, source)]
    await project_all(broker, engine)
    await fold(unharmed, polled(await stored(broker, before_the_poll)), 5_000)

    assert set() == unlike(await things(engine, past=False), await things(unharmed, past=False))
    assert differ == set(await drifted(engine))
    async with unharmed.connect() as connection:
        said = await connection.execute(
            text("SELECT message_id FROM projector.outbox WHERE subject LIKE '%drift%'")
        )
        assert [] == said.all(), "where nothing was lost, nothing had drifted"

    # What was lost comes again, since the poll had asked for it.
    assert sorted(lost) == sorted(repository.asked_again)
    again = repository.redelivered(lost)
    await store_batch(broker, again)
    await project_all(broker, engine)
    assert set() == unlike(await things(engine, past=True), await things(unharmed, past=True))
    assert await told(unharmed) == await told(engine)
    assert differ == set(await drifted(engine))
    assert {"missed", "gone"} == set((await drifted(engine)).values())

    # And the log says all of it.
    before = await snapshot(engine)
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
    assert before == await snapshot(engine)
    assert 0 == await count(engine, "deliveries", "status NOT IN ('projected', 'ignored')")
