"""Parked deliveries on real servers: retried, left parked, discarded, and said to be parked when other code starts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from providers.port import Source
from runtime import postgres, streams
from services.projector import fingerprint
from services.projector.app import Projector
from services.projector.rebuild import rebuild
from services.projector.retry import (
    NOT_IN_THE_LOG,
    PORTION_COUNT,
    Outcome,
    RetryRunning,
    Selection,
    discard,
    look,
    portions,
    retry,
    today,
)
from services.projector.understand import understand
from services.projector.work import Progress
from services.projector.write import Folded
from tests.conftest import Broker
from tests.processes import forked
from tests.samples import SOURCES, at, body, delivery, log, paths
from tests.servers import Database
from tests.services.projector.rebuilding import working
from tests.services.projector.running import (
    DEADLINE_S,
    clean_fold,
    environment,
    event_ids,
    events,
    fold_one,
    park_all,
    project_all,
    store,
    store_batch,
    until,
)
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio

ALL = Selection()
OPENED = delivery("issues", body("issues.opened.15"), 0, "opened")
POISON = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")


@pytest.fixture
async def engine(database: Database, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def retried(broker: Broker, database: Database, selection: Selection = ALL) -> Outcome:
    """What a retry by the repository's own sources came to."""
    outcome = Outcome()
    async with working(broker, database) as work:
        await retry(work, selection, outcome)
    return outcome


async def facts(broker: Broker) -> list[str]:
    """The ids of the events in EVENTS, but for those that say that something is parked."""
    return [each["ce-id"] for each in await events(broker) if each["ce-type"] != "delivery.parked"]


