"""Several processes that replay one log: together they do what one does, and none outlives another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamState
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.ledger import SecretExcluded
from contracts.own import delivery_of
from runtime import streams
from runtime.bus import BrokerAway
from runtime.embedded import free_port
from services.projector import crew, crew_member, replaying
from services.projector.blocks import Block, Dealer, Folding
from services.projector.crew import Dealing, ProcessFailed
from services.projector.rebuild import Replayed, rebuild
from services.projector.replaying import Replay
from services.projector.work import Addresses, Progress, Work
from tests.conftest import Broker
from tests.processes import forked
from tests.samples import RECEIVED_AT
from tests.servers import Database
from tests.services.projector.rebuilding import (
    NOW,
    again,
    discarded,
    mixed,
    redacted,
    said,
    schemas,
    soak,
    unlike,
    working,
)
from tests.services.projector.running import DEADLINE_S, environment, project_all, store_batch, until
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio


def together(work: Work, broker: Broker, database: Database) -> Work:
    """The same work, whose processes may be more than this one."""
    return replace(work, addresses=Addresses(broker.url("operator"), database.url("operator")))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Three processes take the smallest log; those that were started beside this one."""
    monkeypatch.setattr(replaying, "ALONE_COUNT_MAX", 0)
    monkeypatch.setattr(crew, "processors", lambda: 3)
    monkeypatch.setattr(crew, "BLOCK_COUNT_MAX", 3)
    started: list[Any] = []
    start = asyncio.create_subprocess_exec

    async def recorded(*command: str, **how: Any) -> Any:
        started.append(await start(*command, **how))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", recorded)
    return started


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that this process folded, once another one had asked for its first."""
    asked, done = asyncio.Event(), list[int]()
    blocks, write, following = Folding.blocks, Folding._write, Dealing.next

    async def later(self: Folding, dealer: Dealer, passed_over: Collection[str] = ()) -> None:
        await asked.wait()
        await blocks(self, dealer, passed_over)

    async def counted(self: Folding, block: Block, *given: Any) -> None:
        await write(self, block, *given)
        done.append(block.number)

    async def first(self: Dealing) -> Block | None:
        asked.set()
        return await following(self)

    monkeypatch.setattr(Folding, "blocks", later)
    monkeypatch.setattr(Folding, "_write", counted)
    monkeypatch.setattr(Dealing, "next", first)
    return done


def when_asked(monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[None]]) -> None:
    """No block is dealt; `then` happens when the only other process asks for its first."""
    monkeypatch.setattr(crew, "processors", lambda: 2)

    async def never(self: Folding, dealer: Dealer, passed_over: Collection[str] = ()) -> None:
        await asyncio.Event().wait()

    async def asked(self: Dealing) -> Block | None:
        await then()
        return None

    monkeypatch.setattr(Folding, "blocks", never)
    monkeypatch.setattr(Dealing, "next", asked)


def side_by_side(entries: list[Delivery]) -> list[Delivery]:
    """Deliveries each followed closely by another body of its identity, and by a copy of the first."""
    firsts = [entry for entry in again(entries, "near") if entry.source == "github"]
    others = {other.identity: other for other in unlike(firsts)}
    return [
        each
        for first in firsts
        if first.identity in others
        for each in (others[first.identity], *again([first], "between"), first)
    ]


async def test_several_make_what_the_live_projectors_made_of_a_log_with_everything_in_it(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[Any],
    ours: list[int],
) -> None:
    entries = await soak(broker, engine)
    told = [(n, entry) for n, entry in enumerate(entries, 1) if entry.source == "vercel"]
    by_a_leaked_one = [
        replace(entry, verified_by="LEAKED") for entry in again(entries, "leaked") if entry.source == "plane"
    ]
    excluded = SecretExcluded(
        secret="LEAKED",
        since=RECEIVED_AT,
        until=NOW,
        why="a test",
        occurred_at=NOW,
    )
    await store_batch(broker, [said(redacted(entry, n)) for n, entry in told])
    await store_batch(broker, [*side_by_side(entries), *by_a_leaked_one])
    await store_batch(broker, [delivery_of(excluded, "cli", NOW)])
    await project_all(broker, engine, 2)
    for status in ("projected", "ignored", "parked", "conflict", "discarded", "redacted"):
        assert await count(engine, "deliveries", f"status = '{status}'"), status
    assert await count(engine, "deliveries", "reason = 'secret_excluded'")
    index = Replay.index

    async def log() -> StreamState:
        return (await broker.js.stream_info(streams.DELIVERIES)).state

    async def and_more_comes(replay: Replay) -> None:
        await index(replay)
        monkeypatch.setattr(replaying, "TAIL_COUNT_MAX", 0)
        late = [*enumerate(again(entries[:30], "late"), (await log()).last_seq + 1)]
        await store_batch(broker, [entry for _, entry in late])
        earlier = enumerate(entries[:9], 1)
        await store_batch(broker, [said(discarded(entry, n)) for n, entry in (*late[::9], *earlier)])
        await project_all(broker, engine)

    monkeypatch.setattr(Replay, "index", and_more_comes)
    heard: list[Progress] = []
    async with working(broker, database) as work:
        work = replace(together(work, broker, database), tell=heard.append)
        done = await rebuild(work, limit=3, dry_run=False)
        stored = (await log()).messages

    assert [] == [each for each in done.compared if not each.equal]
    assert stored == done.deliveries
    replayed = [each.done for each in heard if each.phase == "replaying"]
    assert replayed == sorted(replayed)
    assert (replayed[-1], stored) == (heard[len(replayed) - 1].total, heard[-1].done)
    assert {0} == {process.returncode for process in processes}
    assert 0 < len(ours) < len(replayed)


async def test_several_take_over_what_rests_on_a_trimmed_log(
    broker: Broker, database: Database, engine: AsyncEngine, processes: list[Any], ours: list[int]
) -> None:
    entries = list(mixed())
    await store_batch(broker, [*entries, *again(entries, "again"), *unlike(entries)])
    await project_all(broker, engine)
    await broker.js.purge_stream(streams.DELIVERIES, seq=len(entries) // 2)

    async with working(broker, database) as work:
        found = await rebuild(together(work, broker, database), limit=3, dry_run=True)

    assert [] == [each for each in found.compared if not each.equal]
    assert len(entries) // 2 == found.proven_from
    assert [0, 0] == [process.returncode for process in processes]


async def test_whose_process_is_killed_changes_nothing_and_says_so(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[Any],
) -> None:
    async def kill() -> None:
        processes[0].kill()

    when_asked(monkeypatch, kill)
    before = await _filled(broker, engine)

    async with working(broker, database) as work:
        with pytest.raises(ProcessFailed, match="a process of the replay was killed by signal 9"):
            await rebuild(together(work, broker, database), limit=0, dry_run=False)

    assert {} == await schemas(engine)
    assert before == await snapshot(engine)
    assert [-signal.SIGKILL] == [process.returncode for process in processes]


async def test_a_process_runs_the_code_of_the_one_who_starts_it_wherever_that_was_called(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[Any],
    ours: list[int],
    tmp_path: Path,
) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "__init__.py").write_text("raise SystemExit('the code of the current folder')")
    await _filled(broker, engine)

    monkeypatch.chdir(tmp_path)
    async with working(broker, database) as work:
        await rebuild(together(work, broker, database), limit=0, dry_run=True)

    assert [0, 0] == [process.returncode for process in processes]


async def test_what_a_process_fails_of_is_named(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[Any],
    ours: list[int],
) -> None:
    monkeypatch.setattr(crew, "processors", lambda: 2)
    task = Replay._task
    monkeypatch.setattr(Replay, "_task", lambda *given: _elsewhere(task(*given)))
    await _filled(broker, engine)

    async with working(broker, database) as work:
        with pytest.raises(ProcessFailed, match=r'failed: ProgrammingError: .*"ops_nowhere[.]'):
            await rebuild(together(work, broker, database), limit=0, dry_run=False)
    assert {} == await schemas(engine)


async def test_a_process_that_the_broker_does_not_let_in_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_member, "AWAY_S_MAX", 0.2)
    with pytest.raises(BrokerAway, match=r"let no other process in within 0\.2 s"):
        await crew_member.connected(f"nats://127.0.0.1:{free_port()}")


def _elsewhere(task: crew.Task | None) -> crew.Task:
    assert task is not None
    return replace(task, schema="ops_nowhere")


async def _filled(broker: Broker, engine: AsyncEngine) -> Any:
    await store_batch(broker, list(mixed())[:40])
    await project_all(broker, engine)
    return await snapshot(engine)


# The one who deals, with another process that has asked for its first block; it says which.
_DEALS = """
import asyncio, json, sys
from nats.aio.client import Client
from runtime import bus, postgres
from services.projector import crew, replaying
from services.projector.blocks import Folding
from services.projector.rebuild import rebuild
from services.projector.work import Addresses, Work

