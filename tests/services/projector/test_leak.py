"""A leaked secret: what it vouched for counts for nothing, in whatever order that becomes known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from contracts.ledger import SecretExcluded
from contracts.own import delivery_of
from runtime import postgres
from services.projector import leak
from services.projector.exclusions import Exclusion, believed
from services.projector.leak import Span
from services.projector.rebuild import rebuild
from services.projector.settle import Known, identity_of, settle
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, parked, understand
from services.projector.write import Folded, Writer
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, SOURCES, at, body, delivery
from tests.servers import Database, Postgres, fresh_database
from tests.services.projector.rebuilding import entries, working
from tests.services.projector.running import project_all, store
from tests.services.projector.test_order_free import folded, writer
from tests.tables import count, snapshot

LEAKED, KEPT = "GITHUB_WEBHOOK_SECRET_FILE:1", "GITHUB_WEBHOOK_SECRET_2"
SINCE, UNTIL = RECEIVED_AT, RECEIVED_AT + timedelta(minutes=2)
EXCLUSION = Exclusion(LEAKED, SINCE, UNTIL)
BODIES = tuple(
    body(name)
    for name in ("issues.opened.15", "issues.edited.00", "issues.reopened.20", "issues.assigned.01")
)


def vouched(
    seq: int, raw: bytes, identity: str, secret: str | None, minutes: int, kind: str = "issues"
) -> Delivery:
    received_at = RECEIVED_AT + timedelta(minutes=minutes)
    return replace(delivery(kind, raw, seq, identity), verified_by=secret, received_at=received_at)


def word(exclusion: Exclusion = EXCLUSION, seq: int = 0) -> Delivery:
    said = leak.said(exclusion, "it stood in a build log", "ada", exclusion.until + timedelta(minutes=1))
    return at(delivery_of(said, "cli", said.occurred_at, "excluded"), seq)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Delivery]:
    """Deliveries of few identities and bodies, under two secrets, before, in and after the time of the exclusion."""
    return [
        vouched(
            seq,
            draw(st.sampled_from(BODIES)),
            draw(st.sampled_from(("a", "b", "c"))),
            draw(st.sampled_from((LEAKED, LEAKED, KEPT, None))),
            draw(st.integers(-1, 3)),
        )
        for seq in range(1, draw(st.integers(2, 7)))
    ]


@given(log=deliveries())
@settings(max_examples=40, phases=[Phase.generate])
def test_what_is_not_believed_states_nothing_and_its_refs_stay_known(log: list[Delivery]) -> None:
    for each in log:
        before = understand(SOURCES, each)
        after = believed(before, [EXCLUSION])
        covered = each.verified_by == LEAKED and SINCE <= each.received_at < UNTIL
        assert (after == before) is not covered
        if covered:
            assert ("discarded", (), ()) == (after.status, after.rows, after.statements)
            assert before.refs == after.refs
        assert after == believed(after, [EXCLUSION, EXCLUSION])


@given(log=deliveries())
@settings(max_examples=40, phases=[Phase.generate])
def test_what_settles_is_folded_only_where_it_is_believed_and_stands_first(log: list[Delivery]) -> None:
    batch = [believed(understand(SOURCES, each), [EXCLUSION]) for each in log]
    firsts = {identity_of(each): each.delivery.seq for each in reversed(batch)}
    settled = settle(batch, {}, None)
    assert sorted(firsts.values()) == sorted(each.delivery.seq for each in settled.fold)
    for each in settled.fold:
        covered = EXCLUSION.covers(each.delivery.verified_by, each.delivery.received_at)
        assert covered is (each.status == "discarded")
        assert not (covered and each.rows)


def test_an_earlier_copy_that_is_believed_is_folded_behind_one_that_is_not() -> None:
    first = understand(SOURCES, vouched(1, BODIES[0], "a", KEPT, 0))
    later = vouched(2, BODIES[0], "a", LEAKED, 0)
    known = Known(later.body_sha256, 2, "discarded", ("github:old/ref#1",), "secret_excluded")
    settled = settle([first], {identity_of(first): [known]}, None)
    assert [1] == [each.delivery.seq for each in settled.fold]
    assert "github:old/ref#1" in settled.refold


def test_one_that_could_not_take_its_place_stays_parked() -> None:
    stuck = parked(vouched(1, BODIES[0], "a", LEAKED, 0), REFOLD_IMPOSSIBLE, "the log was trimmed")
    assert stuck == believed(stuck, [EXCLUSION])


@pytest.fixture(scope="module")
async def shared(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as made:
        engine = postgres.make_engine(made.url("projector"), "test")
        yield engine
        await engine.dispose()


Batches = list[list[Delivery]]


@st.composite
def processings(draw: st.DrawFn) -> tuple[list[Delivery], Batches]:
    """Deliveries and their exclusion somewhere in one log, and batches in which all of it comes in any order."""
    log = draw(deliveries())
    log.insert(draw(st.integers(0, len(log))), word())
    log = [at(each, seq) for seq, each in enumerate(log, 1)]
    order = draw(st.permutations([*log, *log[:2]]))
    size = draw(st.sampled_from((1, 2, 3, len(order))))
    return log, [list(order[start : start + size]) for start in range(0, len(order), size)]


@pytest.mark.anyio
@given(processing=processings())
@settings(max_examples=12, phases=[Phase.generate])
async def test_any_order_of_deliveries_and_their_exclusion_gives_the_same_rows(
    processing: tuple[list[Delivery], Batches], shared: AsyncEngine
) -> None:
    log, batches = processing
    in_order = await folded(shared, log, [[each] for each in log])
    assert in_order == await folded(shared, log, batches)

    await writer(shared, log).refold({ref for row in in_order["deliveries"] for ref in row["refs"] or ()})
    assert in_order == await snapshot(shared)


LOG = (
    vouched(0, BODIES[0], "before", LEAKED, -1),
    vouched(0, BODIES[1], "amid", LEAKED, 0),
    vouched(0, BODIES[2], "kept", KEPT, 1),
    vouched(0, body("pull_request.opened.00"), "alone", LEAKED, 1, "pull_request"),
    vouched(0, b"no json", "parked", LEAKED, 1),
    vouched(0, BODIES[3], "after", LEAKED, 2),
)
DISCARDED = "status = 'discarded' AND reason = 'secret_excluded'"


@pytest.mark.anyio
@pytest.mark.parametrize("place", [0, 3, len(LOG)], ids=["before them", "amid", "after"])
async def test_a_projector_ends_what_was_stored_and_a_rebuild_agrees(
    broker: Broker, database: Database, engine: AsyncEngine, place: int
) -> None:
    await store(broker, LOG[:place])
    await project_all(broker, engine)
    async with working(broker, database) as work:
        stored = await leak.store(work, _event())
        await store(broker, LOG[place:])
        await project_all(broker, engine)

        assert 3 == await count(engine, "deliveries", DISCARDED)
        assert 0 == await count(engine, "work_items", "kind = 'pull_request'")
        assert 1 == await count(
            engine, "deliveries", f"{DISCARDED} AND identity = 'alone' AND cardinality(refs) > 0"
        )
        found = await rebuild(work, limit=5, dry_run=True)
        assert [] == [each for each in found.compared if not each.equal]

        before = await snapshot(engine)
        covered = await entries(work, DISCARDED)
        await leak.fold(work, stored)
        assert [] == [
            each for entry in covered for each in await _retry(work.writer("ops"), entry.stream_seq)
        ]
        await work.writer("ops").refold((), covered)
        assert before == await snapshot(engine)


async def _retry(folding: Writer, seq: int) -> list[Understood]:
    """What is published when the delivery at `seq` is retried, by a list that is older than the exclusion."""
    published: list[Understood] = []

    async def publish(folded: Folded) -> None:
        published.extend(each for each in folded.deliveries if each.statements)

    await folding.retry([understand(SOURCES, await folding.read_log(seq))], publish)
    return published


def _event() -> SecretExcluded:
    return leak.said(EXCLUSION, "it stood in a build log", "ada", UNTIL + timedelta(minutes=1))


@pytest.mark.anyio
async def test_what_would_change_is_what_then_changes_and_who_was_told_is_named(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, LOG)
    await project_all(broker, engine)
    span = Span(LEAKED, SINCE, UNTIL)
    async with working(broker, database) as work:
        async with work.engine.connect() as connection:
            found = await leak.audit(connection, span, 10)
        before = await snapshot(engine)
        deliveries, compared = await leak.without(work, EXCLUSION, 10)
        assert before == await snapshot(engine)
        assert await leak.fold(work, await leak.store(work, _event()))

    assert {"work_item.opened": 1, "work_item.updated": 1} == found.told.events
    assert (3, 3) == (found.deliveries, deliveries)
    assert found.alone == 1
    (items,) = [each for each in compared if each.model == "work_items"]
    was, is_ = (
        {row["work_item_ref"]: row for row in rows["work_items"]} for rows in (before, await snapshot(engine))
    )
    assert (
        [*found.refs_alone]
        == sorted(was.keys() - is_.keys())
        == [each.key["work_item_ref"] for each in items.differences if each.log is None]
    )
    assert (1, sum(was[ref] != row for ref, row in is_.items())) == (items.extra, items.changed)
