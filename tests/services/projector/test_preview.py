"""What a change of code would do to the live tables is named, and nothing is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.port import Ignored
from read_models.table import SCHEMA
from runtime import bus
from services.projector import preview as previews
from services.projector.preview import look, preview
from services.projector.understand import understand
from services.projector.work import Work
from services.projector.write import Gathered, RefoldTooWide, Writer
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.rebuilding import (
    ISSUE,
    entries,
    fold_as,
    issue,
    misread,
    misread_title,
    mixed,
    working,
)
from tests.services.projector.running import project_all, store_batch
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture
async def work(broker: Broker, database: Database) -> AsyncIterator[Work]:
    async with working(broker, database) as made:
        yield made


async def test_the_same_code_changes_nothing(broker: Broker, engine: AsyncEngine, work: Work) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    found = await look(work, await entries(work), limit=5)
    assert [] == [each for each in found.compared if not each.equal]
    assert (0, (), ()) == (sum(each.missing for each in found.compared), found.wide, found.new)
    assert await count(engine, "deliveries", "status IN ('projected', 'ignored', 'parked')") == found.read
    assert await count(engine, "work_items") == sum(
        each.rows for each in found.compared if each.model == "work_items"
    )


async def test_rows_and_verdicts_that_would_change_are_named_and_nothing_changes(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, [issue(1), issue(2), issue(3)])
    await fold_as(work, misread(misread_title))
    before = await snapshot(engine)

    def ignores_two(given: Delivery, right: Any) -> list[Event]:
        if given.seq == 2:
            raise Ignored("no_such_event")
        return list(right())

    new = replace(work, sources=misread(ignores_two))
    found = {each.model: each for each in await preview(new, (await entries(work))[:2], limit=5)}

    items, ledger = found["work_items"], found["deliveries"]
    assert (1, 0, 1, 1) == (items.rows, items.missing, items.extra, items.changed)
    changed, extra = items.differences
    assert ({"title": "misread"}, {"title": "right"}) == (changed.live, changed.log)
    assert (f"{ISSUE}2", None) == (extra.key["work_item_ref"], extra.log)
    (verdict,) = ledger.differences
    assert verdict.live is not None
    assert verdict.log is not None
    assert ("projected", "ignored") == (verdict.live["status"], verdict.log["status"])
    assert before == await snapshot(engine)
    await preview(new, (await entries(work))[:2], limit=5)


async def test_a_delivery_that_is_left_out_takes_its_rows_along(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, [issue(1), issue(2)])
    await fold_as(work, work.sources)
    found = await preview(work, (), refs=[f"{ISSUE}1", f"{ISSUE}2"], without={2}, limit=5)
    (items,) = [each for each in found if each.model == "work_items"]
    assert [f"{ISSUE}2"] == [row.key["work_item_ref"] for row in items.differences]
    assert (1, 1) == (items.rows, items.extra)


async def test_what_is_folded_meanwhile_shows_on_neither_side(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_batch(broker, [issue(1), issue(1, "later")])
    js, writer = work.nc.jetstream(), work.writer(SCHEMA)
    await writer.fold([understand(work.sources, await bus.read_delivery(js, 1))])
    gather = Writer.gather

    async def gather_late(self: Writer, *given: Any, **options: Any) -> Gathered:
        await writer.fold([understand(work.sources, await bus.read_delivery(js, 2))])
        return await gather(self, *given, **options)

    monkeypatch.setattr(Writer, "gather", gather_late)
    found = await look(work, await entries(work), limit=5)
    assert [] == [each for each in found.compared if not each.equal]
    assert (1, 2) == (found.read, await count(engine, "deliveries"))


async def test_refs_that_too_many_deliveries_are_about_are_left_out_and_named(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "REF_DELIVERIES_MAX", 1)
    await store_batch(broker, [issue(1), issue(1, "again"), issue(2)])
    await fold_as(work, misread(misread_title))
    chosen = await entries(work)

    found = await look(work, chosen, limit=5)

    assert (f"{ISSUE}1",) == found.wide
    (items,) = [each for each in found.compared if each.model == "work_items"]
    assert [f"{ISSUE}2"] == [row.key["work_item_ref"] for row in items.differences]
    with pytest.raises(RefoldTooWide, match=f"{ISSUE}1"):
        await preview(work, chosen, limit=5)


async def test_what_a_migration_has_yet_to_bring_is_named(
    broker: Broker, database: Database, work: Work
) -> None:
    await store_batch(broker, [issue(1)])
    await fold_as(work, work.sources)
    admin = await asyncpg.connect(database.url("admin"))
    await admin.execute(
        "ALTER TABLE ops.work_items DROP COLUMN title CASCADE; DROP TABLE ops.starters CASCADE"
    )
    await admin.close()
    found = await look(work, await entries(work), limit=5)
    assert ("ops.work_items.title", "ops.starters") == found.new
    assert all(each.equal for each in found.compared)
