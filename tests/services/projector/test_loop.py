"""The projector on a real broker and a real Postgres."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from contracts import delivery as wire
from contracts.delivery import Delivery
from contracts.ledger import DeliveryDiscarded, DeliveryParked
from contracts.own import delivery_of
from runtime import bus, streams
from runtime.postgres import make_engine
from services.projector.app import READ_AT_ONCE, Projector
from services.projector.understand import understand
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, SOURCES, at, body, delivery, log, paths
from tests.servers import Database
from tests.services.projector.running import (
    DEADLINE_S,
    IN_A_TRANSACTION,
    PLACES,
    clean_fold,
    drained,
    event_ids,
    events,
    fold_one,
    project_all,
    projecting,
    run_until_killed,
    shorten_ack_wait,
    store,
    store_batch,
    taken,
    until,
)
from tests.tables import count, empty, snapshot

pytestmark = pytest.mark.anyio

SMALL_BATCH = 15


@pytest.fixture
async def engine(database: Database, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def test_every_sample_ends_in_the_ledger_and_its_events_in_the_stream(
    broker: Broker, engine: AsyncEngine
) -> None:
    entries = log(paths())
    await store_batch(broker, entries)

    await project_all(broker, engine)

    assert len(entries) == await count(engine, "deliveries")
    assert 0 == await count(engine, "deliveries", "status NOT IN ('projected', 'ignored')")
    ids = await event_ids(broker)
    assert len(ids) == len(set(ids)) == await count(engine, "platform_events")


async def test_the_same_fact_again_gives_one_event_one_row_and_no_second_message(
    broker: Broker, engine: AsyncEngine
) -> None:
    first = delivery("workflow_run", body("workflow_run.completed.00"), 1)
    await store(broker, [first, at(first, 2, "another-guid")])
    await project_all(broker, engine)
    # The broker's memory of ids is bounded; the ledger's is not: the same message, long after.
    await broker.js.publish(first.subject, first.body, headers=_without_id(first))
    await project_all(broker, engine)

    assert 3 == (await broker.js.stream_info(streams.DELIVERIES)).state.messages
    assert 1 == len(await event_ids(broker))
    assert 1 == await count(engine, "run_events")
    assert 1 == await count(engine, "builds")
    assert 1 == await count(engine, "deliveries", "stream_seq = 1 AND last_seq = 3")


async def test_a_poison_delivery_in_a_batch_of_100_parks_alone(broker: Broker, engine: AsyncEngine) -> None:
    entries = (log(paths()) * 2)[:100]
    entries = [replace(entry, identity=f"guid-{n}") for n, entry in enumerate(entries)]
    entries[40] = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")
    await store_batch(broker, entries)

    await project_all(broker, engine)

    assert 100 == await count(engine, "deliveries")
    assert 1 == await count(engine, "deliveries", "status = 'parked'")
    assert 1 == await count(engine, "deliveries", "identity = 'poison' AND reason = 'shape_mismatch'")


async def test_what_is_parked_raises_one_event_and_counts_by_its_reason(
    broker: Broker, engine: AsyncEngine
) -> None:
    def counted() -> float:
        labels = {"source": "github", "reason": "shape_mismatch"}
        return REGISTRY.get_sample_value("odooops_projector_parked_total", labels) or 0.0

    before = counted()
    poison = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")
    await store(broker, [poison, at(poison, 0, "another")])
    await broker.js.publish(poison.subject, poison.body, headers=_without_id(poison))
    async with projecting(broker, engine) as (projector,):
        await until(lambda: drained(broker), "the log is drained")
        again = await bus.read_delivery(broker.js, 1)
        await projector.fold([understand(SOURCES, again)])  # as after a crash

    said = [await broker.js.get_msg(streams.EVENTS, seq) for seq in (1, 2)]

    assert 2 == len(await events(broker)) == counted() - before - 1
    assert {"delivery.parked"} == {(each.headers or {})["ce-type"] for each in said}
    first = DeliveryParked.model_validate_json(said[0].data or b"")
    assert ("github", "poison", "shape_mismatch", 1) == (
        first.delivery_source,
        first.delivery_identity,
        first.reason,
        first.seq,
    )


async def test_data_that_postgres_refuses_parks_the_one_delivery_that_holds_it(
    broker: Broker, engine: AsyncEngine, database: Database
) -> None:
    """No such data is known, so the table is made to refuse one: a repository that a check does not like."""
    admin = make_engine(database.url("admin"), "test")
    async with admin.begin() as connection:
        await connection.execute(
            text("ALTER TABLE ops.work_items ADD CHECK (work_item_ref NOT LIKE '%poison%')")
        )
    await admin.dispose()
    good = log(paths())
    bad = delivery("issues", body("issues.opened.15").replace(b"/Hello-World", b"/poison"), 0, "bad")
    await store_batch(broker, [*good[:50], bad, *good[50:]])

    await project_all(broker, engine)

    assert len(good) == await count(engine, "deliveries", "status <> 'parked'")
    assert 1 == await count(engine, "deliveries", "identity = 'bad' AND reason = 'write_refused'")
    assert 1 == await count(engine, "deliveries", "identity = 'bad' AND last_error LIKE '%23514%'")


async def test_a_message_that_is_no_delivery_of_ours_is_parked_and_named(
    broker: Broker, engine: AsyncEngine
) -> None:
    await broker.js.publish("deliveries.stranger.hello.world", b"\xff\x00")

    await project_all(broker, engine)

    assert 1 == await count(
        engine, "deliveries", "source = 'stranger' AND reason = 'unreadable' AND status = 'parked'"
    )


async def test_a_large_body_is_fetched_from_the_object_store(broker: Broker, engine: AsyncEngine) -> None:
    large = body("issues.opened.15")
    large = large.replace(b'"body": "', b'"body": "' + b"x" * 2 * streams.INLINE_BODY_BYTES_MAX, 1)
    await store(broker, [delivery("issues", large, 0, "large")])

    await project_all(broker, engine)

    assert 1 == await count(engine, "deliveries", f"status = 'projected' AND body_bytes = {len(large)}")
    assert 1 == await count(engine, "work_items")


async def test_an_earlier_body_that_comes_late_takes_its_place(broker: Broker, engine: AsyncEngine) -> None:
    first = delivery("issues", body("issues.opened.15"), 1, "same")
    second = delivery("issues", body("issues.transferred.21"), 2, "same")
    await store(broker, [first, second])
    wanted = await clean_fold(broker, engine)

    await empty(engine)
    for seq in (2, 1):
        await fold_one(broker, engine, seq)

    assert wanted == await snapshot(engine)
    assert 1 == await count(engine, "deliveries", "status = 'conflict' AND stream_seq = 2")
    assert 0 == await count(engine, "work_items", "deleted_at IS NOT NULL")


async def test_parallel_projectors_give_what_one_gives(broker: Broker, engine: AsyncEngine) -> None:
    entries = log(paths())
    doubled = [*entries, *(at(entry, 0, f"again-{entry.identity}") for entry in entries)]
    conflicts = [at(entries[n + 1], 0, entries[n].identity) for n in range(0, 40, 2)]
    await store_batch(broker, [*doubled, *conflicts])

    await project_all(broker, engine, count=3)

    found = await snapshot(engine)
    assert await clean_fold(broker, engine) == found
    assert len(conflicts) == Counter(row["status"] for row in found["deliveries"])["conflict"]


@pytest.mark.parametrize("place", PLACES)
async def test_kill_9_loses_and_doubles_nothing(
    broker: Broker, engine: AsyncEngine, database: Database, place: str, tmp_path: Path
) -> None:
    await shorten_ack_wait(broker)
    await store_batch(broker, log(paths()))

    await run_until_killed(broker, database, place, tmp_path)
    await project_all(broker, engine)

    found = await snapshot(engine)
    ids = await event_ids(broker)
    assert await clean_fold(broker, engine) == found
    assert len(ids) == len(set(ids)) == len(found["platform_events"])


async def test_one_of_three_processes_dies_and_the_others_finish_its_work(
    broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All batches are about the same things, with copies and conflicts; each process has connections of its own."""
    monkeypatch.setattr(streams, "FETCH_COUNT", SMALL_BATCH)
    await shorten_ack_wait(broker)
    entries = log(paths("workflow_run", "issues")[: SMALL_BATCH - 3])
    copies = [at(entry, 0, f"{n}-{entry.identity}") for n in range(30) for entry in entries]
    conflicts = [at(entries[n + 1], 0, copies[n].identity) for n in range(0, SMALL_BATCH - 4, 2)]
    await store_batch(broker, [*copies, *conflicts])
    waits = _waits_for_postgres()

    dying = asyncio.create_task(run_until_killed(broker, database, IN_A_TRANSACTION, tmp_path, SMALL_BATCH))
    await until(lambda: taken(broker), "the first has deliveries in hand")
    own = make_engine(database.url("projector"), "test")
    async with projecting(broker, engine), projecting(broker, own):
        await dying
        await until(lambda: drained(broker), "the log is drained")
    await own.dispose()

    found = await snapshot(engine)
    ids = await event_ids(broker)
    assert waits == _waits_for_postgres(), "a deadlock is waited out like an outage"
    assert len(ids) == len(set(ids)) == len(found["platform_events"])
    assert len(conflicts) == Counter(row["status"] for row in found["deliveries"])["conflict"]
    assert await clean_fold(broker, engine) == found