async def test_a_retry_folds_what_is_understood_now_and_publishes_it_once(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    entries = log(paths("issues", "workflow_run", "push"))
    await store_batch(broker, entries)
    await park_all(broker, engine)
    assert [] == await facts(broker)

    outcome = await retried(broker, database)
    again = await retried(broker, database)

    found = await snapshot(engine)
    published = await facts(broker)
    assert (len(entries), 0) == (outcome.total, outcome.count("parked"))
    assert len(published) == len(set(published)) == outcome.events == len(found["platform_events"])
    assert (0, 0) == (again.total, again.events)
    assert await clean_fold(broker, engine) == found


async def test_an_event_that_was_published_for_another_delivery_is_not_published_again(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    """Long after: the broker's memory of ids is bounded."""
    await store(broker, [OPENED])
    await project_all(broker, engine)
    await store(broker, [at(OPENED, 0, "told-again")])
    await park_all(broker, engine)

    outcome = await retried(broker, database)

    assert (1, 0) == (outcome.count("projected"), outcome.events)


async def test_what_stays_parked_has_todays_reason_a_counted_try_and_no_event_of_it(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [POISON, OPENED])
    await park_all(broker, engine)
    before = await event_ids(broker)

    outcome = await retried(broker, database, Selection(sequences=(1,)))

    assert {("parked", "shape_mismatch"): 1} == outcome.ends
    assert before == await event_ids(broker)
    assert 1 == await count(engine, "deliveries", "reason = 'shape_mismatch' AND attempts = 2")
    assert 1 == await count(engine, "deliveries", "reason = 'older_code' AND attempts = 1")


async def test_a_selection_by_ref_tries_only_what_is_about_it(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    other = delivery("issues", body("issues.opened.15").replace(b"/Hello-World", b"/another"), 0, "other")
    await store(broker, [OPENED, other, POISON])
    await park_all(broker, engine)
    (ref,) = understand(SOURCES, OPENED).refs

    outcome = await retried(broker, database, Selection(ref=ref))

    assert {("projected", None): 1} == outcome.ends
    assert 2 == await count(engine, "deliveries", "status = 'parked' AND attempts = 1")


async def test_one_that_the_database_refuses_stays_parked_alone(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    refusal = "ALTER TABLE ops.work_items ADD CHECK (work_item_ref NOT LIKE '%poison%')"
    await asyncio.to_thread(database.server.execute, refusal, database=database.name)
    bad = delivery("issues", body("issues.opened.15").replace(b"/Hello-World", b"/poison"), 0, "bad")
    good = log(paths("issues"))[:9]
    await store_batch(broker, [*good[:5], bad, *good[5:]])
    await park_all(broker, engine)

    outcome = await retried(broker, database)

    assert (len(good), 1) == (outcome.count("projected"), outcome.ends["parked", "write_refused"])
    published = await facts(broker)
    assert len(published) == len(set(published)) == await count(engine, "platform_events")


async def test_one_that_was_trimmed_from_the_log_says_so(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED])
    await park_all(broker, engine)
    await broker.js.delete_msg(streams.DELIVERIES, 1)

    assert {("parked", NOT_IN_THE_LOG): 1} == (await retried(broker, database)).ends


async def test_another_delivery_at_its_sequence_is_not_taken_for_it(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    """A ledger beside the log of somebody else."""
    await store(broker, [OPENED])
    await park_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.deliveries SET identity = 'somebody'"))

    assert {("parked", NOT_IN_THE_LOG): 1} == (await retried(broker, database)).ends
    assert 0 == await count(engine, "work_items")


async def test_a_late_earlier_body_that_was_parked_takes_its_place(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    """Its refold was impossible, for the log could not be read; now it can."""
    first = delivery("issues", body("issues.opened.15"), 1, "same")
    second = delivery("issues", body("issues.transferred.21"), 2, "same")
    await store(broker, [first, second])
    wanted = await clean_fold(broker, engine)
    async with engine.begin() as connection:
        for model in wanted:
            await connection.execute(text(f"DELETE FROM ops.{model}"))
    await fold_one(broker, engine, 2)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO ops.deliveries (source, identity, body_sha256, stream_seq, last_seq, first_version, kind,"
                " via, verified_by, body_bytes, received_at, version, status, reason, refs, event_count)"
                " VALUES ('github', 'same', :hash, 1, 1, ARRAY[-1], 'issues', 'webhook', 'GITHUB_WEBHOOK_SECRET',"
                " :bytes, :at, ARRAY[-1, 1], 'parked', 'refold_impossible', '{}', 0)"
            ),
            {"hash": first.body_sha256, "bytes": len(first.body), "at": first.received_at},
        )

    outcome = await retried(broker, database)

    assert {("projected", None): 1} == outcome.ends
    assert wanted == await snapshot(engine)


# A retry that dies by SIGKILL once the events are published and the ledger does not know of it.
_KILLED = """
import os, signal
from cli.main import main
from runtime import bus

publish = bus.publish_all
async def last(*args):
    await publish(*args)
    os.kill(os.getpid(), signal.SIGKILL)

bus.publish_all = last
main(["parked", "retry", "--all", "--yes"])
"""


async def test_kill_9_after_publishing_leaves_it_parked_and_the_next_retry_ends_the_same(
    broker: Broker, database: Database, engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_batch(broker, log(paths("issues")))
    await park_all(broker, engine)
    addresses = {
        "NATS_URL_OPERATOR": broker.url("operator"),
        "NATS_URL_READER": broker.url("reader"),
        "DATABASE_URL_OPERATOR": database.url("operator"),
        "DATABASE_URL_READER": database.url("reader"),
    }

    with forked(["-c", _KILLED], {**os.environ, **addresses}, tmp_path / "retry") as retry:
        assert -signal.SIGKILL == await retry.ended(DEADLINE_S), retry.said()
    published = await facts(broker)
    assert published
    assert len(paths("issues")) == await count(engine, "deliveries", "status = 'parked'")

    outcome = await retried(broker, database)

    assert 0 == outcome.count("parked")
    assert published == await facts(broker)
    found = await snapshot(engine)
    assert len(published) == len(found["platform_events"])
    assert await clean_fold(broker, engine) == found


async def test_one_whose_retry_was_cut_short_is_taken_back_when_it_is_discarded(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED])
    await park_all(broker, engine)
    await cut_short(broker, database)
    assert 1 == await count(engine, "work_items")

    await discarded(broker, database, ALL)

    assert 0 == await count(engine, "work_items")
    async with working(broker, database) as work:
        done = await rebuild(work, limit=5, dry_run=True)
    assert [] == [each for each in done.compared if not each.equal]


async def cut_short(broker: Broker, database: Database) -> None:
    """A retry that ends before it has published."""

    async def dies(folded: Folded) -> None:
        raise ConnectionError

    async with working(broker, database) as work, work.engine.connect() as connection:
        writer = work.writer("ops")
        async for rows in portions(connection, ALL):
            with pytest.raises(ConnectionError):
                await writer.retry(await today(SOURCES, writer.read_log, rows), dies)


async def test_what_a_retry_did_not_come_to_publish_is_published_by_the_next(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED])
    await park_all(broker, engine)
    await cut_short(broker, database)
    assert [] == await facts(broker)

    outcome = await retried(broker, database)

    assert outcome.events == len(await facts(broker)) == await count(engine, "platform_events") > 0


class Interrupted(Exception):
    """somebody does not want to wait"""


async def test_an_interrupted_retry_keeps_what_it_has_done_and_the_next_goes_on(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    pushed = delivery("push", body("push.00"), 0)
    await store_batch(broker, [replace(pushed, identity=f"guid-{n}") for n in range(PORTION_COUNT + 7)])
    await park_all(broker, engine)
    told = []

    def interrupt(progress: Progress) -> None:
        told.append((progress.done, progress.total))
        raise Interrupted

    async with working(broker, database) as work:
        looked = await look(work, ALL, newest_first=True, count_max=PORTION_COUNT + 3)
        with pytest.raises(Interrupted):
            await retry(replace(work, tell=interrupt), ALL, Outcome())
    assert PORTION_COUNT + 3 == looked.total
    assert [(PORTION_COUNT, PORTION_COUNT + 7)] == told
    assert PORTION_COUNT == await count(engine, "deliveries", "status = 'projected'")

    assert 7 == (await retried(broker, database)).count("projected")


async def test_of_two_retries_at_once_the_second_is_refused(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": postgres.RETRY_LOCK})
        with pytest.raises(RetryRunning):
            await retried(broker, database)
        await other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": postgres.RETRY_LOCK})

    await retried(broker, database)
    await retried(broker, database)  # nobody has kept the lock


async def discarded(broker: Broker, database: Database, selection: Selection) -> int:
    async with working(broker, database) as work:
        return await discard(work, selection, "a test of the sender's", "somebody")


async def test_a_discarded_one_stays_so_whatever_is_done_to_it(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED, at(OPENED, 0, "kept")])
    await park_all(broker, engine)

    assert 1 == await discarded(broker, database, Selection(sequences=(1,)))
    assert (1, 1) == ((await retried(broker, database)).total, await _set_aside(engine))
    await project_all(broker, engine)
    assert 1 == await _set_aside(engine)
    async with working(broker, database) as work:
        done = await rebuild(work, limit=5, dry_run=False)

    assert [] == [each for each in done.compared if not each.equal]
    assert 1 == await _set_aside(engine)
    assert 1 == [each["ce-type"] for each in await events(broker)].count("delivery.discarded")


async def _set_aside(engine: AsyncEngine) -> int:
    return await count(
        engine,
        "deliveries",
        "identity = 'opened' AND status = 'discarded' AND reason = 'by_an_operator'"
        " AND last_error = 'a test of the sender''s'",
    )


async def test_many_are_discarded_in_portions_and_each_is_said_once(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, [replace(POISON, identity=f"poison-{n}") for n in range(250)])
    await park_all(broker, engine)

    assert 250 == await discarded(broker, database, Selection(source="github"))
    assert 0 == await discarded(broker, database, Selection(source="github"))

    await project_all(broker, engine)
    assert 250 == await count(engine, "deliveries", "status = 'discarded'")
    assert 250 == await count(engine, "deliveries", "source = 'odooops' AND status = 'projected'")


def starting(broker: Broker, engine: AsyncEngine, sources: Mapping[str, Source] = SOURCES) -> Projector:
    """A projector before it works."""
    return Projector(broker.nc, engine, sources, structlog.get_logger(), asyncio.Event())


async def started(
    broker: Broker, engine: AsyncEngine, sources: Mapping[str, Source] = SOURCES, *, unpark: bool = False
) -> list[dict[str, Any]]:
    """What a projector says that starts, of parked deliveries."""
    with capture_logs() as said:
        await _start(broker, engine, sources, unpark=unpark)
    return [dict(each) for each in said]


async def _start(
    broker: Broker, engine: AsyncEngine, sources: Mapping[str, Source] = SOURCES, *, unpark: bool = False
) -> None:
    projector = starting(broker, engine, sources)
    if await projector.begin() or unpark:
        await projector.look_at_parked(unpark=unpark)


async def test_other_code_says_once_how_much_of_what_is_parked_it_understands(
    broker: Broker, engine: AsyncEngine
) -> None:
    await started(broker, engine, {})
    await store(broker, [OPENED, POISON])
    await park_all(broker, engine)
    assert [] == await started(broker, engine, {})
    before = await snapshot(engine)

    with capture_logs() as said:  # one for both: it changes what all of the process's loggers do
        await asyncio.gather(_start(broker, engine), _start(broker, engine))

    (line,) = _about_parked(said)
    assert (2, 1, 1) == (line["deliveries"], line["projected"], line["parked"])
    assert ({"shape_mismatch": 1}, "odooops parked retry --all") == (line["reasons"], line["hint"])
    assert before == await snapshot(engine)
    assert [] == await started(broker, engine)


def _about_parked(said: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for each in said if "parked deliveries" in each["event"]]


async def test_it_retries_what_is_parked_where_it_is_told_to(broker: Broker, engine: AsyncEngine) -> None:
    await store(broker, [OPENED, POISON])
    await park_all(broker, engine)

    (line,) = await started(broker, engine, unpark=True)

    assert (1, 1, len(await facts(broker))) == (line["projected"], line["parked"], line["events"])
    assert 1 == await count(engine, "deliveries", "status = 'projected'")


async def test_a_retry_at_the_start_ends_when_the_process_is_to_stop(
    broker: Broker, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED])
    await park_all(broker, engine)
    projector = starting(broker, engine)
    async with asyncio.timeout(DEADLINE_S), engine.begin() as other:
        await postgres.own_fold_lock(other)  # it cannot write before this ends
        looking = asyncio.create_task(projector.look_at_parked(unpark=True))
        await until(lambda: _waits(engine), "the retry waits for the lock")
        projector.stopping.set()
        await looking

    assert 1 == await count(engine, "deliveries", "status = 'parked'")


async def test_the_process_retries_by_its_flag(
    broker: Broker, database: Database, engine: AsyncEngine, tmp_path: Path
) -> None:
    await store(broker, [OPENED])
    await park_all(broker, engine)
    command = ["-m", "services.projector", "--unpark"]
    with forked(command, environment(broker, database), tmp_path / "projector") as process:
        await until(lambda: _projected(engine), "the parked delivery is in the tables")
        process.signal(signal.SIGTERM)
        assert 0 == await process.ended(DEADLINE_S)


async def _waits(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE NOT granted AND datname = current_database()"
            )
        )
        return bool(found.scalar_one())


async def _projected(engine: AsyncEngine) -> bool:
    return bool(await count(engine, "deliveries", "status = 'projected'"))


async def test_rows_of_a_new_log_are_all_todays_codes_and_those_of_an_old_one_nobodys(
    broker: Broker, engine: AsyncEngine
) -> None:
    today_ = fingerprint.fingerprints(SOURCES)
    await started(broker, engine)
    assert today_ == await _recorded(engine)

    await store(broker, [OPENED])
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM projector.models WHERE model = 'builds'"))
        await connection.execute(
            text("UPDATE projector.models SET fingerprint = 'older' WHERE model = 'backups'")
        )
    await started(broker, engine)

    assert {**today_, "builds": "", "backups": "older"} == await _recorded(engine)


async def _recorded(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        return await fingerprint.recorded(connection)
