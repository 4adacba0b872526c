"""Our tables as the text of COPY, and back into tables of the same columns.

What the tables look like is for the migrations to say: a dump holds rows alone, and needs no program of the database's
version beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.postgres import FOLD_LOCK

SCHEMAS = ("ops", "projector", "notify")
"""All that is ours. What a rebuild has kept or left behind is in others, and is made again from the log."""
GZIP_BITS = 31
LEVEL = 3
UNPACKED_BYTES = 1024 * 1024
"""Of rows in hand at once, however small they were packed."""
MARK = "odooops backup "
"""Of a schema's comment, while a restore is under way: which backup its rows are of."""
WHOLE = " whole"
"""Ends that comment once all of the backup is there: what is left to do is to take the marks away."""
ROWS_BEFORE_ANY_DELIVERY = {"projector.models"}
"""Tables that a projector fills as it starts."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and those of its columns that hold what was written."""

    schema: str
    name: str
    columns: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """With its schema."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """For a statement."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in (self.schema, self.name))


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the driver has it: COPY has no other way."""
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, asyncpg.Connection)
        # Else a database may be set to write dates in a form that reads otherwise elsewhere.
        await raw.execute("SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1")
        yield raw


@asynccontextmanager
async def transaction(connection: asyncpg.Connection, **options: Any) -> AsyncIterator[None]:
    """The driver's transaction; where the connection breaks off, the driver's own end of it would hide why."""
    begun = connection.transaction(**options)
    await begun.start()
    try:
        yield
    except BaseException:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await begun.rollback()
        raise
    await begun.commit()


async def revision(connection: asyncpg.Connection) -> str | None:
    """The migration that the tables are of; None where there are none."""
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return found


async def tables(connection: asyncpg.Connection, schemas: Collection[str] = SCHEMAS) -> tuple[Table, ...]:
    """Our tables, those of `schemas`, in the order of their names."""
    rows = await connection.fetch(_TABLES, schemas)
    return tuple(Table(row["schema"], row["name"], tuple(row["columns"])) for row in rows)


_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = ANY ($1) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
GROUP BY 1, 2 ORDER BY 1, 2
"""


async def size(connection: asyncpg.Connection) -> int:
    """Bytes of our tables on the database's disk, without their indexes."""
    found: int = await connection.fetchval(
        "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = ANY ($1) AND c.relkind = 'r'",
        SCHEMAS,
    )
    return found


async def copy_out(connection: asyncpg.Connection, table: Table, write: Callable[[bytes], None]) -> int:
    """Write the rows of a table, compressed; how many."""
    packed = zlib.compressobj(LEVEL, wbits=GZIP_BITS)

    async def take(data: bytes) -> None:
        write(packed.compress(data))

    said = await connection.copy_from_table(
        table.name, schema_name=table.schema, columns=table.columns, output=take
    )
    write(packed.flush())
    return _rows(said)


async def copy_in(connection: asyncpg.Connection, table: Table, pieces: Iterable[bytes]) -> int:
    """Add the rows that `copy_out` wrote; how many."""

    async def rows() -> AsyncIterator[bytes]:
        unpack = zlib.decompressobj(GZIP_BITS)
        for piece in pieces:
            packed = piece
            while packed:
                yield unpack.decompress(packed, UNPACKED_BYTES)
                packed = unpack.unconsumed_tail
        yield unpack.flush()
        if not unpack.eof:
            raise ValueError(f"the rows of {table.full_name} are cut off")

    said = await connection.copy_to_table(
        table.name, schema_name=table.schema, columns=table.columns, source=rows()
    )
    return _rows(said)


def _rows(said: str) -> int:
    return int(said.rpartition(" ")[2])


async def mark(connection: asyncpg.Connection) -> tuple[str | None, bool]:
    """The backup whose rows a restore has put in, if it has not come to its end, and whether all of it is there."""
    said = await connection.fetchval("SELECT obj_description(to_regnamespace('ops'), 'pg_namespace')")
    if not said or not said.startswith(MARK):
        return None, False
    return said.removeprefix(MARK).removesuffix(WHOLE), said.endswith(WHOLE)


async def set_mark(connection: asyncpg.Connection, backup: str | None, *, whole: bool = False) -> None:
    """Say, or say no more, which backup the rows are of, and whether all of it is there."""
    said = "NULL"
    if backup is not None:
        said = await connection.fetchval("SELECT quote_literal($1)", MARK + backup + (WHOLE if whole else ""))
    await connection.execute(f"COMMENT ON SCHEMA ops IS {said}")


async def filled(connection: asyncpg.Connection) -> list[str]:
    """The tables that hold rows."""
    return [
        table.full_name
        for table in await tables(connection)
        if table.full_name not in ROWS_BEFORE_ANY_DELIVERY
        and await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table.quoted})")  # noqa: S608
    ]


async def drop_empty(connection: asyncpg.Connection) -> list[str]:
    """Drop our schemas where they hold no rows; else the tables that do, and nothing is dropped."""
    async with transaction(connection):
        await connection.execute("SELECT pg_advisory_xact_lock($1)", FOLD_LOCK)
        if found := await filled(connection):
            return found
        await connection.execute(f"DROP SCHEMA IF EXISTS {', '.join(SCHEMAS)} CASCADE")
        await connection.execute("DROP TABLE IF EXISTS public.alembic_version")
        return []


async def load(
    connection: asyncpg.Connection,
    wanted: Sequence[Mapping[str, Any]],
    pieces: Callable[[str], Iterator[bytes]],
    backup: str,
) -> None:
    """Put all rows in, or none. `wanted` are a manifest's tables, `pieces` gives the bytes of a part.

    Raises ValueError where the tables are not as they were.
    """
    async with transaction(connection):
        there = {table.full_name: table for table in await tables(connection)}
        for entry in wanted:
            table = Table(entry["schema"], entry["name"], tuple(entry["columns"]))
            if set(table.columns) != set(there.get(table.full_name, Table("", "", ())).columns):
                raise ValueError(f"the table {table.full_name} is not made by its migration as it was saved")
            await connection.execute(f"DELETE FROM {table.quoted}")  # noqa: S608
            rows = await copy_in(connection, table, pieces(entry["part"]))
            if rows != entry["rows"]:
                raise ValueError(f"{table.full_name} has {rows} rows and was to have {entry['rows']}")
            await _go_on_counting(connection, table)
            await connection.execute(f"ANALYZE {table.quoted}")
        await set_mark(connection, backup)


async def _go_on_counting(connection: asyncpg.Connection, table: Table) -> None:
    """Let what numbers the rows go on behind those that were put in."""
    numbered = await connection.fetchval(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attidentity <> ''", table.quoted
    )
    if numbered is not None:
        last = await connection.fetchval(f'SELECT max("{numbered}") FROM {table.quoted}')  # noqa: S608
        sequence = await connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", table.quoted, numbered)
        await connection.execute("SELECT setval($1::regclass, $2)", sequence, last or 1)
