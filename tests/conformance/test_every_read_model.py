"""What holds for every registered read model, without anybody writing a test for it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.registry import EVENTS
from read_models.merge import join_all, joiner, merge_sql
from read_models.port import ReadModel
from read_models.registry import READ_MODELS, TABLES
from runtime.postgres import make_engine
from services.projector.sql import as_json
from tests.conformance.rows import DENSE, WIDE, rows
from tests.servers import Database, Postgres, fresh_database

FOLDER = Path(__file__).parents[2] / "read_models"
MACHINERY = {"__init__", "port", "registry", "merge", "table"}
EVERY = pytest.mark.parametrize("model", READ_MODELS, ids=lambda model: model.name)


def lattice(model: ReadModel[Any], row: Any) -> dict[str, Any]:
    """The columns that the log decides."""
    kept = {column.name for column in model.columns if not column.rule.operational}
    return {name: value for name, value in asdict(row).items() if name in kept}


def test_every_file_is_registered_under_its_own_name() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - MACHINERY

    assert files == {model.name for model in READ_MODELS} == set(TABLES)


def test_every_event_type_is_folded_somewhere() -> None:
    folded = {event for model in READ_MODELS for event in model.folds}

    assert set(EVENTS.values()) <= folded


def test_every_family_of_events_belongs_to_one_part_of_the_platform() -> None:
    parts: dict[str, set[str]] = {}
    for name, event in EVENTS.items():
        parts.setdefault(name.partition(".")[0], set()).add(event.service)

    assert {family for family, services in parts.items() if len(services) != 1} == set()


@EVERY
def test_latest_columns_name_a_version_that_is_there(model: ReadModel[Any]) -> None:
    versions = {column.name for column in model.columns if column.rule.name == "version"}

    assert {c.rule.group for c in model.columns if c.rule.name == "latest"} <= versions


@EVERY
def test_facts_are_scalars_that_postgres_orders_as_python_does(model: ReadModel[Any]) -> None:
    scalars = {str, int, bool, float, *DENSE} - {bytes, list[str], list[int]}

    assert {c.type for c in model.columns if c.rule.name in ("fact", "earliest", "greatest")} <= scalars


@EVERY
def test_no_index_but_the_log_tables_hinders_hot_updates(model: ReadModel[Any]) -> None:
    moving = {
        c.name for c in model.columns if c.rule.name in ("version", "latest", "greatest", "tally", "note")
    }
    is_log = model.key == ("event_id",)
    allowed = {"refs", "status"} if model.name == "deliveries" else set()

    for index in model.indexes:
        assert is_log or not (set(index.columns) & moving - allowed), index.name


@EVERY
@given(data=st.data())
@settings(max_examples=30)
def test_joins_are_commutative_associative_and_idempotent(model: ReadModel[Any], data: st.DataObject) -> None:
    pool, keys, most = data.draw(st.sampled_from(((DENSE, 1, 5), (WIDE, 2, 6))))
    statements = data.draw(rows(model, pool, keys, most))
    shuffled = data.draw(st.permutations(statements + statements[:2]))
    cut = data.draw(st.integers(0, len(shuffled)))

    in_order = join_all(model, statements)
    parts = [*join_all(model, shuffled[:cut]).values(), *join_all(model, shuffled[cut:]).values()]
    in_parts = join_all(model, parts)

    assert {k: lattice(model, r) for k, r in in_order.items()} == {
        k: lattice(model, r) for k, r in in_parts.items()
    }


def test_a_partial_latest_is_caught_by_the_dense_generator() -> None:
    """The mistake that broad generators miss: a `latest` that keeps the old value where the new one is NULL."""
    (model,) = (each for each in READ_MODELS if each.name == "deployments")
    right = joiner(model)

    def partial(old: Any, new: Any) -> Any:
        joined = right(old, new)
        return (
            joined
            if joined.url is not None
            else joined.__class__(**{**asdict(joined), "url": old.url or new.url})
        )

    @given(data=st.data())
    @settings(
        max_examples=120, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def order_free(data: st.DataObject) -> None:
        statements = data.draw(rows(model, DENSE, 1, 4))
        results = [functools.reduce(partial, order) for order in itertools.permutations(statements)]
        assert all(result == results[0] for result in results)

    with pytest.raises(AssertionError):
        order_free()


@pytest.fixture(scope="module")
async def engine(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    """A database for all examples: each rolls back."""
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


@EVERY
@pytest.mark.anyio
@given(data=st.data())
@settings(max_examples=25, phases=[Phase.generate])
async def test_python_and_sql_merge_to_the_same_rows(
    model: ReadModel[Any], data: st.DataObject, engine: AsyncEngine
) -> None:
    pool, keys, most = data.draw(st.sampled_from(((DENSE, 1, 5), (WIDE, 3, 6))))
    statements = data.draw(rows(model, pool, keys, most))
    joined: dict[Any, Any] = {}
    join = joiner(model)
    merge = text(merge_sql(model, "ops") + "\nRETURNING " + ", ".join(f"t.{name}" for name in model.key))

    async with engine.connect() as connection:
        await connection.begin()
        for row in statements:
            key = tuple(getattr(row, name) for name in model.key)
            before = joined.get(key)
            joined[key] = row if before is None else join(before, row)
            returned = (await connection.execute(merge, {"rows": as_json([row])})).all()
            assert bool(returned) == (before is None or joined[key] != before), row
        stored = await snapshot(connection, model)
        await connection.rollback()

    assert stored == await through_postgres(engine, model, list(joined.values()))


async def through_postgres(engine: AsyncEngine, model: ReadModel[Any], merged: list[Any]) -> list[Any]:
    """Rows as Postgres gives them back: inserted into an empty table, so that no SQL rule has a say."""
    async with engine.connect() as connection:
        await connection.begin()
        await connection.execute(text(merge_sql(model, "ops")), {"rows": as_json(merged)})
        stored = await snapshot(connection, model)
        await connection.rollback()
    return stored


async def snapshot(connection: Any, model: ReadModel[Any]) -> list[Any]:
    """All rows of a model's table, by key."""
    table = TABLES[model.name]
    found = await connection.execute(table.select().order_by(*(table.c[name] for name in model.key)))
    return [tuple(row) for row in found]


@pytest.mark.anyio
async def test_every_text_column_has_the_collation_that_python_orders_by(database: Database) -> None:
    engine = make_engine(database.url("admin"), "test")
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'ops'"
                " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
            )
        )
        others = [row[0] for row in found]
    await engine.dispose()

    assert others == []
