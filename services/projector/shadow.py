"""Tables beside the live ones: making them, comparing them, and putting them in the place of the live ones.

A schema of ours says in its comment what it is for, so that what a killed process left behind is known for that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from read_models.port import Column, ReadModel
from read_models.registry import FRESHNESS, LEDGER, READ_MODELS
from read_models.table import SCHEMA, table_of
from runtime.postgres import OWNER

Purpose = Literal["rebuild", "before", "as_of"]
PREFIX = "odooops: "

_OURS = text(
    "SELECT n.nspname AS name, obj_description(n.oid, 'pg_namespace') AS said FROM pg_namespace AS n"
    " WHERE obj_description(n.oid, 'pg_namespace') LIKE 'odooops: %' ORDER BY n.nspname"
)
_COLUMNS = text(
    "SELECT c.relname AS model, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type"
    " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
    " WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
    " AND (CAST(:name AS text) IS NULL OR c.relname = :name) ORDER BY c.relname, a.attnum"
)
_GRANTS = text(
    "SELECT name, role, string_agg(said, ', ' ORDER BY said) AS rights FROM ("
    "SELECT c.relname AS name, g.grantee, g.privilege_type AS said FROM pg_class AS c, aclexplode(c.relacl) AS g"
    " WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'v') AND g.grantee <> c.relowner"
    " UNION ALL SELECT c.relname, g.grantee, g.privilege_type || ' (' || a.attname || ')'"
    " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid, aclexplode(a.attacl) AS g"
    " WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'v') AND NOT a.attisdropped"
    " AND g.grantee <> c.relowner"
    ") AS each, LATERAL (SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role) AS r"
    " WHERE name = ANY(:models) GROUP BY name, role ORDER BY name, role"
)
_VIEWS = text(
    "SELECT v.relname AS name, pg_get_viewdef(v.oid) AS query, array_to_string(v.reloptions, ', ') AS options"
    " FROM pg_class AS v WHERE v.relnamespace = to_regnamespace(:schema) AND v.relkind = 'v'"
    " AND EXISTS (SELECT FROM pg_rewrite AS r JOIN pg_depend AS d ON d.objid = r.oid"
    " JOIN pg_class AS c ON d.refobjid = c.oid WHERE r.ev_class = v.oid AND d.classid = 'pg_rewrite'::regclass"
    " AND d.refclassid = 'pg_class'::regclass AND c.relnamespace = v.relnamespace AND c.relname = ANY(:models))"
    " ORDER BY v.relname"
)
# What else would go on looking at a table after it was moved away, or be lost with it: other people's views, keys,
# functions, policies, indexes, and whatever uses the type of its rows.
_DEPENDENTS = text(
    "SELECT DISTINCT c.relname AS model, CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0)"
    " ELSE 'view ' || v.oid::regclass::text END AS what"
    " FROM pg_class AS c LEFT JOIN pg_type AS t ON t.oid = c.reltype"
    " JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid"
    " OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)"
    " LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
    " LEFT JOIN pg_class AS v ON r.ev_class = v.oid"
    " LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid"
    " LEFT JOIN pg_class AS i ON d.classid = 'pg_class'::regclass AND d.objid = i.oid"
    " WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r' AND c.relname = ANY(:models)"
    " AND d.deptype IN ('n', 'a') AND d.classid <> 'pg_attrdef'::regclass"
    " AND (i.oid IS NULL OR i.relkind <> 'i' OR i.relname <> ALL(:indexes))"
    " AND (k.oid IS NULL OR k.conrelid <> c.oid OR k.contype NOT IN ('p', 'n'))"
    " AND (v.oid IS NULL OR v.relnamespace <> c.relnamespace OR v.relkind <> 'v'"
    " OR v.relowner <> CAST(:owner AS regrole))"
    " ORDER BY 1, 2"
)
INDEXED_AT_ONCE = 2
"""Tables: Postgres itself uses several processes for the index of a large one, and none for its statistics."""
LOCKS_S_MAX = 0.8
"""For all locks of a swap together. It must stay below Postgres' `deadlock_timeout` (1 s): who waits longer for a
table while we wait for another of theirs would be the one that Postgres refuses, and no reader is to see an error."""
TIDYING_S_MAX = 5.0
"""How long autovacuum, which gives way after `deadlock_timeout`, may take to leave the tables."""


class InTheWay(Exception):
    """something keeps tables from being put in the place of others; the message says what"""


@dataclass(frozen=True, slots=True)
class About:
    """What a schema of ours is for, as its comment says."""

    purpose: Purpose
    made_at: str
    models: tuple[str, ...] = ()
    after: int = 0
    """`before`: what came later in the log than this sequence may be missing from its tables."""
    what: str = ""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """`before`: the fingerprint of what made the rows of each model, where that is known."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same on both sides. `live` or `log` is None where that side has no such row."""

    key: Mapping[str, Any]
    live: Mapping[str, Any] | None
    log: Mapping[str, Any] | None
    """Only the columns that differ, where both sides have the row."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How a model's rows differ from what the log says, with some of the differing rows."""

    model: str
    rows: int
    missing: int
    """Rows that the log has and the live table has not."""
    extra: int
    """Rows that the live table has and the log has not."""
    changed: int
    differences: tuple[Difference, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.missing or self.extra or self.changed)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows are compared: those of `refs`, or all; never those of what the live side has yet to fold."""

    refs: Collection[str] | None = None
    sequences: Collection[int] = ()
    """With `refs`: the deliveries whose rows of the ledger are compared, by the sequence of each."""
    not_refs: Collection[str] = ()
    not_sequences: Collection[int] = ()
    not_sources: Collection[str] = ()


async def ours(connection: AsyncConnection) -> dict[str, About]:
    """The schemas beside `ops` that are ours, by name, and what each is for."""
    found = {}
    for row in await connection.execute(_OURS):
        said = json.loads(row.said.removeprefix(PREFIX))
        found[row.name] = About(**{**said, "models": tuple(said["models"])})
    return found


async def say(connection: AsyncConnection, schema: str, about: About) -> None:
    """Write down what a schema is for."""
    said = (PREFIX + json.dumps(asdict(about))).replace("'", "''").replace(":", "\\:")
    await connection.execute(text(f"COMMENT ON SCHEMA {schema} IS '{said}'"))


async def make(engine: AsyncEngine, schema: str, about: About, models: Collection[str] = ()) -> None:
    """Make `schema` with empty tables for `models`, or all: keys only, `index` does the rest once they are full.

    Their columns stand in the order of the live ones: else a prepared `SELECT *` would fail once after a swap.
    """
    async with engine.begin() as connection:
        there = await columns(connection, SCHEMA)
        await connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
        await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await say(connection, schema, about)
        for model in chosen(models):
            order = [*there.get(model.name, ())]
            await connection.execute(CreateTable(table_of(model, MetaData(schema=schema), order)))


async def index(engine: AsyncEngine, schema: str, models: Collection[str] = ()) -> None:
    """Give the tables the indexes beside their keys, and tell Postgres what is in them."""
    at_once = asyncio.Semaphore(INDEXED_AT_ONCE)

    async def index_one(model: ReadModel[Any]) -> None:
        async with at_once, engine.begin() as connection:
            await connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
            for each in sorted(
                table_of(model, MetaData(schema=schema)).indexes, key=lambda made: str(made.name)
            ):
                await connection.execute(CreateIndex(each, if_not_exists=True))
            await connection.execute(text(f"ANALYZE {schema}.{model.name}"))

    try:
        async with asyncio.TaskGroup() as group:
            for model in chosen(models):
                group.create_task(index_one(model))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def drop(engine: AsyncEngine, schema: str) -> None:
    """Remove a schema of ours with all that is in it."""
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))


def chosen(models: Collection[str]) -> list[ReadModel[Any]]:
    """The models of these names in the registry's order; all where none is named."""
    return [model for model in READ_MODELS if not models or model.name in models]


