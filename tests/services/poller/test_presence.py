"""What vanishes at DigitalOcean, found by polls of its whole listings, on real servers."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime import streams
from services.poller.run import Report
from services.projector.rebuild import rebuild
from tests.api import BROKEN, Call, Reply, by_number, too_many
from tests.conftest import Broker
from tests.servers import Database
from tests.services.poller.cloud import DROPLETS, SCOPE, Cloud, digitalocean
from tests.services.poller.polled import poll
from tests.services.poller.running import Shop
from tests.services.projector.rebuilding import working
from tests.services.projector.running import project_all
from tests.tables import snapshot

pytestmark = pytest.mark.anyio


async def gone(engine: AsyncEngine) -> dict[int, bool | None]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT ref, gone FROM ops.do_droplets_now"))
        return {int(row.ref.rpartition("/")[2]): row.gone for row in rows}


async def told(broker: Broker) -> list[str]:
    """The refs that were told to be gone."""
    last = (await broker.js.stream_info(streams.EVENTS)).state.last_seq
    found = [await broker.js.get_msg(streams.EVENTS, seq) for seq in range(1, last + 1)]
    headers: list[dict[str, Any]] = [each.headers or {} for each in found]
    return [each["ce-subject"] for each in headers if each["ce-type"] == "resource.gone"]


async def test_only_a_listing_read_to_its_end_makes_a_droplet_vanish(
    store: Shop, broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    source, cloud = digitalocean(store.api), Cloud(store.api, 1, 2, 3)

    async def polled() -> Report:
        [report] = await poll(store, source, SCOPE)
        await project_all(broker, engine)
        return report

    assert "success" == (await polled()).status
    assert {1: False, 2: False, 3: False} == await gone(engine)

    # Aborted: the first page comes, the second does not.
    cloud.ids.remove(3)
    cloud.ids += [4]
    first = by_number([{"id": 1, "name": "web-1"}, {"id": 2, "name": "web-2"}], "droplets", 1)(FIRST)
    store.api.next(DROPLETS, first, BROKEN)
    assert "failed" == (await polled()).status
    assert {1: False, 2: False, 3: False} == await gone(engine)

    # Changed while it was read: its pages disagree on how many there are, twice.
    fewer = Reply({"droplets": [], "links": {}, "meta": {"total": 1}})
    store.api.next(DROPLETS, first, fewer, first, fewer)
    report = await polled()
    assert ("partial", ["listing_changed"]) == (report.status, [each.reason for each in report.troubles])
    assert {1: False, 2: False, 3: False} == await gone(engine)

    # Whole.
    report = await polled()
    assert ("success", 1) == (report.status, report.gone)
    assert {1: False, 2: False, 3: True, 4: False} == await gone(engine)
    assert ["digitalocean:droplet/3"] == await told(broker)

    # Still gone, which is no news; then back.
    await polled()
    cloud.ids += [3]
    await polled()
    assert {1: False, 2: False, 3: False, 4: False} == await gone(engine)
    assert ["digitalocean:droplet/3"] == await told(broker)

    before = await snapshot(engine)
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
    assert before == await snapshot(engine)


FIRST = Call("GET", DROPLETS, {"page": "1", "per_page": "1"}, {}, b"", "http://127.0.0.1:1")


async def test_a_run_that_is_told_to_wait_asks_five_times_at_most_and_completes_nothing(
    store: Shop, broker: Broker, engine: AsyncEngine
) -> None:
    source = digitalocean(store.api)
    Cloud(store.api, 1)
    await poll(store, source, SCOPE)
    asked = store.api.count(DROPLETS)
    store.api.next(DROPLETS, *[too_many(0)] * 9)

    [report] = await poll(store, source, SCOPE)

    assert ("failed", asked + 5) == (report.status, store.api.count(DROPLETS))
    await project_all(broker, engine)
    assert {1: False} == await gone(engine)
