"""A log that was trimmed: what rests on what is gone stays as it is, all else is proven as ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js.errors import NotFoundError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.delivery import Delivery
from contracts.ledger import SecretExcluded
from contracts.own import delivery_of
from runtime import streams
from runtime.reading import Reading
from services.projector import seed
from services.projector.rebuild import Replayed, rebuild
from services.projector.work import Busy
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, body, delivery
from tests.servers import Database
from tests.services.projector.rebuilding import NOW, discarded, mixed, redacted, working
from tests.services.projector.running import fold_one, project_all, store, store_batch
from tests.tables import Snapshot, count, snapshot

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


async def trim(broker: Broker, first: int) -> None:
    """Leave nothing before the sequence `first`."""
    await broker.js.purge_stream(streams.DELIVERIES, seq=first)


async def verify(broker: Broker, database: Database, models: Sequence[str] = ()) -> Replayed:
    async with working(broker, database) as work:
        return await rebuild(work, models, limit=5, dry_run=True)


def differing(found: Replayed) -> list[str]:
    return [each.model for each in found.compared if not each.equal]


async def again(broker: Broker, given: Delivery) -> None:
    """The same delivery once more, after the broker has forgotten its message id."""
    headers = {name: value for name, value in wire.to_headers(given).items() if name != wire.MESSAGE_ID}
    await broker.js.publish(given.subject, given.body, stream=streams.DELIVERIES, headers=headers)


async def middle(broker: Broker) -> int:
    """A place in the middle, before the sample of a redaction if there is one: it speaks of what is not here."""
    last = int((await broker.js.stream_info(streams.DELIVERIES)).state.last_seq)
    try:
        word = await broker.js.get_msg(
            streams.DELIVERIES, 1, "deliveries.odooops.delivery.redacted", next=True
        )
    except NotFoundError:
        return last // 2
    return min(last // 2, int(word.seq or last))


async def test_what_was_trimmed_stays_and_verify_says_from_where_it_proves(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    before = await snapshot(engine)
    tried = await count(engine, "deliveries", "attempts = 1")
    first = await middle(broker)
    await trim(broker, first)

    found = await verify(broker, database)

    assert [] == differing(found)
    gone = await count(engine, "deliveries", f"stream_seq < {first}")
    assert (first, gone) == (found.proven_from, found.taken_over["deliveries"])
    assert f"from sequence {first} on" in str(seed.sentence(found))
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
    assert before == await snapshot(engine)
    assert tried == await count(engine, "deliveries", "attempts = 1")


async def test_a_row_that_rests_on_kept_deliveries_is_proven_and_another_is_not(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    first = await middle(broker)
    await trim(broker, first)
    trimmed = f"ref IN (SELECT unnest(refs) FROM ops.deliveries WHERE stream_seq < {first})"
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.platform_events SET message = 'by hand'"))
        await connection.execute(text(f"UPDATE ops.deliveries SET kind = 'x' WHERE stream_seq = {first}"))

    found = await verify(broker, database)

    assert ["deliveries", "platform_events"] == differing(found)
    proven = next(each for each in found.compared if each.model == "platform_events")
    assert 0 < proven.changed == await count(engine, "platform_events", f"NOT {trimmed}")


async def test_one_model_of_a_trimmed_log(broker: Broker, database: Database, engine: AsyncEngine) -> None:
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    before = await snapshot(engine)
    await trim(broker, await middle(broker))

    async with working(broker, database) as work:
        done = await rebuild(work, ["work_items"], limit=5, dry_run=False)

    assert [] == differing(done)
    assert before == await snapshot(engine)


async def test_a_log_that_loses_more_meanwhile_is_seeded_with_that_too(
    broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an age limit: the words of operators have just been read, and the rest is read next."""
    await store_batch(broker, list(mixed()))
    await project_all(broker, engine)
    close = Reading.close

    async def close_and_trim(reading: Reading) -> None:
        await close(reading)
        await trim(broker, 200)

    monkeypatch.setattr(Reading, "close", close_and_trim)
    await trim(broker, 100)

    found = await verify(broker, database)

    assert [] == differing(found)
    words = "source = 'odooops' AND kind IN ('delivery.discarded', 'delivery.redacted', 'secret.excluded')"
    gone = await count(engine, "deliveries", f"stream_seq < 100 OR stream_seq < 200 AND NOT ({words})")
    assert (200, gone) == (found.proven_from, found.taken_over["deliveries"])


