"""Replaying selections on real servers: what they touch ends as a rebuild has it, and nothing else is touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery, body_sha256
from contracts.envelope import Event
from providers.port import Ignored, Unintelligible
from read_models.table import SCHEMA
from runtime import bus, postgres, streams
from services.projector import replay
from services.projector.rebuild import OPERATORS_WORDS, Work
from services.projector.replay import Portion, Selection
from services.projector.understand import understand
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, body, delivery
from tests.servers import Database
from tests.services.projector.rebuilding import entries, fold_as, misread, mixed, working
from tests.services.projector.running import clean_fold, event_ids, project_all, store, store_batch
from tests.tables import count, empty, snapshot

pytestmark = pytest.mark.anyio

Right = Callable[[], list[Event]]


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


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
    async for portion in replay.replay(work, selection, selected, after=after, publish_as=publish_as):
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
    monkeypatch.setattr(replay, "PORTION_COUNT", 7)
    monkeypatch.setattr(replay, "HUB_COUNT", 3)
    await store_batch(broker, list(mixed()))
    await fold_as(work, misread(wrong_in_every_way))
    wrong = await snapshot(engine)

    for source in reversed(work.sources):
        await run(work, Selection(source=source))
    await work.writer(SCHEMA).refold((), await entries(work, "status = 'parked'"))

    replayed = await snapshot(engine)
    assert replayed != wrong
    assert replayed == await clean_fold(broker, engine)


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