async def columns(
    connection: AsyncConnection, schema: str, name: str | None = None
) -> dict[str, dict[str, str]]:
    """The columns of each table in a schema, or of one of that `name`, in their order, and their types."""
    found: dict[str, dict[str, str]] = {}
    for row in await connection.execute(_COLUMNS, {"schema": schema, "name": name}):
        found.setdefault(row.model, {})[row.column] = row.type
    return found


async def compare(
    connection: AsyncConnection,
    model: ReadModel[Any],
    shadow: str,
    *,
    live: str = SCHEMA,
    scope: Scope | None = None,
    limit: int = 0,
) -> Compared:
    """Compare a model's rows in two schemas by key, but for what only counts work; up to `limit` differing rows.

    Columns that the live table has not got yet are left out: a migration will bring them.
    """
    there = (await columns(connection, live, model.name)).get(model.name)
    if there is None:
        return Compared(model.name, 0, 0, 0, 0)
    stated = [each for each in model.columns if not each.rule.operational and each.name in there]
    values: dict[str, Any] = {}
    where = _where(model, scope or Scope(), values)
    joined = (
        f"(SELECT * FROM {live}.{model.name}{where}) AS l FULL JOIN (SELECT * FROM {shadow}.{model.name}{where}) AS s"
        f" ON {' AND '.join(f'l.{key} = s.{key}' for key in model.key)}"
    )
    first = model.key[0]
    differ = f"({_row('l', stated)}) IS DISTINCT FROM ({_row('s', stated)})"
    counted = (
        await connection.execute(
            text(
                f"SELECT count(s.{first}) AS rows, count(*) FILTER (WHERE l.{first} IS NULL) AS missing,"
                f" count(*) FILTER (WHERE s.{first} IS NULL) AS extra,"
                f" count(*) FILTER (WHERE l.{first} IS NOT NULL AND s.{first} IS NOT NULL AND {differ}) AS changed"
                f" FROM {joined}"
            ),
            values,
        )
    ).one()
    if not limit or not (counted.missing or counted.extra or counted.changed):
        return Compared(model.name, counted.rows, counted.missing, counted.extra, counted.changed)
    rows = await connection.execute(
        text(
            f"SELECT to_jsonb(l) AS live, to_jsonb(s) AS log FROM {joined} WHERE {differ}"
            f" ORDER BY {', '.join(f'COALESCE(l.{key}, s.{key})' for key in model.key)} LIMIT {limit}"
        ),
        values,
    )
    differences = tuple(_difference(model, [each.name for each in stated], row.live, row.log) for row in rows)
    return Compared(model.name, counted.rows, counted.missing, counted.extra, counted.changed, differences)


