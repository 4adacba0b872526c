"""ops.work_items and its view at the end of histories, in any order of arrival and of processing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice, permutations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.observation import observation, observed_body
from contracts.own import delivery_of
from contracts.polls import listing
from contracts.version import micros
from contracts.work_items import WorkItemEvent
from read_models.merge import join_all
from read_models.work_items import READ_MODEL, WorkItem
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests import samples
from tests.providers.github.deliveries import only, sample
from tests.read_models.histories import CREATED, HISTORIES, REF, History, at, listed
from tests.samples import SOURCES
from tests.servers import Database, Postgres, fresh_database
from tests.tables import SQL, empty

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
    writer = Writer(engine, SQL, SOURCES, read)
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


# Presence.

PULL = "github:octocat/Hello-World#1347"
PULLS, ISSUES = ("repos/octocat/Hello-World/pulls", "repos/octocat/Hello-World/issues")


def found(minute: float, number: int = 1347, kind: str = "pull_request", scope: str = PULLS) -> Delivery:
    """A poll of GitHub found an open item, last changed a day before."""
    changed_at = (at(minute) - timedelta(days=1)).isoformat()
    item = {
        "number": number,
        "state": "open",
        "title": "Amazing",
        "updated_at": changed_at,
        "repository_url": "https://api.github.com/repos/octocat/Hello-World",
    }
    return observation(
        source="github",
        ref=PULL,
        kind=kind,
        body=observed_body(scope, item),
        via="poll",
        run_id=f"run-{minute}",
        fetched_at=at(minute),
    )


def whole(
    begun: float, *refs: str, kind: str = "pull_request", scope: str = PULLS, source: str = "github"
) -> Delivery:
    """A whole listing that began at a minute."""
    [event] = listing(source, scope, at(begun), {kind: refs})
    return delivery_of(event, "poll", at(begun))


def opened(minute: float) -> Delivery:
    """A webhook about the item."""
    raw = json.loads(samples.body("pull_request.opened.00"))
    raw["number"] = raw["pull_request"]["number"] = 1347
    raw["repository"]["full_name"] = raw["pull_request"]["base"]["repo"]["full_name"] = "octocat/Hello-World"
    raw["pull_request"]["updated_at"] = at(minute).isoformat()
    made = samples.delivery("pull_request", json.dumps(raw).encode(), 1, "guid-opened")
    return replace(made, received_at=at(minute) + timedelta(seconds=1))


PRESENCE: list[tuple[str, bool | None, list[Delivery]]] = [
    ("never listed", None, [found(1)]),
    ("shown by the newest listing", False, [found(1), whole(1, PULL), whole(9, PULL)]),
    ("missed by the newest listing", True, [found(1), whole(1, PULL), whole(9)]),
    ("back again", False, [found(1), whole(1, PULL), whole(5), whole(9, PULL)]),
    ("spoken of after the listing that missed it", False, [whole(1, PULL), whole(5), opened(7)]),
    ("missed by a listing of another scope", False, [whole(1, PULL), whole(9, kind="issue", scope=ISSUES)]),
    ("missed by a listing of another source", False, [whole(1, PULL), whole(9, source="github_ee")]),
    ("known by webhook alone", None, [opened(1), whole(9)]),
    ("known by webhook, listed once and missed", True, [opened(1), whole(5, PULL), whole(9)]),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("gone", "history"), [each[1:] for each in PRESENCE], ids=[each[0] for each in PRESENCE]
)
async def test_an_item_is_gone_that_a_whole_listing_of_its_scope_misses(
    engine: AsyncEngine, gone: bool | None, history: list[Delivery]
) -> None:
    log = [replace(each, seq=seq) for seq, each in enumerate(history, 1)]
    for order in permutations(log):
        await fold(engine, log, [[each] for each in order])
        assert gone is await presence(engine, PULL)


@pytest.mark.anyio
async def test_one_listing_of_counted_pages_does_not_prove_that_a_task_is_gone(engine: AsyncEngine) -> None:
    log = [replace(each, seq=seq) for seq, each in enumerate([CREATED, listed(50, REF), listed(60)], 1)]
    await fold(engine, log, [log])

    assert None is await presence(engine, REF)


async def presence(engine: AsyncEngine, ref: str) -> bool | None:
    async with engine.connect() as connection:
        statement = text("SELECT gone FROM ops.work_items_now WHERE work_item_ref = :ref")
        said: bool | None = (await connection.execute(statement, {"ref": ref})).scalar_one()
        return said


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ahead_s", "system", "deleted"), [(60, "plane", True), (61, "plane", False), (1, "github", False)]
)
async def test_a_deletion_with_our_time_outlives_a_clock_that_is_a_minute_ahead(
    engine: AsyncEngine, ahead_s: int, system: str, deleted: bool
) -> None:
    await empty(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO ops.work_items (work_item_ref, system, deleted_at, version)"
                " VALUES ('x', :system, :at, :version)"
            ),
            {
                "system": system,
                "at": at(0),
                "version": [0, micros(at(0) + timedelta(seconds=ahead_s)), 1, 1, 0],
            },
        )
        said = await connection.scalar(text("SELECT deleted FROM ops.work_items_now"))
    assert deleted is said


@pytest.mark.anyio
async def test_a_look_at_where_one_item_is_now_does_not_read_all_items(database: Database) -> None:
    admin = make_engine(database.url("admin"), "test")
    async with admin.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO ops.work_items (work_item_ref, system, project_id, number, moved_to)"
                " SELECT 'github:o/r#' || n, 'github', 1, n, CASE WHEN n = 7 THEN 'github:o/r#8' END"
                " FROM generate_series(1, 20000) AS n"
            )
        )
        await connection.execute(text("ANALYZE ops.work_items"))
        plan = await connection.execute(
            text(
                "EXPLAIN SELECT current_ref FROM ops.work_item_refs_now WHERE work_item_ref = 'github:o/r#9'"
            )
        )
        steps = "\n".join(plan.scalars())
    await admin.dispose()
    assert "work_items_moved_to" in steps
    assert "Seq Scan on work_items" not in steps
