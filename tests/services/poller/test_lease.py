"""One run per source and scope at a time, whoever crashes. The broker is real; each poller has leases of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.polls import PollFinished
from providers.polling import Ask, Look, Scope, Steps
from runtime import streams
from runtime.bus import BrokerAway, LogFull
from services.poller import turn
from services.poller.lease import Held, Seen
from services.poller.memory import key_of
from services.poller.run import finished
from services.poller.turn import Work
from tests import api as apis
from tests.api import by_link
from tests.services.poller.running import Shop, eventually, statuses
from tests.services.poller.shop import scope

pytestmark = pytest.mark.anyio

ALL = scope()
KEY = key_of("lease", "shop", ALL.name)


async def look(work: Work) -> Seen:
    return await work.leases.look("shop", ALL.name)


async def take(work: Work, seen: Seen | None = None, run_id: str = "run-1") -> Held | None:
    now = datetime.now(UTC)
    return await work.leases.take(
        seen or await look(work), "shop", ALL.name, run_id=run_id, triggered_by="cron", started_at=now
    )


async def test_of_two_that_find_a_lease_free_one_takes_it(store: Shop) -> None:
    one, other = store.work("one"), store.work("other")
    seen = await asyncio.gather(look(one), look(other))
    taken = await asyncio.gather(take(one, seen[0], "run-1"), take(other, seen[1], "run-2"))
    assert sorted(held is not None for held in taken) == [False, True]
    assert (await look(one)).running and (await look(other)).running


async def test_a_lease_is_free_again_once_its_run_has_ended(store: Shop) -> None:
    one, other = store.work("one"), store.work("other")
    held = await take(one)
    assert held is not None
    assert await held.release(held.record.end(datetime.now(UTC), "success"))
    seen = await look(other)
    assert not seen.running and seen.record is not None and seen.record.ended == "success"
    assert await take(other, seen, "run-2") is not None
    assert not await held.release(held.record)


async def test_a_lease_without_a_sign_of_life_is_abandoned_and_one_with_is_not(store: Shop) -> None:
    holder, other = store.work("holder", lease_s=0.4, renew_s=0.02), store.work("other", lease_s=0.4)
    held = await take(holder)
    assert held is not None
    keeping = asyncio.create_task(held.keep())
    first = await look(other)

    async def renewed_for_long() -> bool:
        seen = await look(other)
        assert not seen.abandoned
        return seen.revision > first.revision + 25

    await eventually(renewed_for_long)
    keeping.cancel()
    await asyncio.wait({keeping})

    async def abandoned() -> bool:
        return (await look(other)).abandoned

    assert not await abandoned()
    await eventually(abandoned)
    # Nobody says so who has not watched it for as long.
    assert not (await look(store.work("third", lease_s=0.4))).abandoned


async def test_a_holder_knows_when_its_lease_was_taken(store: Shop) -> None:
    holder, other = store.work("holder", renew_s=0.02), store.work("other", lease_s=0.0)
    held = await take(holder)
    assert held is not None
    await look(other)
    buried = await other.leases.bury(await look(other), datetime.now(UTC))
    assert buried is not None and buried.record is not None
    assert (buried.record.ended, buried.record.failures) == ("failed", 1)
    async with asyncio.timeout(10):
        await held.keep()
    assert not await held.release(held.record)


async def test_a_holder_that_cannot_renew_gives_up_in_time(store: Shop, monkeypatch: Any) -> None:
    held = await take(store.work("holder", lease_s=0.3, renew_s=0.02))
    assert held is not None

    async def away(self: object, key: str, value: bytes, revision: int) -> int:
        raise BrokerAway("the broker did not acknowledge in time")

    monkeypatch.setattr("runtime.bucket.Bucket.update", away)
    async with asyncio.timeout(10):
        await held.keep()


async def test_a_renewal_that_was_taken_and_not_acknowledged_is_no_loss(store: Shop) -> None:
    work = store.work("holder")
    held = await take(work)
    assert held is not None
    # As if the acknowledgement of this write had been lost.
    await work.bucket.put(KEY, held.record.model_dump_json().encode())
    assert await held.write(held.record)
    assert await held.release(held.record.end(datetime.now(UTC), "success"))


async def test_a_record_that_nobody_can_read_counts_as_none(store: Shop) -> None:
    work = store.work()
    await work.bucket.put(KEY, b'{"of": "another version"}')
    seen = await look(work)
    assert (seen.record, seen.running) == (None, False)
    assert await take(work, seen) is not None


async def test_a_run_whose_lease_is_lost_is_cut_off(store: Shop) -> None:
    store.api.routes["/things"] = apis.HANGS
    running = asyncio.create_task(store.poll(ALL, store.work("one", renew_s=0.02)))
    await asyncio.to_thread(store.api.wait, "/things")
    other = store.work("other", lease_s=0.0)
    # Its holder may write between our look and our word.
    while await other.leases.bury(await look(other), datetime.now(UTC)) is None:
        pass
    report = await running
    assert [each.reason for each in report.troubles] == ["lease_lost"]
    assert statuses(await store.ends()) == ["failed"]


async def test_a_run_that_is_stopped_is_closed_and_its_lease_released(store: Shop) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    store.api.routes["/slow"] = apis.HANGS
    both = scope("all", things=ALL.parts["things"], slow=asking_slowly)
    running = asyncio.create_task(store.poll(both))
    await asyncio.to_thread(store.api.wait, "/slow")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (end,) = await store.ends()
    assert (end.status, end.error) == ("partial", "slow: the poller was stopped (stopped)")
    assert (end.counts["new"], end.counts["calls"]) == (1, 2)
    assert (await store.lease(ALL))["ended"] == "interrupted"


def asking_slowly(look: Look) -> Steps:
    yield Ask(path="/slow")


async def test_a_run_whose_poller_is_gone_is_closed_by_the_next(store: Shop) -> None:
    gone, next_one = store.work("gone"), store.work("next", lease_s=0.0)
    ordered, run = store.ordered(ALL, gone)
    assert await turn.begin(gone, ordered, await look(gone)) is not None
    await look(next_one)
    seen = await look(next_one)
    assert seen.abandoned
    buried = await turn.bury(next_one, store.source(ALL), seen)
    assert buried is not None and not buried.running
    (end,) = await store.said(PollFinished)
    assert (end.run_id, end.status, end.scope) == (ordered.run_id, "failed", "all")
    assert end.started_at == ordered.started_at
    assert end.error == "cut off: its poller (gone) gave no sign of life any more"
    # Should it have lived after all, its own word counts more.
    assert finished(ordered, run.report, datetime.now(UTC)).moment > end.moment


async def test_a_run_that_cannot_be_closed_is_said_to_have_ended_once(store: Shop) -> None:
    ordered, _ = store.ordered(ALL, store.work("gone"))
    assert await turn.begin(store.work("gone"), ordered, Seen(record=None, revision=0)) is not None
    bucket = await store.broker.js.stream_info(streams.POLLER_STREAM)
    await store.broker.js.update_stream(bucket.config.evolve(max_bytes=1))
    next_one = store.work("next", lease_s=0.0)

    for _ in range(3):
        with pytest.raises(LogFull):
            await turn.bury(next_one, store.source(ALL), await look(next_one))

    assert [ordered.run_id] == [end.run_id for end in await store.ends()]


def test_scopes_are_told_apart() -> None:
    assert len({key_of("lease", "shop", name) for name in ("a/b", "a b", "a", "ä", "*", ">")}) == 6
    assert Scope(name="x", parts={}).every_s is None
