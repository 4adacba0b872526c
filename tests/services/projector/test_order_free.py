"""One log gives one set of rows: in any order, with any duplication, cut into any batches, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import own
from contracts.delivery import Delivery
from contracts.polls import PollFinished, listing, moment_of_end
from read_models.merge import join_all
from read_models.registry import READ_MODELS
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.samples import RECEIVED_AT, SOURCES, at, log, paths
from tests.servers import Postgres, fresh_database
from tests.tables import SQL, Snapshot, empty, snapshot

EVERY = log(paths())
# Bodies that speak of one thing, so that statements meet: many share one second.
FAMILIES = (
    paths("issues", "issue_comment"),
    paths("pull_request"),
    paths("workflow_run", "workflow_job"),
    paths("deployment", "deployment_status"),
    paths(),
)
POLLS = (None, None, None, *paths("issues")[:2])
"""Of a scope, and of its source's webhooks."""


EVERY_FAMILY = (*FAMILIES, POLLS)
Families = Sequence[Sequence[Path | None]]

SCOPE = ("digitalocean", "droplets")
BEGAN = RECEIVED_AT - timedelta(hours=2)


def polled(draw: st.DrawFn, seq: int) -> Delivery:
    """A poll of one scope has ended, or has listed it."""
    began = BEGAN + timedelta(minutes=draw(st.integers(0, 2)))
    run = draw(st.sampled_from("ab"))
    if draw(st.booleans()):
        shown = draw(st.sampled_from(([], ["digitalocean:droplet/1"])))
        [event] = listing(*SCOPE, began, {"droplet": shown})
        return at(own.delivery_of(event, "poll", RECEIVED_AT), seq, f"listing-{run}-{seq}")
    status: Any = draw(st.sampled_from(("success", "failed")))
    ended = PollFinished(
        source=SCOPE[0],
        ref=f"digitalocean:poll/{run}",
        moment=moment_of_end(began + timedelta(minutes=1)),
        fact=status,
        occurred_at=began + timedelta(minutes=1),
        run_id=run,
        scope=SCOPE[1],
        triggered_by="cron",
        status=status,
        started_at=began,
        finished_at=began + timedelta(minutes=1),
        stale_after_s=draw(st.sampled_from((None, 60, 7_200))),
    )
    return at(own.delivery_of(ended, "poll", RECEIVED_AT), seq, f"poll-{run}-{seq}")


KINDS = ("new", "new", "copy", "copy under another header", "redelivered", "conflict")


@st.composite
def logs(draw: st.DrawFn, families: Families = EVERY_FAMILY, kinds: Sequence[str] = KINDS) -> list[Delivery]:
    """A short log of real deliveries with re-deliveries, copies and conflicting bodies among them."""
    family = draw(st.sampled_from(families))
    chosen = draw(st.lists(st.sampled_from(family), min_size=1, max_size=7))
    made: list[Delivery] = []
    for seq, path in enumerate(chosen, 1):
        fresh = polled(draw, seq) if path is None else log([path], seq)[0]
        earlier = draw(st.sampled_from(made)) if made else None
        kind = draw(st.sampled_from(kinds)) if earlier else "new"
        if earlier is None or kind == "new":
            made.append(fresh)
        elif kind == "copy":
            made.append(at(earlier, seq))
        elif kind == "copy under another header" and earlier.headers:
            # The event's header is not signed, and secrets rotate.
            other = draw(st.sampled_from(("push", "issues", "sponsorship")))
            kept = {**earlier.headers, "x-github-event": other}
            made.append(
                replace(at(earlier, seq), kind=other, headers=kept, verified_by="GITHUB_WEBHOOK_SECRET_2")
            )
        elif kind == "redelivered":
            made.append(at(earlier, seq, f"guid-again-{seq}"))
        else:
            made.append(replace(at(fresh, seq, earlier.identity), source=earlier.source))
    return made


@st.composite
def processings(
    draw: st.DrawFn, families: Families = EVERY_FAMILY, kinds: Sequence[str] = KINDS
) -> tuple[list[Delivery], list[list[Delivery]]]:
    """A log, and batches in which all of it is delivered at least once, in some order, some of it again."""
    entries = draw(logs(families, kinds))
    again = draw(st.lists(st.sampled_from(entries), max_size=4))
    order = draw(st.permutations([*entries, *again]))
    batches: list[list[Delivery]] = [[]]
    for entry in order:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(entry)
    return entries, [batch for batch in batches if batch]


@pytest.fixture(scope="module")
async def engine(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


def writer(engine: AsyncEngine, entries: Sequence[Delivery]) -> Writer:
    by_seq = {entry.seq: entry for entry in entries}

    async def read(seq: int) -> Delivery:
        return by_seq[seq]

    return Writer(engine, SQL, SOURCES, read)


async def folded(
    engine: AsyncEngine, entries: Sequence[Delivery], batches: Sequence[Sequence[Delivery]]
) -> Snapshot:
    await empty(engine)
    folding = writer(engine, entries)
    for batch in batches:
        await folding.fold([understand(SOURCES, entry) for entry in _once(batch)])
    return await snapshot(engine)


def _once(batch: Sequence[Delivery]) -> list[Delivery]:
    """A pull hands out each message once at a time; the same one again comes in a later batch."""
    return list({entry.seq: entry for entry in batch}.values())


@pytest.mark.anyio
@given(processing=processings((POLLS,), ("new", "conflict", "conflict")))
@settings(max_examples=12, phases=[Phase.generate])
async def test_any_processing_of_polls_and_listings_gives_the_same_rows(
    processing: tuple[list[Delivery], list[list[Delivery]]], engine: AsyncEngine
) -> None:
    """Bodies of theirs are in conflict, too, and what the later one said of a scope goes with it."""
    entries, batches = processing

    assert await folded(engine, entries, [[e] for e in entries]) == await folded(engine, entries, batches)


@pytest.mark.anyio
@given(processing=processings())
@settings(max_examples=12, phases=[Phase.generate])
async def test_any_processing_of_a_log_gives_the_same_rows(
    processing: tuple[list[Delivery], list[list[Delivery]]], engine: AsyncEngine
) -> None:
    entries, batches = processing

    assert await folded(engine, entries, [[e] for e in entries]) == await folded(engine, entries, batches)


@pytest.mark.anyio
@given(processing=processings())
@settings(max_examples=15, phases=[Phase.generate])
async def test_refolding_every_ref_changes_nothing(
    processing: tuple[list[Delivery], list[list[Delivery]]], engine: AsyncEngine
) -> None:
    entries, batches = processing
    before = await folded(engine, entries, batches)
    refs = {ref for row in before["deliveries"] for ref in row["refs"] or ()}

    await writer(engine, entries).refold(refs)

    assert before == await snapshot(engine)


@given(data=st.data())
@settings(max_examples=12, phases=[Phase.generate])
def test_any_order_in_python_gives_the_same_rows(data: st.DataObject) -> None:
    entries = data.draw(logs())
    rows = [row for entry in entries for row in understand(SOURCES, entry).rows]
    shuffled = data.draw(st.permutations(rows + rows[:3]))

    for model in READ_MODELS:
        in_order = join_all(model, [row for name, row in rows if name == model.name])
        assert in_order == join_all(model, [row for name, row in shuffled if name == model.name])


@pytest.mark.anyio
async def test_one_batch_of_every_sample_equals_one_by_one(engine: AsyncEngine) -> None:
    assert await folded(engine, EVERY, [[e] for e in EVERY]) == await folded(engine, EVERY, [EVERY])