def _row(side: str, stated: Sequence[Column]) -> str:
    return ", ".join(f"{side}.{column.name}" for column in stated)


def _where(model: ReadModel[Any], scope: Scope, values: dict[str, Any]) -> str:
    """The condition for the rows in scope; its values go into `values`."""
    conditions = []
    if model is LEDGER:
        if scope.refs is not None:
            conditions.append("stream_seq = ANY(CAST(:sequences AS bigint[]))")
            values["sequences"] = sorted(scope.sequences)
        if scope.not_sequences:
            conditions.append("stream_seq <> ALL(CAST(:not_sequences AS bigint[]))")
            values["not_sequences"] = sorted(scope.not_sequences)
    else:
        if scope.refs is not None:
            conditions.append(f"{model.ref_column} = ANY(CAST(:refs AS text[]))")
            values["refs"] = sorted(scope.refs)
        if scope.not_refs:
            conditions.append(f"COALESCE({model.ref_column} <> ALL(CAST(:not_refs AS text[])), true)")
            values["not_refs"] = sorted(scope.not_refs)
        if scope.not_sources and model is FRESHNESS:
            conditions.append("(ref IS NOT NULL OR source <> ALL(CAST(:not_sources AS text[])))")
            values["not_sources"] = sorted(scope.not_sources)
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _difference(
    model: ReadModel[Any], names: Sequence[str], live: dict[str, Any] | None, log: dict[str, Any] | None
) -> Difference:
    key = {name: (live or log or {})[name] for name in model.key}
    if live is None or log is None:
        return Difference(
            key,
            None if live is None else {name: live[name] for name in names},
            None if log is None else {name: log[name] for name in names},
        )
    differing = [name for name in names if live[name] != log[name]]
    return Difference(key, {name: live[name] for name in differing}, {name: log[name] for name in differing})


async def grant_alike(connection: AsyncConnection, source: str, target: str, names: Collection[str]) -> None:
    """Give everybody the rights on tables and views of one schema that they have in the other, and no more."""
    values = {"models": sorted(names)}
    for row in (await connection.execute(_GRANTS, {"schema": target, **values})).all():
        await connection.execute(text(f"REVOKE ALL ON {target}.{row.name} FROM {row.role}"))
    for row in (await connection.execute(_GRANTS, {"schema": source, **values})).all():
        await connection.execute(text(f"GRANT {row.rights} ON {target}.{row.name} TO {row.role}"))


async def in_the_way(connection: AsyncConnection, models: Collection[str], schema: str = SCHEMA) -> list[str]:
    """What else depends on the tables of `models`, each in a few words."""
    indexes = [index.name for model in chosen(models) for index in model.indexes]
    values = {"schema": schema, "models": sorted(models), "indexes": indexes, "owner": OWNER}
    return [f"{row.what} (on {schema}.{row.model})" for row in await connection.execute(_DEPENDENTS, values)]


async def check_swap(connection: AsyncConnection, models: Collection[str]) -> None:
    """Raise InTheWay where something else depends on the live tables of `models`."""
    if others := await in_the_way(connection, models):
        raise InTheWay(
            f"{'; '.join(others)}: it would stay with the old rows. Remove it, and make it anew afterwards, or mend the"
            " tables where they are: odooops rebuild --in-place"
        )


