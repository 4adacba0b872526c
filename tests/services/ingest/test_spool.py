"""What comes while the broker is away is kept, answered with 200, and stored once when it is back."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery
from runtime import bus, streams
from runtime.bus import Ack
from runtime.settings import BadSettings
from services.ingest import segments
from services.ingest.segments import Segment, pack
from services.ingest.spool import Spool, SpoolFull
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
    dead.append([pack(delivery(1))])
    living.append([pack(delivery(2))])
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
    left.append([pack(delivery(n)) for n in range(MANY)])
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
    torn.append([pack(delivery(1)), pack(delivery(2))])
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


async def test_what_a_full_log_does_not_take_waits_until_it_has_room(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SPOOL_LOOK_S", 0.05)
    async with open_door(broker.url, broker.js, spool_dir=tmp_path) as door:
        info = await broker.js.stream_info(streams.DELIVERIES)
        await broker.js.update_stream(info.config, max_bytes=10)
        await spooled(door, "one")
        assert await door.count() == 0
        assert len(door.said("the log is full")) == 1
        await broker.js.update_stream(info.config, max_bytes=-1)
        await is_empty(tmp_path)
        assert await identities(broker) == ["one"]


async def test_without_a_spool_a_sender_is_told_to_come_again(broker: Broker) -> None:
    async with open_door(broker.url, broker.js) as door:
        door.receiver.store = None
        await door.refused(503, "broker_away", await door.post())


@dataclass
class Log:
    """A log of one's own making, for what a real one refuses seldom: `refused` says what becomes of an identity."""

    refused: dict[str, Exception] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    async def store(self, each: Delivery, wait_s: float) -> Ack:
        await asyncio.sleep(0)
        self.asked.add(each.identity)
        if (error := self.refused.get(each.identity)) is not None:
            raise error
        self.known.append(each.identity)
        return len(self.known), False

    @asynccontextmanager
    async def draining(self, spool: Spool) -> AsyncIterator[None]:
        """Drain `spool` while the block runs."""
        task = asyncio.create_task(spool.keep_draining(self.store))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
        assert task.cancelled()

    async def was_asked(self, n: int) -> bool:
        return f"id-{n}" in self.asked

    async def knows(self, *ids: int) -> None:
        """Wait for exactly these."""
        wanted = sorted(f"id-{n}" for n in ids)

        async def found() -> bool:
            return sorted(self.known) == wanted

        await eventually(found)


@pytest.mark.parametrize(
    "refusal",
    [bus.BrokerAway("no answer"), bus.LogFull("too large"), TypeError("a mistake of ours")],
    ids=["unanswered", "refused", "mistaken"],
)
@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_delivery_that_is_never_taken_holds_up_no_other_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception, body: bytes
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(streams, "SPOOL_LOOK_S", 0.05)
    log, spool = Log({"id-0": refusal}), Spool(tmp_path, logger()[0])
    await spool.put(delivery(0, body))
    async with log.draining(spool):
        for n in (1, 2):  # the second one comes when nothing but the first is left
            await spool.put(delivery(n, body))
            await log.knows(*range(1, n + 1))
            assert not spool.waits
        assert segments.held_bytes(tmp_path) > len(body)
        log.refused.clear()
        await log.knows(0, 1, 2)
        await is_empty(tmp_path)


async def test_an_outage_opens_few_files_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RECONNECT_WAIT_S", 0.01)
    away = bus.BrokerAway("no answer")
    log, spool = Log({f"id-{n}": away for n in range(MANY)}), Spool(tmp_path, logger()[0])
    async with log.draining(spool):
        for n in range(streams.SPOOL_FILES_AWAY):
            await spool.put(delivery(n))
            await eventually(partial(log.was_asked, n))
        for n in range(streams.SPOOL_FILES_AWAY, MANY):
            await spool.put(delivery(n))
        assert len(os.listdir(tmp_path)) == streams.SPOOL_FILES_AWAY + 1
        log.refused.clear()
        await log.knows(*range(MANY))
        await is_empty(tmp_path)