def _waits_for_postgres() -> float:
    return REGISTRY.get_sample_value("odooops_projector_outages_total", {"server": "postgres"}) or 0.0


async def test_others_go_on_while_a_batch_is_understood(broker: Broker, engine: AsyncEngine) -> None:
    """Else a transaction that holds locks waits for its next statement, and everybody waits for the transaction."""
    await store_batch(broker, log(paths()))
    nc = await bus.connect(broker.url("projector"), "projector")
    projector = Projector(nc, engine, SOURCES, get_logger(), asyncio.Event())
    fetched = await projector.pull.fetch(DEADLINE_S)
    reading = asyncio.create_task(projector._read_all(fetched))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    await nc.close()

    assert turns >= len(fetched) // READ_AT_ONCE > 5


async def test_a_missing_column_is_waited_for_and_parks_nothing(
    broker: Broker, engine: AsyncEngine, database: Database
) -> None:
    """Code may start before its migration has run."""
    await asyncio.to_thread(execute_in, database, "ALTER TABLE ops.work_items RENAME COLUMN title TO later")
    await store_batch(broker, log(paths("issues")))
    async with projecting(broker, engine):
        await until(lambda: taken(broker), "the batch is in the projector's hands")
        await asyncio.to_thread(
            execute_in, database, "ALTER TABLE ops.work_items RENAME COLUMN later TO title"
        )
        await until(lambda: drained(broker), "the log is drained")

    assert 0 == await count(engine, "deliveries", "status = 'parked'")