async def check_columns(connection: AsyncConnection, schema: str, models: Collection[str]) -> None:
    """Raise InTheWay where tables of `schema` have other columns than the live ones of `models`."""
    there, live = await columns(connection, schema), await columns(connection, SCHEMA)
    if other := sorted(name for name in models if there.get(name) != live.get(name)):
        raise InTheWay(
            f"the tables {', '.join(other)} have other columns in {schema} than in {SCHEMA}: migrations and code differ"
        )


async def keep_tidying_away(
    connection: AsyncConnection, schemas: Sequence[str], models: Collection[str]
) -> None:
    """Until the transaction ends, no autovacuum works on these tables; one that does is made to leave.

    A lock that is waited for more briefly than `deadlock_timeout` would never make it leave. Nobody else is hindered.
    """
    tables = ", ".join(f"{schema}.{model.name}" for schema in schemas for model in chosen(models))
    await connection.execute(text(f"SET LOCAL lock_timeout = '{int(TIDYING_S_MAX * 1000)}ms'"))
    await connection.execute(text(f"LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE"))


async def swap(
    connection: AsyncConnection, shadow: str, kept: str, models: Collection[str], about: About
) -> None:
    """Inside a transaction that holds the fold lock alone: put the tables of `shadow` in the place of the live ones.

    The live ones go to the new schema `kept`, with what else `shadow` has: a ledger, without which nothing could be
    folded into them later. `shadow` is gone; our views, and everybody's rights, are as before. What readers were about
    to ask goes to the new tables. Raises InTheWay.
    """
    await check_swap(connection, models)
    names = [model.name for model in chosen(models)]
    await check_columns(connection, shadow, names)
    views = (await connection.execute(_VIEWS, {"schema": SCHEMA, "models": names})).all()
    await connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
    await grant_alike(connection, SCHEMA, shadow, names)
    await connection.execute(text(f"CREATE SCHEMA {kept}"))
    await say(connection, kept, about)
    # The order of locks is that of a reader: a view, then its tables.
    locked = ", ".join(f"{SCHEMA}.{name}" for name in (*(view.name for view in views), *names))
    await connection.execute(text(f"SET LOCAL statement_timeout = '{int(LOCKS_S_MAX * 1000)}ms'"))
    await connection.execute(text(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE"))
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    for name in names:
        await connection.execute(text(f"ALTER TABLE {SCHEMA}.{name} SET SCHEMA {kept}"))
        await connection.execute(text(f"ALTER TABLE {shadow}.{name} SET SCHEMA {SCHEMA}"))
    for view in views:
        # Replaced, not made anew: rights stay, and so does whatever others have built on it.
        options = f" WITH ({view.options})" if view.options else ""
        await connection.exec_driver_sql(
            f"CREATE OR REPLACE VIEW {SCHEMA}.{view.name}{options} AS {view.query}"
        )
    for name in await columns(connection, shadow):
        await connection.execute(text(f"ALTER TABLE {shadow}.{name} SET SCHEMA {kept}"))
    await connection.execute(text(f"DROP SCHEMA {shadow}"))
    await connection.execute(text("RESET ROLE"))


async def put_right(connection: AsyncConnection, shadow: str, models: Collection[str]) -> None:
    """Inside such a transaction: make the live rows those of `shadow`, where they are. What counts work stays."""
    for model in chosen(models):
        live, by_log = f"{SCHEMA}.{model.name} AS l", f"{shadow}.{model.name} AS s"
        same = " AND ".join(f"l.{key} = s.{key}" for key in model.key)
        stated = [each for each in model.columns if not each.rule.operational]
        every = ", ".join(each.name for each in model.columns)
        taken = ", ".join(f"{each.name} = s.{each.name}" for each in stated if each.name not in model.key)
        differ = f"({_row('l', stated)}) IS DISTINCT FROM ({_row('s', stated)})"
        by_the_log = f"SELECT {every} FROM {by_log} WHERE NOT EXISTS (SELECT FROM {live} WHERE {same})"
        for statement in (
            f"DELETE FROM {live} WHERE NOT EXISTS (SELECT FROM {by_log} WHERE {same})",
            f"UPDATE {live} SET {taken} FROM {by_log} WHERE {same} AND {differ}",
            f"INSERT INTO {SCHEMA}.{model.name} ({every}) {by_the_log}",
        ):
            await connection.execute(text(statement))


def stamp(at: datetime) -> str:
    """A time as a part of a schema's name."""
    return at.astimezone(UTC).strftime("%Y%m%dt%H%M%Sz").lower()
