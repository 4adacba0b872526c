"""Webhooks, polls, drift and vanishing things all at once; then the log has to say what the tables say."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.projector.rebuild import rebuild
from tests.conftest import Broker
from tests.servers import Database
from tests.services.poller.cloud import SCOPE, Cloud, digitalocean
from tests.services.poller.polled import poll
from tests.services.poller.repository import Repository, github
from tests.services.poller.running import Shop
from tests.services.projector.rebuilding import working
from tests.services.projector.running import drained, projecting, store_batch, until
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio

ROUNDS = 4
ACTS = 40
LOST_SHARE = 0.3


async def test_the_log_says_what_the_tables_say_after_all_at_once(
    store: Shop, broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, repository, cloud = Random(1), Repository(), Cloud(store.api, 1, 2, 3)
    repository.serve(store.api)
    repository.keep_time(monkeypatch)
    sources = github(store.api), digitalocean(store.api)
    async with projecting(broker, engine, 2):
        for _ in range(ROUNDS):
            before = len(repository.sent)
            repository.live(ACTS, LOST_SHARE)
            cloud.ids = random.sample(range(1, 8), 4)
            told = [each.delivery() for each in repository.sent[before:] if each.delivered]
            _, *polls = await asyncio.gather(
                store_batch(broker, told), poll(store, sources[0]), poll(store, sources[1], SCOPE)
            )
            assert {"success"} == {report.status for reports in polls for report in reports}
            await store_batch(broker, repository.redelivered(repository.asked_again))
        async with working(broker, database) as work:
            await rebuild(work, limit=0, dry_run=False)
        await until(lambda: drained(broker), "the log is drained")

    assert await count(engine, "drift", "kind <> 'gone'")
    assert await count(engine, "do_droplets_now", "gone")
    assert 0 == await count(engine, "deliveries", "status NOT IN ('projected', 'ignored')")
    before_it = await snapshot(engine)
    async with working(broker, database) as work:
        found = await rebuild(work, limit=5, dry_run=True)
    assert [] == [each for each in found.compared if not each.equal]
    assert before_it == await snapshot(engine)