async def test_a_delivery_whose_large_body_is_missing_is_parked_under_its_own_name(
    broker: Broker, engine: AsyncEngine
) -> None:
    large = delivery("issues", b"{" + b" " * streams.INLINE_BODY_BYTES_MAX + b"}", 0, "large")
    await store(broker, [large])
    await broker.js.purge_stream(streams.BODIES_STREAM)

    await project_all(broker, engine)

    assert 1 == await count(engine, "deliveries", "identity = 'large' AND reason = 'unreadable'")


async def test_rows_wait_for_postgres_and_appear_when_it_is_back(
    broker: Broker, engine: AsyncEngine, database: Database
) -> None:
    await _let_in(database, False)
    await store_batch(broker, log(paths("issues")))
    async with projecting(broker, engine):
        await until(lambda: taken(broker), "the batch is in the projector's hands")
        await _let_in(database, True)
        await until(lambda: drained(broker), "the log is drained")

    assert len(paths("issues")) == await count(engine, "deliveries", "status = 'projected' AND attempts = 1")


async def test_a_broker_that_lost_the_consumer_is_a_problem_and_not_a_silence(
    broker: Broker, engine: AsyncEngine
) -> None:
    async with projecting(broker, engine) as (projector,):
        assert {} == await projector.problems()
        await broker.js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)
        assert {"consumer"} == set(await projector.problems())


def execute_in(database: Database, statement: str) -> None:
    """Run a statement in a test's own database, as its owner."""
    database.server.execute(statement, database=database.name)


async def _let_in(database: Database, allowed: bool) -> None:
    """Open or close a database to its logins, and end the sessions that there are."""
    await asyncio.to_thread(
        database.server.execute,
        f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS {str(allowed).lower()}",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{database.name}' AND pid <> pg_backend_pid()",
    )


def _without_id(entry: Delivery) -> dict[str, str]:
    return {name: value for name, value in wire.to_headers(entry).items() if name != wire.MESSAGE_ID}


async def test_a_late_earlier_body_whose_rows_cannot_be_made_anew_parks_and_blocks_nothing(
    broker: Broker, engine: AsyncEngine
) -> None:
    """The first of a row's deliveries was trimmed from the log: what stands stays as it is."""
    trimmed = delivery("issues", body("issues.opened.15"), 1, "trimmed")
    first = delivery("issues", body("issues.edited.00"), 2, "same")
    second = delivery("issues", body("issues.transferred.21"), 3, "same")
    await store(broker, [trimmed, first, second])
    await fold_one(broker, engine, 1)
    await fold_one(broker, engine, 3)
    await broker.js.delete_msg(streams.DELIVERIES, 1)
    before = await snapshot(engine)

    await project_all(broker, engine)

    assert 1 == await count(engine, "deliveries", "stream_seq = 2 AND reason = 'refold_impossible'")
    assert before["work_items"] == (await snapshot(engine))["work_items"]
    assert 1 == [each["ce-type"] for each in await events(broker)].count("delivery.parked")


async def test_a_word_that_comes_with_what_it_sets_aside_counts(broker: Broker, engine: AsyncEngine) -> None:
    """As where a projector folds a log from its beginning: both are in one batch."""
    aside = delivery("issues", body("issues.opened.15"), 1)
    word = DeliveryDiscarded(
        delivery_source=aside.source,
        delivery_identity=aside.identity,
        body_sha256=aside.body_sha256,
        seq=1,
        why="a test",
        occurred_at=RECEIVED_AT,
    )
    await store(broker, [aside, delivery_of(word, "cli", RECEIVED_AT)])

    await project_all(broker, engine)

    assert 1 == await count(engine, "deliveries", "stream_seq = 1 AND status = 'discarded'")
    assert (0, 1) == (await count(engine, "work_items"), await count(engine, "platform_events"))
    assert 1 == len(await event_ids(broker))
