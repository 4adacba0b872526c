"""Swapping tables on real servers: writers lose nothing, readers see no error, and the old tables can come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.own import delivery_of
from migrations.schema import METADATA, OPTIONS
from runtime import bus, postgres
from services.projector import comparing, crew, shadow, swap
from services.projector import rebuild as operation
from services.projector.rebuild import rebuild
from services.projector.replaying import Replay
from services.projector.rollback import NothingKept, drop_old, rollback
from services.projector.shadow import InTheWay
from services.projector.understand import understand
from services.projector.work import Busy, Work
from services.projector.write import Writer
from tests.conftest import Broker
from tests.samples import SOURCES, body, delivery
from tests.servers import Database
from tests.services.projector.rebuilding import NOW, again, discarded, mixed, schemas, working
from tests.services.projector.running import DEADLINE_S, fold_one, project_all, store, store_batch, until
from tests.tables import SQL, count, snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(database: Database, engine: AsyncEngine) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.url("admin"))
    yield connection
    await connection.close()


@pytest.fixture
async def folded(broker: Broker, engine: AsyncEngine) -> None:
    await store_batch(broker, list(mixed())[:60])
    await project_all(broker, engine)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "SWAP_AGAIN_S", 0.02)
    monkeypatch.setattr(swap, "SWAP_LOCK_S_MAX", 0.05)


async def test_a_swap_waits_for_a_transaction_that_folds_and_loses_no_write(
    broker: Broker, database: Database, engine: AsyncEngine, folded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place = swap.put_in_place

    async def while_one_folds(work: Work, replay: Replay, made_by: Mapping[str, str]) -> str:
        late = delivery("issues", body("issues.opened.15"), 0, "in-hand")
        seq, _ = await bus.store_delivery(broker.js, late)
        writer = Writer(engine, SQL, SOURCES, lambda n: bus.read_delivery(broker.js, n))
        async with engine.begin() as folding:
            await postgres.share_fold_lock(folding)
            batch = [understand(SOURCES, await bus.read_delivery(broker.js, seq))]
            await writer.fold_alone(folding, batch, datetime.now(UTC))
            swapping = asyncio.create_task(put_in_place(work, replay, made_by))

            async def waits() -> bool:
                locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return bool((await folding.execute(text(locks))).scalar_one())

            await until(waits, "the swap waits for the fold lock")
            assert not swapping.done()
        return await swapping

    monkeypatch.setattr(operation, "put_in_place", while_one_folds)
    async with working(broker, database) as work:
        done = await rebuild(work, limit=0, dry_run=False)

    assert done.kept is not None
    assert 1 == await count(engine, "deliveries", "identity = 'in-hand' AND attempts = 1")


async def test_who_spares_the_servers_holds_nobody_up_for_that(
    broker: Broker, database: Database, engine: AsyncEngine, folded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the last look at the log is folded while the projectors wait, at whatever rate goes."""
    came = []

    def after_something_came(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        async def first_come(*given: Any) -> Any:
            if name not in came:
                came.append(name)
                await store_batch(broker, again(list(mixed())[:10], name))
                await project_all(broker, engine)
            return await original(*given)

        monkeypatch.setattr(module, name, first_come)

    after_something_came(comparing, "surely_folded")
    after_something_came(swap, "_carry_over")
    async with working(broker, database) as work, asyncio.timeout(DEADLINE_S):
        monkeypatch.setattr(Replay, "run", without_batches(monkeypatch, Replay.run))
        done = await rebuild(replace(work, rate_max=0.01), limit=0, dry_run=False)

    assert (["surely_folded", "_carry_over"], 80) == (came, done.deliveries)


def without_batches(monkeypatch: pytest.MonkeyPatch, run: Callable[[Replay], Awaitable[None]]) -> Any:
    """Nothing is spared while the log is replayed; from then on after each delivery."""

    async def runs(replay: Replay) -> None:
        await run(replay)
        monkeypatch.setattr(crew, "BLOCK_COUNT_MAX", 1)

    return runs


async def test_a_reader_in_a_transaction_delays_the_swap_and_gets_no_error(
    broker: Broker, database: Database, engine: AsyncEngine, folded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    swap = shadow.swap

    async def counted(*given: Any) -> None:
        nonlocal tried
        tried += 1
        await swap(*given)

    monkeypatch.setattr(shadow, "swap", counted)
    reader, other = [await asyncpg.connect(database.url("reader")) for _ in range(2)]
    every = "SELECT * FROM ops.work_items"
    async with working(broker, database) as work:
        async with reader.transaction():
            before = await reader.fetch(every)
            swapping = asyncio.create_task(rebuild(work, limit=0, dry_run=False))

            async def tried_twice() -> bool:
                assert len(before) == len(await other.fetch(every))
                return tried > 1

            await until(tried_twice, "the swap is tried again")
            assert before == await reader.fetch(every)
        done = await swapping
        async with reader.transaction():  # a statement that was prepared before goes to the new table
            assert before == await reader.fetch(every)
    await reader.close()
    await other.close()
    assert done.kept is not None


async def test_a_swap_need_not_wait_for_an_operators_word_that_reads_the_log(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    aside = delivery("issues", body("issues.opened.15"), 0, "aside")
    await store(broker, [aside, delivery("issues", body("issues.opened.15"), 0, "stays")])
    await store(broker, [delivery_of(discarded(aside, 1), "cli", NOW)])
    for seq in (1, 2):
        await fold_one(broker, engine, seq)
    locked = []

    async def read_log(seq: int) -> Delivery:
        async with engine.connect() as connection:
            locked.append((await connection.execute(text(LOCKED))).scalar_one())
        return await bus.read_delivery(broker.js, seq)

    writer = Writer(engine, SQL, SOURCES, read_log)
    await writer.fold([understand(SOURCES, await bus.read_delivery(broker.js, 3))])

    assert [0] == locked
    assert 1 == await count(engine, "deliveries", "status = 'discarded'")


LOCKED = (
    "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON l.relation = c.oid"
    " WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind = 'r'"
)


async def test_who_keeps_the_tables_for_too_long_is_named(
    broker: Broker, database: Database, folded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "SWAP_S_MAX", 0.1)
    reader = await asyncpg.connect(database.url("reader"))
    async with working(broker, database) as work, reader.transaction():
        await reader.fetch("SELECT * FROM ops.work_items")
        with pytest.raises(Busy, match=f"odooops_login_reader .* process {reader.get_server_pid()}"):
            await rebuild(work, limit=0, dry_run=False)
    await reader.close()


STRANGERS = {
    "view elsewhere.mine": "CREATE VIEW elsewhere.mine AS SELECT title FROM ops.work_items",
    "view ops.mine": "CREATE VIEW ops.mine AS SELECT title FROM ops.work_items",
    "index ops.by_title": "CREATE INDEX by_title ON ops.work_items (title)",
    "function elsewhere.mine": "CREATE FUNCTION elsewhere.mine(ops.work_items) RETURNS text"
    " LANGUAGE sql AS 'SELECT NULL'",
    "constraint mine": "ALTER TABLE ops.work_items ADD CONSTRAINT mine CHECK (title <> 'mine')",
}


async def test_what_depends_on_a_table_is_named_and_the_rows_are_mended_in_place(
    broker: Broker, database: Database, engine: AsyncEngine, admin: Any, folded: None
) -> None:
    await admin.execute("CREATE SCHEMA elsewhere")
    for statement in STRANGERS.values():
        await admin.execute(statement)
    before = await snapshot(engine)
    tries = await count(engine, "deliveries", "attempts = 1")
    await admin.execute("UPDATE ops.work_items SET title = 'by hand' WHERE title IS NOT NULL")
    await admin.execute("DELETE FROM ops.platform_events WHERE ref LIKE 'github:%'")
    await admin.execute("INSERT INTO ops.builds (ref) VALUES ('github:run/0/0')")

    async with working(broker, database) as work:
        with pytest.raises(InTheWay, match="--in-place") as refused:
            await rebuild(work, limit=0, dry_run=False)
        done = await rebuild(work, limit=0, dry_run=False, in_place=True)

    assert [] == [name for name in STRANGERS if name not in str(refused.value)]
    assert before == await snapshot(engine)
    assert (None, {}) == (done.kept, await schemas(engine))
    assert tries == await count(engine, "deliveries", "attempts = 1") > 0


async def rights(admin: Any) -> list[Any]:
    """Who may do what in ops, and who owns it."""
    return list(
        await admin.fetch(
            "SELECT c.relname, c.relowner::regrole::text, (SELECT array_agg(x::text ORDER BY x::text)"
            " FROM unnest(c.relacl) AS x) AS acl, (SELECT array_agg(a.attname || a.attacl::text ORDER BY a.attname)"
            " FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS columns"
            " FROM pg_class AS c WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY 1"
        )
    )


async def test_swaps_leave_rights_names_and_foreign_views_as_they_were(
    broker: Broker, database: Database, engine: AsyncEngine, admin: Any, folded: None
) -> None:
    await admin.execute("GRANT SELECT ON ops.builds TO PUBLIC")
    await admin.execute("GRANT SELECT (title) ON ops.work_items_now TO odooops_notifier")
    await admin.execute("CREATE VIEW public.mine AS SELECT title FROM ops.work_items_now")
    before, rows = await rights(admin), await admin.fetch("SELECT * FROM public.mine ORDER BY 1")

    async with working(broker, database) as work:
        for models in ((), ["work_items"], ()):
            await rebuild(work, models, limit=0, dry_run=False)
        await rollback(work)

    assert before == await rights(admin)
    assert rows == await admin.fetch("SELECT * FROM public.mine ORDER BY 1")
    made = postgres.make_engine(database.url("admin"), "test")

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts=OPTIONS)
        return list(compare_metadata(context, METADATA))  # type: ignore[arg-type]  # takes several, too

    async with made.connect() as connection:
        assert [] == await connection.run_sync(differences)
    await made.dispose()


@pytest.mark.parametrize("models", [(), ("work_items",)], ids=["all", "one"])
async def test_a_rollback_brings_back_old_rows_and_all_that_came_since(
    broker: Broker, database: Database, engine: AsyncEngine, admin: Any, folded: None, models: tuple[str, ...]
) -> None:
    old = await admin.fetchval("SELECT min(work_item_ref) FROM ops.work_items WHERE title IS NOT NULL")
    by_hand = f"work_item_ref = '{old}' AND title = 'by hand'"
    await admin.execute(f"UPDATE ops.work_items SET title = 'by hand' WHERE work_item_ref = '{old}'")
    async with working(broker, database) as work:
        first = await rebuild(work, models, limit=0, dry_run=False)
        assert 0 == await count(engine, "work_items", by_hand)
        await store(broker, again(list(mixed())[60:120], "since"))
        await project_all(broker, engine)
        items, ledger = await count(engine, "work_items"), await count(engine, "deliveries")

        back = await rollback(work)

        assert 1 == await count(engine, "work_items", by_hand)
        assert (items, ledger) == (await count(engine, "work_items"), await count(engine, "deliveries"))
        verified = await rebuild(work, limit=1, dry_run=True)
        assert ["work_items"] == [each.model for each in verified.compared if not each.equal]
        assert [back.kept] == list(await schemas(engine))
        assert back.kept != first.kept
        assert [back.kept] == await drop_old(work.engine)
        assert {} == await schemas(engine)
        with pytest.raises(NothingKept):
            await rollback(work)


async def test_old_tables_with_other_columns_are_not_put_back(
    broker: Broker, database: Database, admin: Any, folded: None
) -> None:
    async with working(broker, database) as work:
        done = await rebuild(work, ["builds"], limit=0, dry_run=False)
        await admin.execute(f"ALTER TABLE {done.kept}.builds DROP COLUMN branch")
        with pytest.raises(InTheWay, match=f"the tables builds have other columns in {done.kept}"):
            await rollback(work)


async def test_old_tables_on_which_something_depends_are_not_dropped(
    broker: Broker, database: Database, engine: AsyncEngine, admin: Any, folded: None
) -> None:
    async with working(broker, database) as work:
        done = await rebuild(work, ["builds"], limit=0, dry_run=False)
        await admin.execute(f"CREATE VIEW public.mine AS SELECT branch FROM {done.kept}.builds")
        with pytest.raises(InTheWay, match="view mine"):
            await drop_old(work.engine)
    assert [done.kept] == list(await schemas(engine))
