"""ops.work_items and its view at the end of histories, in any order of arrival and of processing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import islice, permutations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.work_items import WorkItemEvent
from read_models.merge import join_all
from read_models.work_items import READ_MODEL, WorkItem
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Sql, Writer
from tests.providers.github.deliveries import only, sample
from tests.read_models.histories import CREATED, HISTORIES, History, listed
from tests.samples import SOURCES
from tests.servers import Postgres, fresh_database
from tests.tables import empty

EVERY = pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
ORDERS_MAX = 24


def arrivals(history: History) -> list[list[Delivery]]:
    """The log of a history for each order of arrival."""
    orders = islice(permutations(history.deliveries), ORDERS_MAX)
    return [[replace(each, seq=seq) for seq, each in enumerate(order, 1)] for order in orders]


def rows(log: Sequence[Delivery]) -> list[WorkItem]:
    """What each delivery states of work items."""
    return [row for each in log for name, row in understand(SOURCES, each).rows if name == READ_MODEL.name]


@EVERY
def test_any_processing_of_a_log_gives_one_row_for_each_item(history: History) -> None:
    for log in arrivals(history):
        stated = rows(log)
        results = [join_all(READ_MODEL, order) for order in islice(permutations(stated), ORDERS_MAX)]
        results.append(join_all(READ_MODEL, [*stated, *stated]))

        assert all(result == results[0] for result in results)
        assert {key for (key,) in results[0]} == set(history.now)


@pytest.fixture(scope="module")
async def engine(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


async def fold(engine: AsyncEngine, log: Sequence[Delivery], batches: Sequence[Sequence[Delivery]]) -> None:
    """Fold a log into empty tables, cut into batches."""
    by_seq = {each.seq: each for each in log}

    async def read(seq: int) -> Delivery:
        return by_seq[seq]

    await empty(engine)
    writer = Writer(engine, Sql.of(), SOURCES, read)
    for batch in batches:
        await writer.fold([understand(SOURCES, each) for each in batch])


async def require(engine: AsyncEngine, history: History) -> None:
    """The view says what it must, and each fact is told once."""
    async with engine.connect() as connection:
        found = {
            row["work_item_ref"]: dict(row)
            for row in (await connection.execute(text("SELECT * FROM ops.work_items_now"))).mappings()
        }
        events = await connection.scalar(text("SELECT count(*) FROM ops.platform_events"))
    for ref, wanted in history.now.items():
        assert wanted == {name: found[ref][name] for name in wanted}
    assert set(found) == set(history.now)
    assert history.events == events


@pytest.mark.anyio
@EVERY
async def test_the_view_says_what_counts_now_whatever_arrived_first(
    history: History, engine: AsyncEngine
) -> None:
    for log in arrivals(history):
        await fold(engine, log, [[each] for each in log])
        await require(engine, history)


@pytest.mark.anyio
@EVERY
async def test_the_view_says_the_same_after_one_batch_and_after_the_reverse(
    history: History, engine: AsyncEngine
) -> None:
    log = arrivals(history)[0]
    for batches in ([log], [[each] for each in reversed(log)], [log, log]):
        await fold(engine, log, batches)
        await require(engine, history)


def test_a_listing_of_other_things_says_nothing_of_work_items() -> None:
    listing = listed(5, "digitalocean:droplet/1")
    other = replace(listing, body=listing.body.replace(b'"work_item"', b'"droplet"'))

    assert [] == rows([other])
    assert ["digitalocean:droplet/1"] == [row.work_item_ref for row in rows([listing])]


def test_what_a_sender_does_not_say_is_no_statement() -> None:
    deletion = HISTORIES[4].deliveries[-1]
    [created], [deleted] = rows([replace(CREATED, seq=1)]), rows([replace(deletion, seq=2)])

    assert (None, None, None, (), ()) == (
        deleted.project_ref,
        deleted.url,
        deleted.title,
        deleted.version,
        deleted.named_version,
    )
    assert created.project_ref == join_all(READ_MODEL, [created, deleted])[created.work_item_ref,].project_ref


def test_a_pull_request_is_followed_by_its_head_commit() -> None:
    body = sample("pull_request.closed.03")
    found = only("pull_request", body)

    assert isinstance(found, WorkItemEvent)
    assert body["pull_request"]["head"]["sha"] == found.head_sha == found.correlation


def test_an_issue_belongs_to_no_commit() -> None:
    assert None is only("issues", sample("issues.opened.15")).correlation
