"""Rebuilding on real servers: the result is what the live tables are, and readers and projectors notice nothing."""

from __future__ import annotations

import asyncio
from itertools import count as numbers

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from runtime import bus, postgres
from services.projector.fingerprint import fingerprints, record
from services.projector.rebuild import rebuild
from services.projector.work import AnotherLog, RebuildRunning, alone
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.servers import Database
from tests.services.projector.rebuilding import (
    again,
    discarded,
    fold_all,
    mixed,
    said,
    schemas,
    soak,
    working,
    wrong,
)
from tests.services.projector.running import (
    drained,
    fold_one,
    project_all,
    projecting,
    store_batch,
    until,
)
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio


async def test_a_rebuild_finds_no_difference_and_leaves_the_same_rows(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    before = await snapshot(engine)

    async with working(broker, database) as work:
        done = await rebuild(work, limit=5, dry_run=False)

    assert [] == [each for each in done.compared if not each.equal]
    assert before == await snapshot(engine)
    assert done.kept is not None


async def test_a_row_changed_by_hand_is_named_with_both_values(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.work_items SET title = 'by hand' WHERE title IS NOT NULL"))
    changed = await count(engine, "work_items", "title = 'by hand'")

    async with working(broker, database) as work:
        found = await rebuild(work, limit=3, dry_run=True)

    (compared,) = [each for each in found.compared if not each.equal]
    assert ("work_items", changed, 3) == (compared.model, compared.changed, len(compared.differences))
    assert [["title"]] * 3 == [list(each.live or {}) for each in compared.differences]
    assert changed == await count(engine, "work_items", "title = 'by hand'")


POLLED = (
    "deliveries",
    "work_items",
    "work_items_now",
    "do_droplets_now",
    "freshness_now",
    "builds",
    "run_events",
)


async def poll(database: Database, stop: asyncio.Event) -> int:
    """Count rows as a reader, again and again: no error, and never fewer. How often that was."""
    reader = await asyncpg.connect(database.url("reader"))
    seen = dict.fromkeys(POLLED, 0)
    try:
        for n in numbers():
            if stop.is_set():
                return n
            for name in POLLED:
                rows = await reader.fetchval(f"SELECT count(*) FROM ops.{name}")
                assert rows >= seen[name], name
                seen[name] = rows
            await reader.fetch("SELECT * FROM ops.work_items_now LIMIT 3")
    finally:
        await reader.close()
    raise AssertionError


async def keep_coming(broker: Broker, entries: list[Delivery], stop: asyncio.Event) -> int:
    """Store deliveries until told to stop; how many."""
    stored = 0
    for n in numbers():
        for entry in again(entries, f"live-{n}"):
            if stop.is_set():
                return stored
            await bus.store_delivery(broker.js, entry)
            stored += 1
    raise AssertionError


async def test_a_rebuild_under_traffic_equals_live_and_no_reader_notices(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    entries = await soak(broker, engine)
    for status in ("projected", "ignored", "parked", "conflict", "discarded"):
        assert await count(engine, "deliveries", f"status = '{status}'"), status
    assert await count(engine, "deliveries", "last_seq > stream_seq")
    stop = asyncio.Event()

    async with working(broker, database) as work, projecting(broker, engine, 2):
        traffic = asyncio.create_task(keep_coming(broker, entries, stop))
        reading = asyncio.create_task(poll(database, stop))
        try:
            done = await rebuild(work, limit=5, dry_run=False)
        finally:
            stop.set()
            stored, looked = await asyncio.gather(traffic, reading)
        await until(lambda: drained(broker), "the log is drained")
        verified = await rebuild(work, limit=5, dry_run=True)

    assert stored > 0
    assert looked > 1
    assert [] == [each for each in done.compared if not each.equal]
    assert [] == [each for each in verified.compared if not each.equal]
    assert 0 == verified.behind
    assert 1 == await count(engine, "deliveries", "identity = 'understood-late' AND status = 'projected'")
    # What counts work was carried over: nobody tried nothing.
    assert 0 == await count(engine, "deliveries", "attempts = 0 AND status NOT IN ('discarded', 'redacted')")
    assert [done.kept] == list(await schemas(engine))


async def test_a_correction_is_named_by_verify_and_mended_by_a_rebuild(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await fold_all(broker, engine, wrong(SOURCES))
    today = fingerprints(SOURCES)
    async with engine.begin() as connection:
        await record(connection, {**today, "work_items": "older"})

    async with working(broker, database) as work:
        found = await rebuild(work, limit=1, dry_run=True)
        mended = await rebuild(work, ["work_items", "builds"], limit=0, dry_run=False)
        verified = await rebuild(work, limit=1, dry_run=True)

    assert ("work_items",) == found.older
    differing = {each.model: each for each in found.compared if not each.equal}
    assert "work_items" in differing
    (row,) = differing["work_items"].differences
    assert row.live == {name: str(value).upper() for name, value in (row.log or {}).items()}
    assert ("deliveries" in differing, mended.models) == (False, ("builds", "work_items"))
    assert () == verified.older
    equal = {each.model for each in verified.compared if each.equal}
    assert {"work_items", "builds", "deliveries"} <= equal


async def test_what_was_acknowledged_and_is_gone_from_the_ledger_is_a_difference(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed())[:20])
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM ops.deliveries WHERE stream_seq = 3"))

    async with working(broker, database) as work:
        found = await rebuild(work, limit=3, dry_run=True)

    (ledger,) = [each for each in found.compared if not each.equal]
    assert ("deliveries", 1, 0) == (ledger.model, ledger.missing, found.behind)


async def test_what_the_projectors_have_yet_to_fold_is_counted_and_not_compared(
    broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.projector.comparing.BEHIND_TRIES", 1)
    entries = list(mixed())
    await store_batch(broker, entries[:60])
    await project_all(broker, engine)
    held, later = [*entries[60:70], said(discarded(entries[0], 1))], entries[70:80]
    await store_batch(broker, [*held, *later])
    for n in range(len(later)):  # another projector was faster with these
        await fold_one(broker, engine, 60 + len(held) + n + 1)

    async with working(broker, database) as work:
        found = await rebuild(work, limit=3, dry_run=True)
        async with engine.connect() as connection:
            known = (await connection.execute(text("SELECT count(*) FROM projector.models"))).scalar_one()
        await project_all(broker, engine)
        after = await rebuild(work, limit=3, dry_run=True)

    assert (len(held), []) == (found.behind, [each for each in found.compared if not each.equal])
    assert 0 == known  # what was not compared is not known to be equal
    assert (0, []) == (after.behind, [each for each in after.compared if not each.equal])


async def test_two_at_once_is_refused(broker: Broker, database: Database) -> None:
    async with working(broker, database) as work, alone(work.engine) as process:
        with pytest.raises(RebuildRunning, match=rf"runs since .* database process {process}: wait"):
            await rebuild(work, limit=0, dry_run=True)


async def test_a_log_that_was_lost_is_not_put_in_the_place_of_the_tables(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed())[:20])
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.deliveries SET last_seq = 900 WHERE stream_seq = 3"))

    async with working(broker, database) as work:
        with pytest.raises(AnotherLog, match="read up to 900, the log ends at 20"):
            await rebuild(work, limit=0, dry_run=False)


async def test_an_empty_log_is_rebuilt_to_empty_tables(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    async with working(broker, database) as work:
        done = await rebuild(work, limit=0, dry_run=False)

    assert (0, []) == (done.deliveries, [each for each in done.compared if not each.equal])
    assert 0 == await count(engine, "deliveries")


async def test_whoever_is_cancelled_leaves_nothing_behind(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed())[:20])
    await project_all(broker, engine)
    before = await snapshot(engine)

    async with working(broker, database) as work:
        async with engine.begin() as folding:
            await postgres.share_fold_lock(folding)
            task = asyncio.create_task(rebuild(work, limit=0, dry_run=False))

            async def begun() -> bool:
                return any(about.purpose == "rebuild" for about in (await schemas(engine)).values())

            await until(begun, "a shadow is made")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert {} == await schemas(engine)
        async with alone(work.engine):
            assert before == await snapshot(engine)


async def test_whoever_loses_the_connection_ends_and_the_next_one_clears_up(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed())[:20])
    await project_all(broker, engine)
    before = await snapshot(engine)

    async with working(broker, database) as work, engine.begin() as folding:
        await postgres.share_fold_lock(folding)
        task = asyncio.create_task(rebuild(work, limit=0, dry_run=False))

        async def waits() -> bool:
            found = await folding.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            return bool(found.scalar_one())

        await until(waits, "the rebuild waits for the fold lock")
        admin = await asyncpg.connect(database.url("admin"))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'odooops_login_operator'"
        )
        await admin.close()
        with pytest.raises(Exception, match=r"(?i)connection|terminat"):
            await task
    assert before == await snapshot(engine)
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=True)
    assert {} == await schemas(engine)
