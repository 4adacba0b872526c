"""The database that the migrations make is the one that the code describes, with the least rights for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from migrations.__main__ import FOLDER, config, head, upgrade
from migrations.schema import METADATA, OPTIONS
from read_models.registry import READ_MODELS
from runtime.postgres import make_engine
from tests.servers import Database

pytestmark = pytest.mark.anyio

WRITES = (
    "INSERT INTO ops.builds (ref) VALUES ('x')",
    "UPDATE ops.builds SET status = 'x'",
    "DELETE FROM ops.deliveries",
)


async def as_user(database: Database, user: str, run: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `run` gives on a connection of `user`."""
    connection = await asyncpg.connect(database.url(user))
    try:
        return await run(connection)
    finally:
        await connection.close()


async def refused(database: Database, user: str, statement: str) -> bool:
    """Whether `user` may not run `statement`."""
    try:
        await as_user(database, user, lambda connection: connection.execute(statement))
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


async def test_autogenerate_finds_nothing_to_do(database: Database) -> None:
    engine = make_engine(database.url("admin"), "test")

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts=OPTIONS)
        return list(compare_metadata(context, METADATA))  # type: ignore[arg-type]  # takes several, too

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert [] == found


async def test_migrating_again_does_nothing(database: Database) -> None:
    await asyncio.to_thread(upgrade, database.url("admin"))

    revision = await as_user(
        database, "reader", lambda c: c.fetchval("SELECT version_num FROM public.alembic_version")
    )
    assert head() == revision


def test_revisions_form_one_line_and_are_named_by_number() -> None:
    revisions = [revision.revision for revision in ScriptDirectory.from_config(config("")).walk_revisions()]

    assert sorted(revisions, reverse=True) == revisions
    assert {path.name[:4] for path in Path(FOLDER, "versions").glob("*.py")} == set(revisions)


@pytest.mark.parametrize("user", ["notifier", "reader"])
@pytest.mark.parametrize("statement", WRITES)
async def test_only_the_projector_and_the_operator_write_ops(
    database: Database, user: str, statement: str
) -> None:
    assert await refused(database, user, statement)


@pytest.mark.parametrize("user", ["projector", "operator"])
async def test_the_projector_and_the_operator_write_ops(database: Database, user: str) -> None:
    for statement in WRITES:
        assert not await refused(database, user, statement)


async def test_the_projector_has_no_sight_of_the_notifiers_memory(database: Database) -> None:
    assert await refused(database, "projector", "SELECT * FROM notify.messages")


async def test_only_the_operator_makes_schemas(database: Database) -> None:
    assert not await refused(database, "operator", "CREATE SCHEMA ops_shadow")
    for user in ("projector", "notifier", "reader"):
        assert await refused(database, user, f"CREATE SCHEMA by_{user}")


@pytest.mark.parametrize("model", READ_MODELS, ids=lambda model: model.name)
async def test_the_reader_sees_every_column_but_those_marked_personal(database: Database, model: Any) -> None:
    for column in model.columns:
        statement = f"SELECT {column.name} FROM ops.{model.name}"
        assert column.personal == await refused(database, "reader", statement), column.name


async def test_the_reader_sees_the_views(database: Database) -> None:
    assert not await refused(database, "reader", "SELECT work_item_ref, deleted FROM ops.work_items_now")