async def test_a_spool_full_of_what_is_never_taken_holds_nothing_up_at_the_door(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SPOOL_DRAIN_COUNT", 1)
    refusing = Log({"id-0": bus.LogFull("too large")})
    async with open_door(broker.url, broker.js) as door:
        spool = door.receiver.spool = Spool(tmp_path, logger()[0])
        await spool.put(delivery(0))
        async with refusing.draining(spool):
            await spooled(door, "one")
            monkeypatch.setattr(streams, "SPOOL_ASK_S", 0.0)
            spool.waits = False
            await spool.put(delivery(1))
            assert spool.waits
            for n in range(3):
                assert "seq" in (await door.post(delivery=f"d-{n}")).json()
            assert not spool.waits


async def test_a_file_that_cannot_be_taken_is_named_and_holds_up_no_other(tmp_path: Path) -> None:
    written_log, written = logger()
    log, spool = Log(), Spool(tmp_path, written_log)
    (tmp_path / f"0{segments.SUFFIX}").write_bytes(b"not ours")
    folder = tmp_path / f"00000000-0000-0000-0000-000000000000{segments.SUFFIX}"
    folder.mkdir()
    left = Segment.new(tmp_path)
    left.append([pack(delivery(1))])
    left.close()
    async with log.draining(spool):
        await log.knows(1)
    for name in (f"0{segments.SUFFIX}", folder.name):
        assert f'"file": "{name}"' in written.getvalue()


class Disk:
    """What becomes of the calls to the disk, by their names: each raises EIO while it is in `broken`."""

    def __init__(self, patch: pytest.MonkeyPatch, *names: str) -> None:
        self.broken: set[str] = set()
        for name in names:
            patch.setattr(os, name, partial(self._call, name, getattr(os, name)))

    def _call(self, name: str, really: Callable[..., object], *args: object) -> object:
        if name in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return really(*args)


@pytest.mark.parametrize("broken", [{"fsync"}, {"fsync", "ftruncate"}, {"write"}, {"write", "open"}])
async def test_after_a_failed_sync_all_that_was_acknowledged_is_stored_and_more_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: set[str]
) -> None:
    log, spool = Log(), Spool(tmp_path, logger()[0])
    disk = Disk(monkeypatch, "fsync", "ftruncate", "write", "open")
    await spool.put(delivery(0))
    disk.broken = broken
    for _ in range(3):
        with pytest.raises(SpoolFull, match="Input/output error"):
            await spool.put(delivery(1))
    assert len(os.listdir(tmp_path)) == 1
    disk.broken = set()
    await spool.put(delivery(2))
    async with log.draining(spool):
        await is_empty(tmp_path)
    # What was not acknowledged may be stored, too.
    assert {"id-0", "id-2"} <= set(log.known)


async def test_a_drained_segment_that_cannot_be_removed_is_not_stored_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SPOOL_LOOK_S", 0.01)
    log, spool = Log(), Spool(tmp_path, logger()[0])
    disk = Disk(monkeypatch, "unlink")
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: os.unlink(path))
    await spool.put(delivery(0))
    disk.broken = {"unlink"}
    async with log.draining(spool):
        await log.knows(0)
        await spool.put(delivery(1))
        await log.knows(0, 1)
        disk.broken = set()
        await is_empty(tmp_path)
        await log.knows(0, 1)


async def test_who_deletes_the_folder_costs_nothing_as_long_as_the_process_lives(tmp_path: Path) -> None:
    log, spool = Log(), Spool(tmp_path / "spool", logger()[0])
    await spool.put(delivery(0))
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(SpoolFull, match="somebody has deleted"):
        await spool.put(delivery(1))
    await spool.put(delivery(2))
    assert segments.held_bytes(tmp_path / "spool") == pack(delivery(2)).count
    async with log.draining(spool):
        await log.knows(0, 2)


