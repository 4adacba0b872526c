"""The tables as they were: exactly what a log that had ended then would have made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.as_of import run
from cli.reach import Servers, Trouble
from contracts.delivery import Delivery
from contracts.own import delivery_of
from read_models.registry import READ_MODELS
from runtime import postgres, streams
from services.projector import as_of, shadow
from services.projector.as_of import AsOf, BadName
from services.projector.blocks import Until
from services.projector.replaying import SHADOW
from services.projector.shadow import About, InTheWay
from services.projector.work import RebuildRunning, alone
from tests.conftest import Broker
from tests.samples import RECEIVED_AT, body, delivery
from tests.servers import Database
from tests.services.projector.rebuilding import NOW, discarded, mixed, redacted, working
from tests.services.projector.running import fold_one, project_all, store, store_batch

pytestmark = pytest.mark.anyio

INTO = "ops_asof"
HOUR = timedelta(hours=1)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("operator"), "test")
    yield made
    await made.dispose()


async def build(broker: Broker, database: Database, until: Until, into: str = INTO) -> AsOf:
    async with working(broker, database) as work:
        return await as_of.build(work, until, into)


async def differing(engine: AsyncEngine, past: str = INTO) -> list[str]:
    """Models whose rows are not the same live and in the past."""
    async with engine.connect() as connection:
        found = [await shadow.compare(connection, model, past) for model in READ_MODELS]
    return [each.model for each in found if not each.equal]


async def ask(engine: AsyncEngine, statement: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def schemas(engine: AsyncEngine) -> dict[str, About]:
    async with engine.connect() as connection:
        return await shadow.ours(connection)


def received(given: Delivery, at: datetime) -> Delivery:
    return replace(given, received_at=at)


async def test_the_tables_are_what_had_been_received_by_then_wherever_it_stands_in_the_log(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store_batch(broker, [received(each, RECEIVED_AT) for each in mixed()])
    await project_all(broker, engine)
    late = delivery("issues", body("issues.edited.00"), 0, "late")
    await store(broker, [received(replace(late, identity="after"), RECEIVED_AT + HOUR), late])
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    await fold_one(broker, engine, last)

    made = await build(broker, database, Until(RECEIVED_AT))

    assert [] == await differing(engine)
    assert (last - 1, RECEIVED_AT) == (made.deliveries, made.moment)
    assert {INTO} == set(await schemas(engine))


async def test_up_to_a_sequence_they_are_what_a_rebuild_of_so_much_would_be(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    log = list(mixed())
    await store_batch(broker, log[:100])
    await project_all(broker, engine)
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    await store_batch(broker, log[100:])

    await build(broker, database, Until(seq=last))

    assert [] == await differing(engine)


async def test_what_operators_said_later_does_not_count_and_what_was_erased_is_counted(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    aside, erased = (
        delivery("issues", body(f"issues.{name}"), 0, name) for name in ("edited.00", "opened.15")
    )
    await store(broker, [erased, aside])
    await store(
        broker,
        [delivery_of(word, "cli", NOW) for word in (redacted(erased, 1), discarded(aside, 2))],
    )
    await project_all(broker, engine)
    await broker.js.delete_msg(streams.DELIVERIES, 1)

    made = await build(broker, database, Until(RECEIVED_AT))

    assert [("projected",)] == await ask(engine, f"SELECT status FROM {INTO}.deliveries")
    assert (1, 1, 0) == (made.deliveries, made.erased, made.trimmed)


async def test_what_was_trimmed_is_counted(broker: Broker, database: Database, engine: AsyncEngine) -> None:
    await store(broker, [delivery("issues", body("issues.edited.00"), 0, str(n)) for n in range(3)])
    await project_all(broker, engine)
    await broker.js.purge_stream(streams.DELIVERIES, seq=3)

    made = await build(broker, database, Until(RECEIVED_AT))

    assert (1, 2) == (made.deliveries, made.trimmed)


async def test_in_its_views_now_is_that_moment_and_they_are_of_its_own_tables(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [delivery("issues", body("issues.edited.00"), 0)])
    await project_all(broker, engine)

    made = await build(broker, database, Until(RECEIVED_AT + timedelta(seconds=7)))

    assert [(7.0,)] == await ask(engine, f"SELECT age_s FROM {INTO}.freshness_now WHERE scope = 'webhooks'")
    views = "SELECT count(*) FROM pg_views WHERE schemaname = '{}'"
    assert [(made.views,)] == await ask(engine, views.format(INTO)) == await ask(engine, views.format("ops"))
    assert [] == await ask(
        engine,
        "SELECT DISTINCT n.nspname FROM pg_rewrite AS r JOIN pg_class AS v ON v.oid = r.ev_class"
        " JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        " JOIN pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        f" WHERE v.relnamespace = '{INTO}'::regnamespace AND n.nspname NOT IN ('{INTO}', 'pg_catalog')",
    )


async def test_readers_have_the_rights_that_they_have_on_the_live_tables(
    broker: Broker, database: Database
) -> None:
    await build(broker, database, Until(RECEIVED_AT))
    reader = postgres.make_engine(database.url("reader"), "test")

    assert [] == await ask(reader, f"SELECT event_id FROM {INTO}.platform_events")
    assert 3 == len(await ask(reader, f"SELECT health FROM {INTO}.environments_now"))
    for statement in (f"SELECT payload FROM {INTO}.platform_events", f"DELETE FROM {INTO}.builds"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            await ask(reader, statement)
    await reader.dispose()


async def test_an_older_one_is_replaced_when_the_new_one_is_complete_and_not_before(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await store(broker, [delivery("issues", body("issues.edited.00"), 0)])
    await build(broker, database, Until(RECEIVED_AT))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA theirs"))
        await connection.execute(text(f"CREATE VIEW theirs.view AS SELECT ref FROM {INTO}.builds"))

    with pytest.raises(InTheWay, match=r"view theirs\.view"):
        await build(broker, database, Until(RECEIVED_AT - HOUR))
    assert [(1,)] == await ask(engine, f"SELECT count(*) FROM {INTO}.deliveries")
    assert {INTO} == set(await schemas(engine))

    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA theirs CASCADE"))
    await build(broker, database, Until(RECEIVED_AT - HOUR))
    assert [(0,)] == await ask(engine, f"SELECT count(*) FROM {INTO}.deliveries")


async def test_what_a_killed_run_left_is_removed_by_the_next(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await shadow.make(engine, SHADOW, About("rebuild", "then"))

    await build(broker, database, Until(RECEIVED_AT))

    assert {INTO: "as_of"} == {name: about.purpose for name, about in (await schemas(engine)).items()}


async def test_it_waits_for_no_rebuild(broker: Broker, database: Database, engine: AsyncEngine) -> None:
    async with alone(engine):
        with pytest.raises(RebuildRunning):
            await build(broker, database, Until(RECEIVED_AT))


async def test_a_schema_of_somebody_else_is_left_alone(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA theirs"))

    with pytest.raises(InTheWay, match="there is a schema theirs"):
        await build(broker, database, Until(RECEIVED_AT), "theirs")


TAKEN = ("ops", "notify", "projector", "public", "pg_temp", "information_schema", "ops_before_1", SHADOW)
NONE = ("", "A", "1a", "a-b", "a.b", "a;b", 'a"b', "a\n", "a" * 52, "ä")


@pytest.mark.parametrize("name", [*TAKEN, *NONE])
def test_a_name_that_is_none_or_taken_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        as_of.require_name(name)


async def test_the_command_says_what_it_made(
    broker: Broker,
    database: Database,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NATS_URL_OPERATOR", broker.url("operator"))
    monkeypatch.setenv("DATABASE_URL_OPERATOR", database.url("operator"))
    await store(broker, [delivery("issues", body("issues.edited.00"), 0)])
    servers = Servers(tmp_path, named=False)

    await run(servers, RECEIVED_AT, None, INTO, None, [], as_json=False)
    said = capsys.readouterr().out
    assert f"{INTO}: the tables as of {RECEIVED_AT:%Y-%m-%d %H:%M:%S}Z, from 1 delivery," in said
    assert "views, in which now() is that moment" in said
    await run(servers, None, 1, INTO, None, ["builds"], as_json=True)
    made = json.loads(capsys.readouterr().out)
    assert (INTO, 1, 0) == (made["schema"], made["deliveries"], made["views"])
    assert [("builds",), ("deliveries",), ("secret_exclusions",)] == await ask(
        engine, f"SELECT tablename FROM pg_tables WHERE schemaname = '{INTO}' ORDER BY tablename"
    )

    for moment, seq, into, models in ((None, None, INTO, []), (None, 1, "ops", []), (None, 1, INTO, ["x"])):
        with pytest.raises(Trouble):
            await run(servers, moment, seq, into, None, models, as_json=False)
