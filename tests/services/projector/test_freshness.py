"""When a source was last heard of: by webhook whatever became of it, and by polls."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import own
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.polls import PollFinished, listing, moment_of_cut_off, moment_of_end
from contracts.version import Moment
from providers.port import Source
from read_models.registry import FRESHNESS, READ_MODELS
from runtime.postgres import make_engine
from services.projector.understand import parked, understand
from services.projector.write import Writer
from tests.samples import RECEIVED_AT, SOURCES, at, body, delivery
from tests.servers import Postgres, fresh_database
from tests.tables import SQL, empty

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
OPENED, EDITED = body("issues.opened.15"), body("issues.edited.00")


@pytest.fixture(scope="module")
async def server(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


@pytest.fixture
async def engine(server: AsyncEngine) -> AsyncEngine:
    await empty(server)
    return server


def writer(engine: AsyncEngine, entries: Sequence[Delivery] = ()) -> Writer:
    by_seq = {entry.seq: entry for entry in entries}

    async def read(seq: int) -> Delivery:
        return by_seq[seq]

    return Writer(engine, SQL, SOURCES, read)


async def fold(
    engine: AsyncEngine, *batches: Sequence[Delivery], sources: Mapping[str, Source] = SOURCES
) -> None:
    for batch in batches:
        folding = replace(writer(engine), sources=sources)
        await folding.fold([understand(sources, each) for each in batch])


def later(given: Delivery, hours: int) -> Delivery:
    return replace(given, received_at=RECEIVED_AT + timedelta(hours=hours))


def test_it_is_the_last_table_that_a_transaction_touches() -> None:
    """Every batch of a source writes the same row: whoever holds it keeps the other projectors waiting."""
    assert FRESHNESS is READ_MODELS[-1]


async def last_webhook(engine: AsyncEngine, source: str = "github") -> datetime | None:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT last_webhook_at FROM ops.freshness WHERE source = :source AND scope = 'webhooks'"),
            {"source": source},
        )
        value: datetime | None = found.scalar_one_or_none()
        return value


WHATEVER: dict[str, Delivery] = {
    "projected": delivery("issues", OPENED, 9),
    "ignored": delivery("sponsorship", OPENED, 9),
    "parked": delivery("issues", b"{", 9),
    "in conflict": delivery("issues", EDITED, 9, "guid-1"),
    "a duplicate": delivery("issues", OPENED, 9, "guid-1"),
}


@pytest.mark.parametrize("what", WHATEVER)
async def test_a_webhook_counts_as_heard_whatever_becomes_of_it(engine: AsyncEngine, what: str) -> None:
    await fold(engine, [delivery("issues", OPENED, 1)], [later(WHATEVER[what], 1)])

    assert RECEIVED_AT + timedelta(hours=1) == await last_webhook(engine)


async def test_a_delivery_that_postgres_refused_counts_as_heard(engine: AsyncEngine) -> None:
    poison = parked(delivery("issues", OPENED, 1), "write_refused", "its rows are refused")
    await writer(engine).fold([poison])

    assert RECEIVED_AT == await last_webhook(engine)


async def test_an_earlier_body_that_comes_late_counts_as_heard(engine: AsyncEngine) -> None:
    """It makes the transaction begin anew, as a refold."""
    log = [delivery("issues", EDITED, 1, "same"), delivery("issues", OPENED, 2, "same")]
    for entry in (log[1], later(log[0], 1)):
        await writer(engine, log).fold([understand(SOURCES, entry)])

    assert RECEIVED_AT + timedelta(hours=1) == await last_webhook(engine)


async def test_what_comes_late_does_not_make_a_source_older(engine: AsyncEngine) -> None:
    await fold(engine, [later(delivery("issues", OPENED, 2), 5)], [delivery("issues", EDITED, 1)])

    assert RECEIVED_AT + timedelta(hours=5) == await last_webhook(engine)


@pytest.mark.parametrize("via", ["poll", "cli", "job", "gate", "ssot"])
async def test_only_a_webhook_proves_that_webhooks_arrive(engine: AsyncEngine, via: Any) -> None:
    await fold(engine, [replace(delivery("issues", OPENED, 1), via=via)])

    assert None is await last_webhook(engine)


async def test_a_refold_leaves_it_alone(engine: AsyncEngine) -> None:
    log = [delivery("issues", OPENED, 1), ended(2, "success")]
    folding = writer(engine, log)
    await folding.fold([understand(SOURCES, each) for each in log])
    before = await everything(engine)

    read = await folding.refold({ref for each in log for ref in understand(SOURCES, each).refs})

    assert 2 == read
    assert before == await everything(engine) != []


async def test_what_a_demoted_body_said_of_a_scope_goes_with_it(engine: AsyncEngine) -> None:
    """Of two bodies of one identity the earlier counts, and its transaction comes second here."""
    pairs = (
        [ended(1, "success", began=-9, run="one"), ended(2, "failed", began=-1, stale_after_s=60, run="one")],
        [listed(1, began=-9)[0], listed(2, began=-1)[0]],
    )
    for pair in pairs:
        log = [delivery("issues", OPENED, 3), *(replace(each, identity="same") for each in pair)]
        folding, found = writer(engine, log), []
        for order in itertools.permutations(log):
            await empty(engine)
            for each in order:
                await folding.fold([understand(SOURCES, each)])
            found.append(await everything(engine))
        assert all(each == found[0] for each in found)
        assert RECEIVED_AT == await last_webhook(engine)


async def everything(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT * FROM ops.freshness ORDER BY source, scope"))
        return [tuple(row) for row in found]


# Polls. `began` and `after` are hours; a run ends some hours after it began.


def ended(
    seq: int,
    status: Any,
    began: float = -1.0,
    after: float = 0.1,
    stale_after_s: int | None = 7_200,
    moment: Moment | None = None,
    run: str | None = None,
) -> Delivery:
    """The end of a poll of the scope `droplets`, at `seq` of the log."""
    started_at, finished_at = NOW + timedelta(hours=began), NOW + timedelta(hours=began + after)
    run_id = run or f"run-{seq}"
    return said(
        seq,
        PollFinished(
            source="digitalocean",
            ref=f"digitalocean:poll/{run_id}",
            moment=moment or moment_of_end(finished_at),
            fact=status,
            occurred_at=finished_at,
            run_id=run_id,
            scope="droplets",
            triggered_by="cron",
            status=status,
            started_at=started_at,
            finished_at=finished_at,
            error=None if status == "success" else f"it went wrong {began:g} h from now",
            stale_after_s=stale_after_s,
        ),
    )


def listed(seq: int, began: float = -1.0, parts: int = 1) -> list[Delivery]:
    """A listing of the scope `droplets`, from `seq` of the log on."""
    kinds = {f"kind_{n}": ["a"] for n in range(parts)}
    events = listing("digitalocean", "droplets", NOW + timedelta(hours=began), kinds)
    return [said(seq + n, event) for n, event in enumerate(events)]


def said(seq: int, event: Event) -> Delivery:
    return at(own.delivery_of(event, "poll", NOW), seq)


STATES: list[tuple[str, list[Delivery]]] = [
    ("fresh", [ended(1, "success")]),
    ("fresh", [ended(1, "success", began=-30), ended(2, "success")]),
    ("fresh", [ended(1, "failed", began=-2), ended(2, "success", began=-1)]),
    ("fresh", [ended(1, "success", began=-30), *listed(2)]),
    ("stale", [ended(1, "success", began=-3)]),
    ("stale", [ended(1, "success", began=-1, stale_after_s=60)]),
    (
        "stale",
        [ended(1, "success", began=-3, stale_after_s=7_200), ended(2, "success", -4, stale_after_s=2**62)],
    ),
    ("failing", [ended(1, "failed")]),
    ("failing", [ended(1, "partial")]),
    ("failing", [ended(1, "success", began=-2), ended(2, "failed", began=-1)]),
    # Failed since, and nobody succeeded for so long that it is stale as well.
    ("failing", [ended(1, "success", began=-30), ended(2, "failed", began=-1)]),
    ("unknown", [ended(1, "success", stale_after_s=None)]),
    ("unknown", listed(1)),
    ("fresh", [ended(1, "success", stale_after_s=2**63 - 1)]),
]


@pytest.mark.parametrize(("state", "history"), STATES)
async def test_a_scope_is_in_one_state_in_whatever_order_its_polls_are_folded(
    engine: AsyncEngine, state: str, history: list[Delivery]
) -> None:
    for order in itertools.permutations(history):
        await empty(engine)
        await fold(engine, *([each] for each in order))
        assert state == (await now(engine))["state"], [each.seq for each in order]


async def now(engine: AsyncEngine, scope: str = "droplets") -> dict[str, Any]:
    async with engine.connect() as connection:
        return await now_on(connection, scope)


async def now_on(connection: AsyncConnection, scope: str = "droplets") -> dict[str, Any]:
    statement = text("SELECT * FROM ops.freshness_now WHERE scope = :scope")
    found = await connection.execute(statement, {"scope": scope})
    return dict(found.mappings().one())


async def test_only_the_last_part_of_a_listing_completes_it(engine: AsyncEngine) -> None:
    first, second, last = listed(1, parts=3)
    await fold(engine, [second, first])
    async with engine.connect() as connection:
        assert 0 == (await connection.execute(text("SELECT count(*) FROM ops.freshness"))).scalar_one()
    await fold(engine, [last])

    assert NOW - timedelta(hours=1) == (await now(engine))["last_listing_at"]


async def test_a_poll_that_lists_nothing_completes_no_listing(engine: AsyncEngine) -> None:
    """A poll that asked for what is new has succeeded, and what it did not show is still there."""
    await fold(engine, [ended(1, "success")])
    row = await now(engine)

    assert (NOW - timedelta(hours=1), None) == (row["last_complete_poll_at"], row["last_listing_at"])


async def test_the_newest_error_stands_and_says_when(engine: AsyncEngine) -> None:
    history = [ended(1, "failed", began=-5), ended(2, "partial", began=-3), ended(3, "success", began=-1)]
    for order in itertools.permutations(history):
        await empty(engine)
        await fold(engine, order)
        row = await now(engine)
        assert ("it went wrong -3 h from now", NOW - timedelta(hours=2.9)) == (
            row["last_error"],
            row["last_error_at"],
        )


async def test_a_run_that_was_given_up_too_early_does_not_leave_its_scope_failing(
    engine: AsyncEngine,
) -> None:
    given_up = ended(1, "failed", after=0.9, moment=moment_of_cut_off(NOW), run="slow")
    its_own_end = ended(2, "success", after=0.5, run="slow")
    for order in ([given_up, its_own_end], [its_own_end, given_up]):
        await empty(engine)
        await fold(engine, *([each] for each in order))
        assert "fresh" == (await now(engine))["state"]


async def test_an_error_of_a_run_that_was_closed_by_somebody_else_is_the_newest_if_it_is(
    engine: AsyncEngine,
) -> None:
    """Within a run its own end outranks that; between runs time alone decides."""
    await fold(
        engine,
        [ended(1, "failed", began=-5), ended(2, "failed", began=-2, moment=moment_of_cut_off(NOW))],
    )
    assert "it went wrong -2 h from now" == (await now(engine))["last_error"]


async def test_a_source_that_posts_is_unknown_where_nobody_says_how_often_it_should(
    engine: AsyncEngine,
) -> None:
    await fold(engine, [replace(delivery("issues", OPENED, 1), received_at=NOW)], sources=quiet(None))
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT state, age_s FROM ops.freshness_now"))
        state, age_s = found.one()

    assert "unknown" == state
    assert 0 <= age_s < 600


def quiet(quiet_s_max: int | None) -> dict[str, Source]:
    """The sources, where GitHub may be quiet for so long."""
    github = SOURCES["github"]
    file = github.file.model_copy(update={"quiet_s_max": quiet_s_max})
    return {**SOURCES, "github": replace(github, file=file)}


@pytest.mark.parametrize(
    ("quiet_s_max", "hours", "state"),
    [(7_200, 1, "fresh"), (7_200, 3, "stale"), (None, 3, "unknown"), (7_200, -0.5, "fresh")],
)
async def test_a_source_that_posts_is_stale_after_the_silence_that_its_file_names(
    engine: AsyncEngine, quiet_s_max: int | None, hours: float, state: str
) -> None:
    given = replace(delivery("issues", b"{", 1), received_at=NOW - timedelta(hours=hours))
    await fold(engine, [given], sources=quiet(quiet_s_max))
    assert state == (await now(engine, "webhooks"))["state"]


async def test_a_limit_that_was_taken_back_counts_no_more_in_whatever_order_it_is_folded(
    engine: AsyncEngine,
) -> None:
    with_limit = replace(delivery("issues", OPENED, 1), received_at=NOW - timedelta(hours=3))
    without = replace(delivery("issues", EDITED, 2), received_at=NOW - timedelta(hours=2))
    for order in itertools.permutations([(with_limit, 60), (without, None)]):
        await empty(engine)
        for given, quiet_s_max in order:
            await fold(engine, [given], sources=quiet(quiet_s_max))
        assert "unknown" == (await now(engine, "webhooks"))["state"]


def test_github_says_how_long_it_may_be_quiet_and_no_example_does() -> None:
    assert SOURCES["github"].file.quiet_s_max
    assert None is SOURCES["generic_example"].file.quiet_s_max


@pytest.mark.parametrize("column", ["last_webhook_at", "last_complete_poll_at", "last_failed_poll_at"])
async def test_what_was_heard_more_than_an_hour_from_now_says_nothing(
    engine: AsyncEngine, column: str
) -> None:
    await fold(engine, [ended(1, "success")])
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE ops.freshness SET {column} = '2099-01-01Z'"))
        assert "unknown" == (await now_on(connection))["state"]
        await connection.execute(text(f"UPDATE ops.freshness SET {column} = now() + INTERVAL '59 minutes'"))
        assert "unknown" != (await now_on(connection))["state"]


async def limit(engine: AsyncEngine) -> int | None:
    """After how many seconds of silence GitHub is stale."""
    async with engine.connect() as connection:
        found: int | None = (
            await connection.execute(text("SELECT stale_after_s FROM ops.freshness"))
        ).scalar_one()
        return found


async def test_a_source_that_is_declared_later_gets_its_limit_with_the_retry(engine: AsyncEngine) -> None:
    undeclared = {name: source for name, source in SOURCES.items() if name != "github"}
    given = delivery("issues", OPENED, 1)
    await replace(writer(engine), sources=undeclared).fold([understand(undeclared, given)])
    assert await limit(engine) is None

    await writer(engine).fold([understand(SOURCES, given)])

    assert SOURCES["github"].file.quiet_s_max == await limit(engine)
