"""How deliveries of many callers reach the log: alone or together, each once, each told where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from contracts.delivery import MESSAGE_ID
from runtime import bus, streams
from runtime.bus import Ack, BatchRefused, BrokerAway, Message
from services.ingest.group_commit import GroupCommit
from tests.conftest import Broker
from tests.services.ingest.door import BODY, Door, eventually, open_door
from tests.services.ingest.own_broker import OwnBroker

SUBJECT = "deliveries.github.ping"
MANY = 300
SOON_S = 20.0
BATCHES, REFUSALS = "odooops_ingest_batch_deliveries_count", "odooops_ingest_batches_refused_total"

Together = Callable[[Sequence[Message]], Awaitable[int]]


def message(id_: int | str, body: bytes = b"{}") -> Message:
    return Message(SUBJECT, body, {MESSAGE_ID: f"id-{id_}"})


@dataclass
class Watched:
    """A group on a real broker, and what it sent how."""

    group: GroupCommit
    alone: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    async def store(self, *messages: Message) -> list[Ack]:
        async with asyncio.timeout(SOON_S):
            return list(await asyncio.gather(*map(self.group.store, messages)))


def watched(broker: Broker, meddle: Callable[[Together], Together] = lambda together: together) -> Watched:
    async def alone(one: Message) -> Ack:
        made.alone.append(one.headers[MESSAGE_ID])
        return await bus.store_alone(broker.js, one)

    async def together(messages: Sequence[Message]) -> int:
        made.batches.append(len(messages))
        return await bus.publish_atomically(broker.nc, messages, streams.PUBLISH_ATTEMPT_S)

    made = Watched(GroupCommit(alone, meddle(together)))
    return made


async def in_the_log(broker: Broker) -> list[str]:
    """The ids of all messages, by sequence."""
    state = (await broker.js.stream_info(streams.DELIVERIES)).state
    found = [await broker.js.get_msg(streams.DELIVERIES, seq) for seq in range(1, state.last_seq + 1)]
    return [(each.headers or {})[MESSAGE_ID] for each in found]


@pytest.mark.anyio
async def test_a_lone_delivery_is_published_plainly(broker: Broker) -> None:
    group = watched(broker)
    assert [await group.store(message(n)) for n in range(3)] == [[(1, False)], [(2, False)], [(3, False)]]
    assert (group.alone, group.batches) == (["id-0", "id-1", "id-2"], [])


@pytest.mark.anyio
async def test_many_at_once_go_in_few_batches_and_each_is_told_where_it_stands(broker: Broker) -> None:
    group = watched(broker)
    acks = await group.store(*map(message, range(MANY)))
    log = await in_the_log(broker)
    assert [log[seq - 1] for seq, _ in acks] == [f"id-{n}" for n in range(MANY)]
    assert len(log) == MANY
    assert not any(known for _, known in acks)
    assert len(group.alone) <= streams.ALONE_COUNT_MAX + streams.GROUP_COUNT_MIN
    assert len(group.batches) <= 3


@pytest.mark.anyio
async def test_sequences_are_right_while_others_publish_to_the_same_stream(broker: Broker) -> None:
    groups = [watched(broker), watched(broker)]
    plain = [asyncio.create_task(bus.store_alone(broker.js, message(f"plain-{n}"))) for n in range(50)]
    found = await asyncio.gather(
        *(group.store(*(message(f"{name}-{n}") for n in range(MANY))) for name, group in enumerate(groups))
    )
    await asyncio.gather(*plain)
    log = await in_the_log(broker)
    assert len(log) == len(set(log)) == 2 * MANY + 50
    for name, acks in enumerate(found):
        assert [log[seq - 1] for seq, _ in acks] == [f"id-{name}-{n}" for n in range(MANY)]


@pytest.mark.anyio
async def test_a_known_delivery_among_many_is_named_and_the_others_are_stored_once(broker: Broker) -> None:
    group = watched(broker)
    await group.store(message(MANY - 1))
    acks = await group.store(*map(message, range(MANY)))
    assert [n for n, (_, known) in enumerate(acks) if known] == [MANY - 1]
    assert acks[MANY - 1] == (1, True)
    log = await in_the_log(broker)
    assert sorted(log) == sorted(f"id-{n}" for n in range(MANY))
    assert [log[seq - 1] for seq, _ in acks] == [f"id-{n}" for n in range(MANY)]


@pytest.mark.anyio
async def test_the_same_delivery_many_times_at_once_is_stored_once(broker: Broker) -> None:
    acks = await watched(broker).store(*(message(n % 3) for n in range(MANY)))
    assert sorted(await in_the_log(broker)) == ["id-0", "id-1", "id-2"]
    assert sum(not known for _, known in acks) == 3


@pytest.mark.anyio
async def test_a_batch_of_which_nobody_knows_whether_it_was_stored_is_stored_once(broker: Broker) -> None:
    def answer_lost(together: Together) -> Together:
        async def stored_and_not_told(messages: Sequence[Message]) -> int:
            await together(messages)
            raise BrokerAway("no answer came")

        return stored_and_not_told

    group = watched(broker, answer_lost)
    acks = await group.store(*map(message, range(MANY)))
    assert group.batches
    log = await in_the_log(broker)
    assert sorted(log) == sorted(f"id-{n}" for n in range(MANY))
    assert [log[seq - 1] for seq, _ in acks] == [f"id-{n}" for n in range(MANY)]


@pytest.mark.anyio
async def test_who_waits_no_more_is_left_out(broker: Broker) -> None:
    held = asyncio.Event()

    def hold(together: Together) -> Together:
        async def later(messages: Sequence[Message]) -> int:
            await held.wait()
            return await together(messages)

        return later

    group = watched(broker, hold)
    first = [asyncio.create_task(group.group.store(message(n))) for n in range(MANY)]
    async with asyncio.timeout(SOON_S):
        await asyncio.wait(first[: streams.ALONE_COUNT_MAX])
    gone = [asyncio.create_task(group.group.store(message(f"gone-{n}"))) for n in range(MANY)]
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    await asyncio.wait(gone)
    held.set()
    async with asyncio.timeout(SOON_S):
        await asyncio.wait(first)
    assert not [id_ for id_ in await in_the_log(broker) if "gone" in id_]
    assert 0 not in group.batches
    assert await group.store(message("after")) == [(MANY + 1, False)]


@pytest.mark.anyio
async def test_no_batch_is_sent_of_which_nobody_waits_for_anything() -> None:
    answered, sent = asyncio.Event(), list[int]()

    async def alone(one: Message) -> Ack:
        await answered.wait()
        return 1, False

    async def together(messages: Sequence[Message]) -> int:
        sent.append(len(messages))
        await answered.wait()
        return len(messages)

    def ask(mark: str, count: int) -> list[asyncio.Task[Ack]]:
        return [asyncio.create_task(group.store(message(f"{mark}-{n}"))) for n in range(count)]

    group = GroupCommit(alone, together)
    first = ask("first", streams.ALONE_COUNT_MAX + streams.GROUP_COUNT_MIN)
    await asyncio.sleep(0)
    gone = ask("gone", streams.GROUP_COUNT_MIN)
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    await asyncio.wait(gone)
    answered.set()
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*first)
        await group.store(message("after"))
    assert [streams.GROUP_COUNT_MIN] == sent


@pytest.mark.anyio
async def test_a_batch_whose_answer_is_lost_holds_up_no_other_and_one_at_a_time_is_passed_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "BATCH_LATE_S", 0.01)
    count = streams.ALONE_COUNT_MAX + streams.GROUP_COUNT_MIN
    given_up, sent = asyncio.Event(), list[int]()

    async def alone(one: Message) -> Ack:
        await asyncio.sleep(0)
        return 1, False

    async def together(messages: Sequence[Message]) -> int:
        sent.append(len(messages))
        if len(sent) in (1, 3):
            await given_up.wait()
            raise BrokerAway("no answer came")
        return len(messages)

    def ask(mark: str) -> asyncio.Task[list[Ack]]:
        return asyncio.create_task(asyncio.wait_for(many(mark), SOON_S))

    async def many(mark: str) -> list[Ack]:
        return await asyncio.gather(*(group.store(message(f"{mark}-{n}")) for n in range(count)))

    group = GroupCommit(alone, together)
    lost = ask("lost")
    await asyncio.sleep(0)
    await ask("passes")
    also_lost, waits = ask("also-lost"), ask("waits")
    assert (await asyncio.wait({lost, also_lost, waits}, timeout=0.1))[0] == set()
    assert len(sent) == 3
    given_up.set()
    await asyncio.gather(lost, also_lost, waits)


@pytest.mark.anyio
async def test_many_requests_at_once_are_each_answered_with_their_own_sequence(door: Door) -> None:
    before = {name: REGISTRY.get_sample_value(name) or 0 for name in (BATCHES, REFUSALS)}
    answers = await asyncio.gather(*(door.post(delivery=f"d-{n}") for n in range(100)))
    assert (REGISTRY.get_sample_value(BATCHES) or 0) > before[BATCHES]
    assert REGISTRY.get_sample_value(REFUSALS) == before[REFUSALS]
    assert {answer.status_code for answer in answers} == {200}
    told = {answer.json()["delivery"]: answer.json()["seq"] for answer in answers}
    log = await door.stored()
    assert told == {delivery.name: delivery.seq for delivery in log}
    assert {delivery.body for delivery in log} == {BODY}
    assert len(log) == 100


@pytest.mark.anyio
async def test_a_broker_that_is_killed_under_many_requests_loses_and_doubles_nothing(
    stoppable: OwnBroker,
) -> None:
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js) as door:
        asked = [asyncio.create_task(door.post(delivery=f"d-{n}")) for n in range(200)]

        async def some_are_stored() -> bool:
            return (await js.stream_info(streams.DELIVERIES)).state.messages > 0

        await eventually(some_are_stored)
        stoppable.kill()
        await stoppable.start()
        answers = await asyncio.gather(*asked)
        stored = [answer.json() for answer in answers if answer.status_code == 200]

        log = [delivery.name for delivery in await door.stored()]
        assert len(log) == len(set(log))
        assert [log[each["seq"] - 1] for each in stored] == [each["delivery"] for each in stored]
        assert len(stored) + sum(answer.status_code == 503 for answer in answers) == 200


# A broker of one's own making, for the order of things that a real one cannot be told to take.


@dataclass
class Played:
    """Stores in memory, as the broker does: an id once; a batch with a known id not at all."""

    refusing: Sequence[bool]
    log: list[str] = field(default_factory=list)
    alone_at_once: int = 0
    alone_most: int = 0
    committing: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)

    async def alone(self, one: Message) -> Ack:
        self.alone_at_once += 1
        self.alone_most = max(self.alone_most, self.alone_at_once)
        await asyncio.sleep(0)
        self.alone_at_once -= 1
        id_ = one.headers[MESSAGE_ID]
        known = id_ in self.log
        if not known:
            self.log.append(id_)
        return self.log.index(id_) + 1, known

    async def together(self, messages: Sequence[Message]) -> int:
        assert self.committing == 0
        self.committing += 1
        for _ in range(3):
            await asyncio.sleep(0)
        self.committing -= 1
        ids = [each.headers[MESSAGE_ID] for each in messages]
        self.sizes.append((len(ids), sum(len(each.data) for each in messages)))
        turn = len(self.sizes) - 1
        if set(ids) & set(self.log) or (turn < len(self.refusing) and self.refusing[turn]):
            raise BatchRefused("refused")
        self.log += ids
        return len(self.log)


@given(
    arrivals=st.lists(st.integers(0, 40), max_size=12),
    ids=st.integers(1, 400),
    refusing=st.lists(st.booleans(), max_size=5),
    size=st.sampled_from([1, streams.INLINE_BODY_BYTES_MAX]),
)
def test_whatever_comes_when_each_is_stored_once_and_told_so(
    arrivals: list[int], ids: int, refusing: list[bool], size: int
) -> None:
    played = Played(refusing)
    body = b"x" * size

    async def live() -> list[tuple[str, Ack]]:
        group = GroupCommit(played.alone, played.together)

        async def one(id_: int) -> tuple[str, Ack]:
            return f"id-{id_}", await group.store(message(id_, body))

        tasks: list[asyncio.Task[tuple[str, Ack]]] = []
        for count in arrivals:
            tasks += [asyncio.create_task(one((len(tasks) + n) % ids)) for n in range(count)]
            await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks))

    told = asyncio.run(live())
    assert len(played.log) == len(set(played.log)) == len({id_ for id_, _ in told})
    assert all(played.log[seq - 1] == id_ for id_, (seq, _) in told)
    assert sum(not known for _, (_, known) in told) <= len(played.log)
    for count, total in played.sizes:
        assert count <= streams.ATOMIC_BATCH_COUNT_MAX
        assert total <= streams.GROUP_BYTES_MAX + streams.INLINE_BODY_BYTES_MAX
    if not any(refusing) and len(told) <= ids:
        assert played.alone_most <= streams.ALONE_COUNT_MAX + streams.GROUP_COUNT_MIN