async def test_copies_and_conflicts_of_trimmed_deliveries_are_what_they_are_live(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    first = delivery("issues", body("issues.opened.15"), 1, "first")
    await store(broker, [first, delivery("issues", body("issues.edited.00"), 2, "other")])
    await project_all(broker, engine)
    await trim(broker, 2)
    another = delivery("issues", body("issues.transferred.21"), 4, "first")

    await again(broker, first)
    await store(broker, [another])
    await project_all(broker, engine)
    found = await verify(broker, database)

    assert [] == differing(found)
    assert 1 == await count(engine, "deliveries", "stream_seq = 1 AND last_seq = 3 AND status = 'projected'")
    assert 1 == await count(engine, "deliveries", "stream_seq = 4 AND status = 'conflict'")


async def test_one_that_cannot_take_its_place_is_parked_in_the_shadow_too(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    trimmed = delivery("issues", body("issues.opened.15"), 1, "trimmed")
    earlier = delivery("issues", body("issues.edited.00"), 2, "same")
    later = delivery("issues", body("issues.transferred.21"), 3, "same")
    await store(broker, [trimmed, earlier, later])
    await fold_one(broker, engine, 1)
    await fold_one(broker, engine, 3)
    await trim(broker, 2)
    await project_all(broker, engine)

    found = await verify(broker, database)

    assert 1 == await count(engine, "deliveries", "reason = 'refold_impossible'")
    assert [] == differing(found)


async def test_what_operators_said_counts_though_it_was_trimmed(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    aside, gone, doubted = (
        delivery("issues", body(f"issues.{name}"), seq, name)
        for seq, name in enumerate(("opened.15", "edited.00", "transferred.21"), 1)
    )
    doubted = replace(doubted, verified_by="OLD_SECRET")
    excluded = SecretExcluded(
        secret="OLD_SECRET", since=RECEIVED_AT, until=RECEIVED_AT + DAY, why="it leaked", occurred_at=NOW
    )
    words = [discarded(aside, 1), redacted(gone, 2), excluded]
    await store(broker, [aside, gone, doubted, *(delivery_of(word, "cli", NOW) for word in words)])
    await project_all(broker, engine)
    before = await snapshot(engine)
    await trim(broker, 7)

    found = await verify(broker, database)
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
    await store(broker, [replace(doubted, identity="late")])
    await project_all(broker, engine)

    assert [] == differing(found)
    assert {"discarded": 2, "redacted": 1, "projected": 3} == found_by_status(before)
    after = await snapshot(engine)
    assert {"discarded": 3, "redacted": 1, "projected": 3} == found_by_status(after)
    assert [] == differing(await verify(broker, database))


async def test_what_was_erased_is_not_trimmed(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    erased = delivery("issues", body("issues.opened.15"), 1)
    await store(broker, [erased, delivery("issues", body("issues.edited.00"), 2)])
    await store(broker, [delivery_of(redacted(erased, 1), "cli", NOW)])
    await project_all(broker, engine)
    await broker.js.delete_msg(streams.DELIVERIES, 1)

    found = await verify(broker, database)

    assert (2, 1, {}) == (found.first_seq, found.proven_from, found.taken_over)
    assert seed.sentence(found) is None
    assert [] == differing(found)


async def test_a_delivery_set_aside_whose_rows_are_not_mended_yet_asks_for_patience(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    """It shares its rows with another trimmed one: the log cannot say what is left of them without it."""
    first = delivery("issues", body("issues.edited.00"), 1)
    await store(broker, [first, delivery("issues", body("issues.edited.00"), 2)])
    await project_all(broker, engine)
    await trim(broker, 3)
    await store(broker, [delivery_of(discarded(first, 1), "cli", NOW)])

    with pytest.raises(Busy, match="try again when the projector has caught up"):
        await verify(broker, database)
    await project_all(broker, engine)
    found = await verify(broker, database)

    assert 1 == await count(engine, "deliveries", "stream_seq = 3 AND reason = 'refold_impossible'")
    assert [] == differing(found)


def found_by_status(rows: Snapshot) -> dict[str, int]:
    return dict(Counter(row["status"] for row in rows["deliveries"]))
