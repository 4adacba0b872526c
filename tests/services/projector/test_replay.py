"""Replaying selections on real servers: what they touch ends as a rebuild has it, and nothing else is touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.delivery import Delivery, body_sha256
from contracts.envelope import Event
from providers.port import Ignored, Unintelligible
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.postgres import own_fold_lock
from services.projector import replay, retry
from services.projector.replay import Portion, Selection
from services.projector.replaying import OPERATORS_WORDS
from services.projector.retry import RetryRunning
from services.projector.understand import understand
from services.projector.work import Work
from tests.conftest import Broker
from tests.samples import RECEIVED_AT
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
from tests.services.projector.running import event_ids, project_all, store_batch
from tests.tables import empty, snapshot

pytestmark = pytest.mark.anyio

Right = Callable[[], list[Event]]


@pytest.fixture
async def work(broker: Broker, database: Database) -> AsyncIterator[Work]:
    async with working(broker, database) as made:
        yield made


async def run(
    work: Work,
    selection: Selection,
    after: int = 0,
    publish_as: str | None = None,
    portions: int | None = None,
) -> list[Portion]:
    """Replay, or only so many portions as if it were killed then."""
    async with work.engine.connect() as connection:
        selected = await replay.select(connection, selection, after)
    done: list[Portion] = []
    replaying = replay.replay(work, selection, selected, after=after, publish_as=publish_as)
    async with aclosing(replaying):
        async for portion in replaying:
            done.append(portion)
            if len(done) == portions:
                break
    return done


def wrong_in_every_way(given: Delivery, right: Right) -> list[Event]:
    """Ignores, parks and fails on some; of others says less, or tells it of another thing or of one more."""
    if given.subject in OPERATORS_WORDS:
        return right()
    match int(body_sha256(given.name.encode())[:4], 16) % 7:
        case 0:
            raise Ignored("no_such_event")
        case 1:
            raise Unintelligible("shape_mismatch", "wrong")
        case 2:
            raise RuntimeError
        case 3:
            return right()[1:]
        case 4:
            return [event.model_copy(update={"ref": "x:wrong"}) for event in right()]
        case 5:
            return [*right(), *(event.model_copy(update={"ref": "x:more"}) for event in right())]
        case _:
            return right()


async def test_whatever_was_misread_is_right_after_replays_of_every_source_and_of_the_parked(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PORTION_COUNT", 20)
    monkeypatch.setattr(replay, "HUB_COUNT", 3)
    await store_batch(broker, list(mixed()))
    await fold_as(work, misread(wrong_in_every_way))
    wrong = await snapshot(engine)

    for source in sorted(work.sources, reverse=True):
        await run(work, Selection(source=source))
    await work.writer(SCHEMA).refold((), await entries(work, "status = 'parked'"))

    replayed = await snapshot(engine)
    assert replayed != wrong
    await empty(engine)
    await fold_as(work, work.sources)
    assert replayed == await snapshot(engine)


async def test_what_the_code_does_not_understand_any_more_is_parked_and_leaves_the_tables(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, list(mixed()))
    await fold_as(work, work.sources)
    now = misread(wrong_in_every_way)

    for source in now:
        await run(replace(work, sources=now), Selection(source=source))
    parked = await entries(work, "status = 'parked'")
    await replace(work, sources=now).writer(SCHEMA).refold((), parked)

    replayed = await snapshot(engine)
    await empty(engine)
    await fold_as(work, now)
    assert replayed == await snapshot(engine)


async def titles(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT title FROM ops.work_items ORDER BY split_part(work_item_ref, '#', 2)::int")
        )
        return [row.title for row in found]


async def test_a_selection_is_mended_and_only_that(broker: Broker, engine: AsyncEngine, work: Work) -> None:
    await store_batch(broker, [issue(1), issue(2), issue(3)])
    await fold_as(work, misread(misread_title))

    (portion,) = await run(work, Selection(ref=f"{ISSUE}2"))

    assert ["misread", "right", "misread"] == await titles(engine)
    assert (1, 1, 1, 0) == (portion.count, portion.read, portion.refs, portion.verdicts)


LEDGER = """
INSERT INTO ops.deliveries (source, identity, body_sha256, kind, received_at, stream_seq, last_seq, status, refs)
VALUES (:source, :identity, 'x', :kind, :received_at, :seq, :last_seq, :status, :refs)
"""


async def test_filters_select_what_was_projected_or_ignored(engine: AsyncEngine, work: Work) -> None:
    hour = timedelta(hours=1)
    rows = [
        ("github", "a", "issues", "projected", ["x:1"]),
        ("github", "b", "issues_of_old", "ignored", []),
        ("digitalocean", "c", "observed.droplet", "projected", ["x:1", "x:2"]),
        ("digitalocean", "a", "observed", "projected", ["x:3"]),
        ("github", "p", "issues", "parked", []),
        ("github", "d", "issues", "discarded", ["x:1"]),
        ("github", "r", "issues", "redacted", ["x:1"]),
        ("github", "k", "issues", "conflict", []),
        ("odooops", "w", "delivery.discarded", "projected", ["x:1"]),
    ]
    async with engine.begin() as connection:
        for n, (source, identity, kind, status, refs) in enumerate(rows):
            given = {"source": source, "identity": identity, "kind": kind, "status": status, "refs": refs}
            places = {"seq": 10 + n, "last_seq": 20 + n, "received_at": RECEIVED_AT + n * hour}
            await connection.execute(text(LEDGER), {**given, **places})

    async def found(selection: Selection, after: int = 0, last: int = 99) -> list[int]:
        async with engine.connect() as connection:
            chosen = await replay.entries(connection, selection, after, last, 9)
            selected = await replay.select(connection, selection, after)
        assert after or last < 99 or selected.count == len(chosen)
        return [entry.stream_seq for entry in chosen]

    assert [10, 11] == await found(Selection(source="github"))
    assert [10] == await found(Selection(kind="issues"))
    assert [12, 13] == await found(Selection(kind="observed"))
    assert [10, 12] == await found(Selection(ref="x:1"))
    assert [11, 12] == await found(Selection(since=RECEIVED_AT + hour, until=RECEIVED_AT + 3 * hour))
    assert [10, 12, 13] == await found(Selection(sequences=(10, 22), names=(("digitalocean", "a"),)))
    assert [10] == await found(Selection(source="github", ref="x:1"))
    assert [11, 12] == await found(Selection(), after=10, last=12)
    async with engine.connect() as connection:
        assert 1 == (await replay.select(connection, Selection(source="github"))).parked


async def test_whoever_is_stopped_between_portions_goes_on_after_the_last(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PORTION_COUNT", 2)
    await store_batch(broker, [issue(n) for n in range(1, 6)])
    await fold_as(work, misread(misread_title))

    (first,) = await run(work, Selection(source="github"), portions=1)
    assert ["right", "right", "misread", "misread", "misread"] == await titles(engine)

    rest = await run(work, Selection(source="github"), after=first.last)
    assert [2, 1] == [portion.count for portion in rest]
    assert ["right"] * 5 == await titles(engine)


def ignoring(given: Delivery, right: Right) -> list[Event]:
    raise Ignored("no_such_event")


@pytest.mark.parametrize("wrong", [misread_title, ignoring])
async def test_a_ref_of_very_many_deliveries_is_refolded_once(
    broker: Broker,
    engine: AsyncEngine,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[Delivery, Right], list[Event]],
) -> None:
    monkeypatch.setattr(replay, "PORTION_COUNT", 2)
    monkeypatch.setattr(replay, "HUB_COUNT", 1)
    await store_batch(broker, [issue(1, f"copy-{n}") for n in range(6)])
    await fold_as(work, misread(wrong))

    portions = await run(work, Selection(source="github"))

    expected = [(6 if wrong is misread_title else 2, 1), (2, 0), (2, 0)]
    assert expected == [(portion.read, portion.refs) for portion in portions]
    replayed = await snapshot(engine)
    await empty(engine)
    await fold_as(work, work.sources)
    assert replayed == await snapshot(engine)


async def test_a_body_that_could_not_take_its_place_stays_parked(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, [issue(1)])
    await fold_as(work, work.sources)
    async with engine.begin() as connection:
        parked = "UPDATE ops.deliveries SET status = 'parked', reason = 'refold_impossible', refs = '{}'"
        await connection.execute(text(parked))

    await work.writer(SCHEMA).refold((), await entries(work))

    assert ["parked"] == [entry.status for entry in await entries(work)]
    async with work.engine.connect() as connection:
        assert [] == await replay.newest(connection, 10)


async def test_events_are_sent_again_only_where_that_is_asked_for_and_marked(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, [issue(1), issue(2), issue(3)])
    await project_all(broker, engine)
    published = await event_ids(broker)

    await run(work, Selection(source="github"))
    assert published == await event_ids(broker)

    (portion,) = await run(work, Selection(sequences=(2, 3)), publish_as="again")
    assert 2 == portion.events
    assert [*published, *published[1:]] == await event_ids(broker)
    for seq, ce_id in enumerate(published[1:], 4):
        headers = (await broker.js.get_msg(streams.EVENTS, seq)).headers or {}
        assert ("again", f"replay:again:{ce_id}") == (headers["ce-replayed"], headers["Nats-Msg-Id"])


async def test_a_refold_reads_before_it_holds_others_up_and_then_only_what_has_come(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_batch(broker, [issue(1), issue(1, "again"), issue(1, "late")])
    js, held, read = work.nc.jetstream(), False, list[tuple[int, bool]]()

    async def take_late(connection: AsyncConnection) -> None:
        nonlocal held
        late = understand(work.sources, await bus.read_delivery(js, 3))
        await work.writer(SCHEMA).fold([late])
        await own_fold_lock(connection)
        held = True

    async def read_log(seq: int) -> Delivery:
        read.append((seq, held))
        return await bus.read_delivery(js, seq)

    writer = replace(work.writer(SCHEMA), read_log=read_log)
    await writer.fold([understand(work.sources, await bus.read_delivery(js, seq)) for seq in (1, 2)])
    monkeypatch.setattr("services.projector.write.own_fold_lock", take_late)

    await writer.refold([f"{ISSUE}1"])

    assert [(1, False), (2, False), (3, True)] == sorted(read)


async def test_what_was_set_aside_while_a_refold_read_is_not_folded(
    broker: Broker, engine: AsyncEngine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_batch(broker, [issue(1)])
    await fold_as(work, work.sources)

    async def set_aside_first(connection: AsyncConnection) -> None:
        async with engine.begin() as other:
            await other.execute(text("UPDATE ops.deliveries SET status = 'discarded', event_count = 0"))
        await own_fold_lock(connection)

    monkeypatch.setattr("services.projector.write.own_fold_lock", set_aside_first)
    await run(work, Selection(ref=f"{ISSUE}1"))
    assert [] == await titles(engine)
    assert ["discarded"] == [entry.status for entry in await entries(work)]


async def test_while_others_publish_or_erase_nothing_is_sent_again(
    broker: Broker, engine: AsyncEngine, work: Work
) -> None:
    await store_batch(broker, [issue(1)])
    await project_all(broker, engine)
    async with work.engine.connect() as connection, retry.alone(connection):
        with pytest.raises(RetryRunning):
            await run(work, Selection(source="github"), publish_as="again")
        assert 1 == len(await run(work, Selection(source="github")))

    assert 1 == len(await event_ids(broker))