NATS, DATABASE = {nats!r}, {database!r}
started = []
start = asyncio.create_subprocess_exec

async def recorded(*command, **how):
    started.append(await start(*command, **how))
    return started[-1]

async def never(*given):
    await asyncio.Event().wait()

async def asked(self):
    print(json.dumps(started[0].pid), flush=True)
    await never()

asyncio.create_subprocess_exec = recorded
replaying.ALONE_COUNT_MAX, crew.processors, Folding.blocks, crew.Dealing.next = 0, lambda: 2, never, asked

async def main():
    work = Work(
        await bus.connect(NATS, "operator"), postgres.make_engine(DATABASE, "test"), {{}}, print, None,
        Addresses(NATS, DATABASE),
    )
    await rebuild(work, limit=0, dry_run=False)

asyncio.run(main())
"""


async def test_who_deals_is_killed_and_no_process_is_left(
    broker: Broker, database: Database, engine: AsyncEngine, tmp_path: Path
) -> None:
    await _filled(broker, engine)
    code = _DEALS.format(nats=broker.url("operator"), database=database.url("operator"))

    with forked(["-c", code], environment(broker, database), tmp_path / "deals") as process:

        async def asked() -> bool:
            assert process.exitcode is None, process.said()
            return process.out.read_text().endswith("\n")

        await until(asked, "another process asks for a block")
        other = int(json.loads(process.out.read_text()))
        assert _runs(other)
        process.signal(signal.SIGKILL)
        assert -signal.SIGKILL == await process.ended(DEADLINE_S)

    async def ended() -> bool:
        return not _runs(other)

    await until(ended, "the other process has ended, too")
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=True)
    assert {} == await schemas(engine)


def _runs(process: int) -> bool:
    """Whether there is such a process that is not dead and only not looked after yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("why", ["few", "spares the servers", "no addresses"])
