"""Erasing on real servers: nothing that we keep holds the text any more, and the tables are what the log says."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.delivery import Delivery
from contracts.ledger import KEPT_REFS_MAX
from runtime import bus, postgres, streams
from runtime.streams import DELIVERIES, EVENTS, INLINE_BODY_BYTES_MAX
from services.notifier import memory
from services.notifier.memory import Entry, Key
from services.projector import redact, retry, shadow
from services.projector.blocks import Until
from services.projector.rebuild import rebuild
from services.projector.redact import (
    Disagreement,
    Done,
    Plan,
    Selection,
    Target,
    of_delivery,
    of_ref,
    of_sequence,
)
from services.projector.replaying import Replay
from services.projector.retry import RetryRunning
from services.projector.shadow import About
from services.projector.work import RebuildRunning, Work, alone
from tests import samples
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.rebuilding import working
from tests.services.projector.running import project_all
from tests.tables import count

pytestmark = pytest.mark.anyio

REF = "github:Codertocat/Hello-World#15"
MARK = "Zq7mPersonalWx42"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("admin"), "test")
    yield made
    await made.dispose()


def issue(identity: str, title: str = MARK, number: int = 15, minute: int = 0, filler: str = "") -> Delivery:
    """An issue that GitHub tells of, `minute` minutes after noon."""
    said = json.loads(samples.body("issues.opened.15"))
    at = NOON + timedelta(minutes=minute)
    said["issue"] |= {"title": title, "number": number, "body": title + filler}
    said["issue"]["updated_at"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    made = samples.delivery("issues", json.dumps(said).encode(), 0, identity)
    return replace(made, received_at=at)


def broken(identity: str) -> Delivery:
    """One that nobody understands, whose own words may stand in what is said of it."""
    made = samples.delivery("issues", json.dumps({"action": MARK, MARK: 1}).encode(), 0, identity)
    return replace(made, received_at=NOON)


async def stored(broker: Broker, *deliveries: Delivery) -> None:
    """In the log, in this order; small ones by ids that the broker has not seen, so that it takes copies."""
    for each in deliveries:
        data, headers = each.body, wire.to_headers(each)
        if len(data) > INLINE_BODY_BYTES_MAX:
            await bus.store_delivery(broker.js, each)
            continue
        headers[wire.MESSAGE_ID] = uuid4().hex
        await broker.js.publish(each.subject, data, headers=headers)


async def places_of(broker: Broker, engine: AsyncEngine, mark: str = MARK) -> set[str]:
    """Every table and every stream in which a text stands, by name."""
    found = set()
    tables = text(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
        " WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    async with engine.connect() as connection:
        for (table,) in (await connection.execute(tables)).all():
            holds = text(f"SELECT EXISTS (SELECT FROM {table} AS t WHERE CAST(t AS text) LIKE :like)")
            if (await connection.execute(holds, {"like": f"%{mark}%"})).scalar():
                found.add(table)
    for stream in await broker.js.streams_info():
        name, state = str(stream.config.name), stream.state
        for seq in range(state.first_seq, state.last_seq + 1):
            try:
                message = await broker.js.get_msg(name, seq)
            except Exception:  # erased
                continue
            data = message.data or b""
            if name == streams.BODIES_STREAM and data[:1] == b"\x78":
                data = zlib.decompressobj().decompress(data)
            if mark.encode() in data or mark in str(message.headers) or mark in (message.subject or ""):
                found.add(name)
    return found


async def erase(work: Work, selection: Selection) -> tuple[Plan, Done]:
    plan = await redact.look(work, selection)
    return plan, await redact.redact(work, plan, "mona", "a request to erase")


async def differences(work: Work) -> list[object]:
    """Where the tables are not what the log says."""
    found = await rebuild(work, limit=5, dry_run=True)
    return [each for each in found.compared if not each.equal]


async def notified(engine: AsyncEngine, event_id: str, ref: str) -> None:
    """A message of the notifier's about an event."""
    async with engine.begin() as connection:
        entry = Entry(
            key=Key("slack:C1", ref, event_id),
            message_id=event_id,
            event_id=event_id,
            text=MARK,
            blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": MARK}}],
            channel="C1",
            occurred_at=NOON,
        )
        await memory.enter(connection, entry)
        await memory.mark(connection, entry.key, "posted", slack_ts="17.1", last_error=MARK)


