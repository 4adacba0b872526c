"""What comes while the broker is away is kept, answered with 200, and stored once when it is back."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from contracts.delivery import Delivery
from runtime import bus, streams
from runtime.bus import Ack
from services.ingest import segments
from services.ingest.segments import Segment
from services.ingest.spool import Spool
from tests.conftest import Broker
from tests.services.ingest.door import BODY, Door, eventually, logger, open_door
from tests.services.ingest.own_broker import OwnBroker
from tests.services.ingest.test_broker import hurry
from tests.services.ingest.test_segments import delivery

pytestmark = pytest.mark.anyio

MANY = 50
SOON_S = 20.0
LARGE = b'{"pad": "%s"}' % (b"x" * streams.INLINE_BODY_BYTES_MAX)


async def is_empty(folder: Path) -> None:
    """Wait until nothing is spooled."""

    async def nothing_left() -> bool:
        return segments.held_bytes(folder) == 0

    await eventually(nothing_left)


async def spooled(door: Door, delivery: str, body: bytes = BODY) -> None:
    answer = await door.post(body, delivery=delivery)
    assert (answer.status_code, answer.json()) == (
        200,
        {"ok": True, "delivery": f"github:{delivery}", "spooled": True},
    )


async def test_a_restart_of_the_broker_costs_no_delivery(
    stoppable: OwnBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js, spool_dir=tmp_path) as door:
        assert (await door.post(delivery="before")).json()["seq"] == 1
        stoppable.kill()
        await spooled(door, "first")
        began = time.monotonic()
        await asyncio.gather(*(spooled(door, f"d-{n}") for n in range(MANY)))
        await spooled(door, "large", LARGE)
        assert time.monotonic() - began < streams.ACCEPT_S_MAX * 2  # nobody waits again for who is away
        await stoppable.start()
        await is_empty(tmp_path)
        answer = await door.post(delivery="after")
        assert answer.json()["duplicate"] is False
        found = {each.identity: each for each in await door.stored()}
        assert set(found) == {"before", "first", "large", "after", *(f"d-{n}" for n in range(MANY))}
        assert len(await door.stored()) == len(found)
        assert found["large"].body == LARGE
        assert found["first"].received_at < found["after"].received_at
        assert found["first"].verified_by == found["before"].verified_by


async def test_what_the_broker_had_stored_after_all_is_not_stored_again(
    stoppable: OwnBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js, spool_dir=tmp_path) as door:
        stoppable.pause()  # what is sent now lies in its socket, and is stored when it wakes
        await spooled(door, "one")
        stoppable.resume()
        await is_empty(tmp_path)
        assert [each.identity for each in await door.stored()] == ["one"]


async def test_what_comes_after_an_outage_does_not_wait_for_what_was_spooled(
    broker: Broker, tmp_path: Path
) -> None:
    made = Spool(tmp_path, logger()[0])
    for n in range(MANY):
        await made.put(delivery(n))
    assert made.waits
    first, held = asyncio.Event(), asyncio.Event()

    async def store(each: Delivery, wait_s: float) -> Ack:
        ack = await bus.store_delivery(broker.js, each, wait_s)
        first.set()
        if each.identity == "id-1":
            await held.wait()
        return ack

    draining = asyncio.create_task(made.keep_draining(store))
    async with asyncio.timeout(SOON_S):
        await first.wait()
    assert not made.waits
    assert segments.held_bytes(tmp_path) > 0
    held.set()
    await is_empty(tmp_path)
    draining.cancel()
    await asyncio.wait({draining})


async def test_an_ingest_adopts_what_a_dead_one_left_and_nothing_of_one_that_lives(
    broker: Broker, tmp_path: Path
) -> None:
    dead, living = Segment.new(tmp_path), Segment.new(tmp_path)
    dead.append([segments.record(delivery(1))])
    living.append([segments.record(delivery(2))])
    dead.close()
    await drained(broker, tmp_path, down_to=living.size)
    assert await identities(broker) == ["id-1"]
    living.close()
    await drained(broker, tmp_path, down_to=0)
    assert await identities(broker) == ["id-1", "id-2"]


async def test_a_process_killed_while_it_drains_loses_and_doubles_nothing(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SPOOL_DRAIN_COUNT", 10)
    left = Segment.new(tmp_path)
    left.append([segments.record(delivery(n)) for n in range(MANY)])
    left.close()
    some = asyncio.Event()

    async def store(each: Delivery, wait_s: float) -> Ack:
        ack = await bus.store_delivery(broker.js, each, wait_s)
        if each.identity == "id-25":
            some.set()
            await asyncio.sleep(SOON_S)
        return ack

    spool = Spool(tmp_path, logger()[0])
    draining = asyncio.create_task(spool.keep_draining(store))
    async with asyncio.timeout(SOON_S):
        await some.wait()
    draining.cancel()
    await asyncio.wait({draining})
    assert 0 < len(await identities(broker)) < MANY
    await drained(broker, tmp_path, down_to=0)
    assert sorted(await identities(broker)) == sorted(f"id-{n}" for n in range(MANY))


async def test_a_torn_record_is_named_and_kept_and_the_others_are_stored(
    broker: Broker, tmp_path: Path
) -> None:
    torn = Segment.new(tmp_path)
    torn.append([segments.record(delivery(1)), segments.record(delivery(2))])
    os.truncate(torn.path, torn.size - 3)
    torn.close()
    log, written = logger()
    draining = asyncio.create_task(Spool(tmp_path, log).keep_draining(store_in(broker)))

    async def set_aside() -> bool:
        return any(path.suffix == segments.DAMAGED for path in tmp_path.iterdir())

    await eventually(set_aside)
    draining.cancel()
    await asyncio.wait({draining})
    assert await identities(broker) == ["id-1"]
    assert '"event": "a part of the spool cannot be read"' in written.getvalue()
    assert torn.path.name in written.getvalue()


async def test_a_full_spool_sends_senders_away_and_takes_more_when_there_is_room(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_door(broker.url, broker.js, spool_dir=tmp_path) as door:
        store, door.receiver.store = door.receiver.store, None
        monkeypatch.setattr(streams, "SPOOL_BYTES_MAX", 10)
        await door.refused(503, "spool_full", await door.post(delivery="one"))
        monkeypatch.undo()
        await spooled(door, "two")
        door.receiver.store = store
        await is_empty(tmp_path)
        assert await identities(broker) == ["two"]


async def test_without_a_spool_a_sender_is_told_to_come_again(broker: Broker) -> None:
    async with open_door(broker.url, broker.js) as door:
        door.receiver.store = None
        await door.refused(503, "broker_away", await door.post())


def store_in(broker: Broker) -> bus.Store:
    async def store(each: Delivery, wait_s: float) -> Ack:
        return await bus.store_delivery(broker.js, each, wait_s)

    return store


async def drained(broker: Broker, folder: Path, down_to: int) -> None:
    """A process that drains the folder until only that many bytes are left."""
    draining = asyncio.create_task(Spool(folder, logger()[0]).keep_draining(store_in(broker)))

    async def left() -> bool:
        return segments.held_bytes(folder) == down_to

    await eventually(left)
    draining.cancel()
    await asyncio.wait({draining})


async def identities(broker: Broker) -> list[str]:
    """What is in the log, in order."""
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    return [(await bus.read_delivery(broker.js, seq)).identity for seq in range(1, last + 1)]