async def test_one_process_is_enough(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[Any],
    why: str,
) -> None:
    await _filled(broker, engine)
    if why == "few":
        monkeypatch.setattr(replaying, "ALONE_COUNT_MAX", 41)

    async with working(broker, database) as work:
        if why != "no addresses":
            work = together(work, broker, database)
        if why == "spares the servers":
            work = replace(work, rate_max=1e6)
        done: Replayed = await rebuild(work, limit=0, dry_run=True)

    assert (40, []) == (done.deliveries, processes)


async def test_a_block_is_settled_after_all_before_it() -> None:
    dealing = Dealing(0, 25, 10, lambda count, left_out: None, lambda: 0.0)
    dealt = [await dealing.next() for _ in range(4)]
    third = asyncio.create_task(dealing.turn(2))
    second = asyncio.create_task(dealing.turn(1))
    await dealing.turn(0)
    dealing.settled(1)
    await asyncio.sleep(0)
    assert not (second.done() or third.done())
    dealing.settled(0)
    await asyncio.gather(dealing.turn(1), third)
    second.cancel()

    assert [Block(0, 0, 10), Block(1, 10, 20), Block(2, 20, 25), None] == dealt


def test_locks_of_all_processes_have_room() -> None:
    assert [1_000, 1_000, 500] == [crew.block_count(each) for each in (1, 4, crew.PROCESSES_MAX)]
    assert os.cpu_count() is None or 1 <= crew.processors() <= (os.cpu_count() or 1)