async def test_a_disk_that_makes_no_file_is_named_by_the_same_words_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the log has a line for each delivery, and each is remembered, so that it is not said again."""
    spool = Spool(tmp_path, logger()[0])

    def refuse(path: str, *_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    for n in range(2):
        with pytest.raises(SpoolFull, match=r"^Read-only file system$"):
            await spool.put(delivery(n))


async def test_a_file_has_an_end_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SPOOL_SEGMENT_BYTES", 3 * pack(delivery(0)).count)
    log, spool = Log(), Spool(tmp_path, logger()[0])
    for n in range(8):
        await spool.put(delivery(n))
    assert len(os.listdir(tmp_path)) == 3
    async with log.draining(spool):
        await log.knows(*range(8))
        await is_empty(tmp_path)


async def test_a_spool_is_full_exactly_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SPOOL_BYTES_MAX", 3 * pack(delivery(0)).count)
    spool = Spool(tmp_path, logger()[0])
    ends = await asyncio.gather(*(spool.put(delivery(n)) for n in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [type(None)] * 3 + [SpoolFull] * 2
    assert segments.held_bytes(tmp_path) == streams.SPOOL_BYTES_MAX


class Died(OSError):
    """This process is no more: whatever it still asks of the disk, it does not get."""


class Mortal:
    """The disk of a process that dies instead of its `last`-th call that changes something."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, last: int) -> None:
        self.calls = 0
        self.died = asyncio.Event()
        self._folder = folder
        self._last = last
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(2)
        self._loop.set_default_executor(self._threads)
        self._open: dict[int, Path] = {}
        self._names: set[Path] = set()
        """Those that a loss of power leaves."""
        self._sizes: dict[Path, int] = {}
        """What it leaves of each."""
        for name in ("open", "write", "fsync", "ftruncate", "rename", "unlink", "close"):
            patch.setattr(os, name, partial(self._call, name, getattr(os, name)))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: os.unlink(path))

    def _call(self, name: str, really: Callable[..., Any], *args: Any) -> Any:
        if Path(sys._getframe(1).f_code.co_filename).name not in ("segments.py", Path(__file__).name):
            return really(*args)
        self.calls += 1
        if self.calls >= self._last:
            self._loop.call_soon_threadsafe(self.died.set)
            raise Died
        done = really(*args)
        if name == "open":
            self._open[done] = Path(args[0])
        elif name == "close":
            del self._open[args[0]]
        elif name == "fsync" and self._open[args[0]] == self._folder:
            self._names = set(self._folder.iterdir())
        elif name == "fsync":
            self._sizes[self._open[args[0]]] = os.fstat(args[0]).st_size
        return done

    def bury(self, patch: pytest.MonkeyPatch, *, power_lost: bool) -> None:
        """What the system does with what a process leaves."""
        self._threads.shutdown()  # which die with it
        self._loop.set_default_executor(ThreadPoolExecutor(2))
        patch.undo()
        for descriptor in self._open:
            os.close(descriptor)
        for path in self._folder.iterdir() if power_lost else ():
            if path in self._names:
                os.truncate(path, min(path.stat().st_size, self._sizes.get(path, 0)))
            else:
                path.unlink()


@pytest.mark.parametrize("power_lost", [False, True], ids=["killed", "power lost"])
async def test_a_death_between_any_two_calls_costs_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power_lost: bool
) -> None:
    monkeypatch.setattr(streams, "SPOOL_SEGMENT_BYTES", 2 * pack(delivery(0)).count)
    died = True
    last = 0
    while died:
        last += 1
        folder = tmp_path / str(last)
        folder.mkdir()
        log, acknowledged = Log(), set[str]()
        with pytest.MonkeyPatch.context() as patch:
            disk = Mortal(patch, folder, last)
            spool = Spool(folder, logger()[0])
            for n in range(3):
                with suppress(SpoolFull):
                    await spool.put(delivery(n))
                    acknowledged.add(f"id-{n}")
            async with log.draining(spool):
                ended = asyncio.create_task(is_empty(folder)), asyncio.create_task(disk.died.wait())
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.cancel()
            died = disk.died.is_set()
            disk.bury(patch, power_lost=power_lost)
        async with log.draining(Spool(folder, logger()[0])):
            await eventually(partial(nothing_waits, folder))
        assert acknowledged <= set(log.known)
        assert len(acknowledged) == 3 or died
    assert last > 30, "not all calls are seen"


async def nothing_waits(folder: Path) -> bool:
    """Whether all but what was torn has been drained."""
    return not list(folder.glob(f"*{segments.SUFFIX}"))


async def test_a_folder_that_can_be_none_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "spool"):
        with pytest.raises(BadSettings, match=f"ODOOOPS_SPOOL_DIR is {folder}: "):
            Spool(folder, logger()[0])


async def test_a_disk_that_fails_at_the_start_is_named_and_takes_what_comes_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, "fsync")
    disk.broken = {"fsync"}
    log, written = logger()
    spool = Spool(tmp_path / "spool", log)
    assert '"event": "the spool cannot be written"' in written.getvalue()
    disk.broken = set()
    await spool.put(delivery(1))
    assert segments.held_bytes(tmp_path / "spool") > 0


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