async def test_no_table_and_no_stream_holds_what_was_said_of_a_ref(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(
        broker,
        issue("first"),
        issue("other", "kept", number=16),
        issue("large", minute=1, filler="x" * INLINE_BODY_BYTES_MAX),
    )
    await project_all(broker, engine)
    event = await broker.js.get_msg(EVENTS, 1)
    await notified(engine, (event.headers or {})["ce-id"], "some other name of it")
    await notified(engine, "of an event that nobody has any more", REF)
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
        await rebuild(work, ["work_items"], limit=0, dry_run=False)
        await shadow.make(work.engine, "ops_asof", About("as_of", NOON.isoformat()))
        await Replay(work, "ops_asof", until=Until(NOON)).run()
        kept = {place for place in await places_of(broker, engine) if place.startswith("ops_before_")}
        assert {"work_items", "platform_events"} == {place.split(".")[1] for place in kept}
        everywhere = {
            DELIVERIES,
            EVENTS,
            streams.BODIES_STREAM,
            "ops.work_items",
            "ops_asof.work_items",
            "notify.messages",
        }
        assert everywhere <= await places_of(broker, engine)

        plan, done = await erase(work, of_ref(REF))

        assert set() == await places_of(broker, engine)
        assert [] == await differences(work)
    assert [2, 2] == [len(plan.targets), len(plan.notices)]
    expected = {
        "ops": 2,
        "kept tables": 3,
        "notify.messages": 2,
        EVENTS: 2,
        streams.BODIES_STREAM: 1,
        DELIVERIES: 2,
    }
    assert expected == done.counts
    assert [] == list(done.notes)
    assert 1 == await count(engine, "work_items")
    assert 2 == await count(engine, "deliveries", f"status = 'redacted' AND refs @> ARRAY['{REF}']")


SCENARIOS = {
    "the first of two deliveries of a ref": (of_delivery("github", "early"), 1),
    "a conflict, and with it the body that came first": (of_delivery("github", "twice"), 2),
    "a parked one": (of_delivery("github", "broken"), 1),
    "a large one": (of_delivery("github", "large"), 1),
    "one with several copies": (of_delivery("github", "copied"), 3),
    "one by the place of its last copy": (of_sequence(12), 2),
    "the newest of its source": (of_delivery("github", "newest"), 1),
}


async def test_a_rebuild_finds_the_same_rows_after_every_kind_of_redaction(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    copied, again = issue("copied", number=4), issue("again", number=5)
    await stored(
        broker,
        issue("early", number=1),
        issue("late", "kept", number=1, minute=1),
        issue("twice", number=2),
        issue("twice", f"{MARK}, differently", number=2),
        broken("broken"),
        issue("large", number=3, filler="x" * INLINE_BODY_BYTES_MAX),
        copied,
        replace(copied, received_at=NOON + timedelta(minutes=2)),
        again,
        replace(copied, received_at=NOON + timedelta(minutes=3)),
        issue("kept", "kept", number=7),
        replace(again, received_at=NOON + timedelta(minutes=4)),
        issue("newest", number=6, minute=5),
    )
    await project_all(broker, engine)
    async with working(broker, database) as work:
        for name, (selection, messages) in SCENARIOS.items():
            _, done = await erase(work, selection)
            assert messages == done.counts[DELIVERIES], name
        assert [] == await differences(work)
        assert set() == await places_of(broker, engine)
        await project_all(broker, engine)  # the words come to the projector too
        assert [] == await differences(work)
    assert 8 == await count(engine, "deliveries", "status = 'redacted'")
    assert 1 == await count(engine, "freshness", "last_webhook_at = '2026-11-01T12:05Z'")


class _Killed(Exception):
    """as far as the process came"""


async def _die(*_: object) -> int:
    raise _Killed


async def test_what_was_interrupted_anywhere_is_finished_by_the_same_command(
    broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = redact.PLACES
    for n in range(len(places)):
        await stored(broker, issue(f"killed-{n}", number=n, filler="x" * INLINE_BODY_BYTES_MAX))
    await project_all(broker, engine)
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT event_id, ref FROM ops.platform_events"))
        for event_id, ref in rows.all():
            await notified(engine, event_id, f"about {ref}")
    async with working(broker, database) as work:
        await rebuild(work, limit=0, dry_run=False)
        for n, (name, _) in enumerate(places):
            selection = of_delivery("github", f"killed-{n}")
            monkeypatch.setattr(redact, "PLACES", (*places[:n], (name, _die), *places[n + 1 :]))
            with pytest.raises(_Killed):
                await erase(work, selection)
            if n % 2:
                await project_all(broker, engine)
            monkeypatch.setattr(redact, "PLACES", places)
            await erase(work, selection)
        assert set() == await places_of(broker, engine)
        await project_all(broker, engine)
        assert [] == await differences(work)
    words = "source = 'odooops' AND kind = 'delivery.redacted'"
    assert len(places) == await count(engine, "deliveries", f"{words} AND status = 'projected'")


@pytest.mark.parametrize("who", ["operator", "projector"])
async def test_it_goes_though_other_deliveries_of_the_ref_were_trimmed(
    broker: Broker, database: Database, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    lost = issue("lost", "trimmed", minute=3, filler="x" * INLINE_BODY_BYTES_MAX)
    await stored(
        broker, issue("trimmed", "trimmed"), issue("told", minute=1), issue("kept", "kept", minute=2), lost
    )
    await project_all(broker, engine)
    await broker.js.purge_stream(DELIVERIES, seq=2)
    await broker.js.purge_stream(streams.BODIES_STREAM)
    async with working(broker, database) as work:
        if who == "projector":
            monkeypatch.setattr(redact, "PLACES", (("nowhere", _die),))
            with pytest.raises(_Killed):
                await erase(work, of_delivery("github", "told"))
            await project_all(broker, engine)
        else:
            plan, _ = await erase(work, of_delivery("github", "told"))
            assert [3, 1] == [plan.shared[0].others, plan.shared[0].trimmed]
    assert 1 == await count(engine, "work_items", "title = 'kept'")
    assert 1 == await count(engine, "deliveries", "status = 'redacted'")
    assert 0 == await count(engine, "deliveries", "status = 'parked'")


async def test_one_that_is_sent_again_is_not_folded_and_its_body_goes_by_the_same_command(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    sent = issue("sent")
    await stored(broker, sent)
    await project_all(broker, engine)
    async with working(broker, database) as work:
        await erase(work, of_ref(REF))
        await stored(broker, replace(sent, received_at=NOON + timedelta(days=1)))
        await project_all(broker, engine)
        assert {DELIVERIES} == await places_of(broker, engine)
        assert [] == await differences(work)

        _, done = await erase(work, of_ref(REF))

        assert 1 == done.counts[DELIVERIES]
        assert set() == await places_of(broker, engine)
        assert [] == await differences(work)
        await erase(work, of_ref(REF))
        assert [] == await differences(work)
    assert 2 == await count(engine, "deliveries", "kind = 'delivery.redacted'")


async def test_one_that_the_projector_has_yet_to_fold_again_goes_too(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"))
    await project_all(broker, engine)
    await stored(broker, issue("sent"))
    async with working(broker, database) as work:
        _, done = await erase(work, of_ref(REF))
        assert 2 == done.counts[DELIVERIES]
        assert set() == await places_of(broker, engine)
        await project_all(broker, engine)
        assert [] == await differences(work)


async def test_what_a_leaked_secret_vouched_for_and_listings_are_told_apart(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"), issue("excluded", minute=1))
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE ops.deliveries SET status = 'discarded' WHERE identity = 'excluded'")
        )
        columns = "source, identity, body_sha256, kind, received_at, stream_seq, last_seq, refs"
        values = f"'odooops', 'run', 'hash', 'listing.completed', now(), 9, 9, ARRAY['{REF}']"
        await connection.execute(text(f"INSERT INTO ops.deliveries ({columns}) VALUES ({values})"))
    async with working(broker, database) as work:
        plan = await redact.look(work, of_ref(REF))
    assert ["sent", "excluded"] == [each.identity for each in plan.targets]


async def test_looking_writes_nothing_and_a_rebuild_that_runs_is_not_disturbed(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"))
    await project_all(broker, engine)
    async with working(broker, database) as work:
        plan = await redact.look(work, of_ref(REF))
        async with alone(work.engine):
            with pytest.raises(RebuildRunning):
                await redact.redact(work, plan, "mona", "a request to erase")
    assert 1 == (await broker.js.stream_info(DELIVERIES)).state.last_seq
    assert 1 == await count(engine, "work_items", f"title = '{MARK}'")


async def test_nothing_is_erased_by_a_ledger_that_belongs_to_another_log(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"), issue("other", number=16))
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ops.deliveries SET stream_seq = 2 WHERE identity = 'sent'"))
    async with working(broker, database) as work:
        with pytest.raises(Disagreement, match=r"at sequence 2 .* stands github:other"):
            await redact.look(work, of_ref(REF))


async def test_nothing_is_erased_where_the_word_of_it_would_not_be_understood(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"))
    await project_all(broker, engine)
    async with working(broker, database) as work:
        without = {name: source for name, source in work.sources.items() if name != "odooops"}
        with pytest.raises(Disagreement, match="github:sent is erased was stored and is not understood"):
            await erase(replace(work, sources=without), of_ref(REF))
    assert {DELIVERIES, EVENTS, "ops.work_items"} <= await places_of(broker, engine)


async def test_equal_bodies_of_other_deliveries_are_spared(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    large = issue("one", filler="x" * INLINE_BODY_BYTES_MAX)
    await stored(broker, large, replace(large, identity="two"))
    await project_all(broker, engine)
    async with working(broker, database) as work:
        await erase(work, of_delivery("github", "one"))
        assert [] == await differences(work)
    assert large.body == (await bus.read_delivery(broker.js, 2)).body


def test_a_word_names_the_ref_by_which_its_delivery_was_found_however_many_there_are() -> None:
    refs = [f"{REF}{n:04}" for n in range(KEPT_REFS_MAX + 1)]
    target = Target(
        source="github",
        identity="wide",
        body_sha256="0" * 64,
        kind="push",
        via="webhook",
        verified_by=None,
        body_bytes=1,
        received_at=NOON,
        stream_seq=1,
        last_seq=1,
        status="projected",
        refs=refs,
    )

    kept = [
        json.loads(redact._word(target, {1: NOON}, "mona", "a test", NOON, asked).body)["refs"]
        for asked in (None, refs[0], refs[-1])
    ]

    assert [refs[:-1], refs[:-1], [refs[-1], *refs[: KEPT_REFS_MAX - 1]]] == kept


async def test_while_a_retry_may_publish_what_it_has_read_nothing_is_erased(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await stored(broker, issue("sent"))
    await project_all(broker, engine)
    async with working(broker, database) as work:
        plan = await redact.look(work, of_ref(REF))
        async with work.engine.connect() as connection, retry.alone(connection):
            with pytest.raises(RetryRunning):
                await redact.redact(work, plan, "mona", "a request to erase")
        assert {DELIVERIES, EVENTS, "ops.work_items"} <= await places_of(broker, engine)

        await redact.redact(work, plan, "mona", "a request to erase")

    assert set() == await places_of(broker, engine)
