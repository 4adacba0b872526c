"""What folding some deliveries by this code would change in the live tables: compared, never written.

All of it is one transaction that is rolled back. It reads the ledger and the tables as they were at one moment, so what
the projectors fold meanwhile shows on neither side; it takes no lock that they wait for; and its rows go into
temporary tables, of which nothing is left even where it is killed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from read_models.registry import LEDGER, READ_MODELS
from read_models.table import SCHEMA, table_of
from services.projector import shadow
from services.projector.shadow import Compared, Scope
from services.projector.work import Work
from services.projector.write import Entry, Gathered, RefoldTooWide

SCRATCH = "pg_temp"
REF_DELIVERIES_MAX = 20_000
"""A ref that more deliveries are about is left out: all of them would have to be read for its few rows."""

_WIDE = text(
    f"SELECT r.ref FROM {SCHEMA}.{LEDGER.name} AS d, unnest(d.refs) AS r(ref)"  # noqa: S608  # names are ours
    " WHERE d.status = 'projected' AND d.refs && CAST(:refs AS text[]) AND r.ref = ANY(CAST(:refs AS text[]))"
    " GROUP BY r.ref HAVING count(*) > :most ORDER BY r.ref"
)


@dataclass(frozen=True, slots=True)
class Previewed:
    """What would change, and what was not looked at."""

    compared: tuple[Compared, ...]
    read: int
    """Deliveries read."""
    events: int
    """Events that the deliveries which were asked for state."""
    wide: tuple[str, ...]
    """Refs whose rows were not compared, for the number of deliveries that are about them."""
    new: tuple[str, ...]
    """Tables and columns that the live side has not got yet."""


async def preview(
    work: Work,
    entries: Sequence[Entry],
    *,
    refs: Collection[str] = (),
    without: Collection[int] = (),
    limit: int,
) -> list[Compared]:
    """How the rows of `refs`, and of all that `entries` are about, would differ if they were folded anew.

    The deliveries `without`, by their sequences, are passed over as if they were not in the log. `limit` differing
    rows of each model are named at most. Raises RefoldTooWide and LogTrimmed.
    """
    found = await look(work, entries, refs=refs, without=without, limit=limit)
    if found.wide:
        raise RefoldTooWide(f"more than {REF_DELIVERIES_MAX:,} deliveries are about {', '.join(found.wide)}")
    return list(found.compared)


async def look(
    work: Work,
    entries: Sequence[Entry],
    *,
    refs: Collection[str] = (),
    without: Collection[int] = (),
    limit: int,
) -> Previewed:
    """The same, where refs that too many deliveries are about are left out and named."""
    async with work.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        asked = set(refs).union(*(entry.refs or () for entry in entries))
        wide = (
            await connection.execute(_WIDE, {"refs": sorted(asked), "most": REF_DELIVERIES_MAX})
        ).scalars()
        left_out = set(wide)
        gathered = await work.writer(SCHEMA).gather(
            connection, set(refs) - left_out, entries, settled=left_out, without=without
        )
        there = await shadow.columns(connection, SCHEMA)
        await _put(work, connection, gathered, there[LEDGER.name])
        scope = Scope(refs=gathered.refs, sequences={row.stream_seq or 0 for row in gathered.verdicts})
        compared = [
            await shadow.compare(connection, model, SCRATCH, scope=scope, limit=limit)
            for model in READ_MODELS
        ]
        await connection.rollback()
    return Previewed(
        tuple(compared), gathered.read, gathered.events, tuple(sorted(left_out)), tuple(_not_there(there))
    )


async def _put(work: Work, connection: AsyncConnection, gathered: Gathered, ledger: Collection[str]) -> None:
    """Put what was gathered into temporary tables, the verdicts over what the ledger says in its columns there."""
    for model in READ_MODELS:
        await connection.execute(CreateTable(table_of(model, MetaData(schema=SCRATCH))))
    names = ", ".join(column.name for column in LEDGER.columns if column.name in ledger)
    await connection.execute(
        text(
            f"INSERT INTO {SCRATCH}.{LEDGER.name} ({names}) SELECT {names} FROM {SCHEMA}.{LEDGER.name}"  # noqa: S608
            " WHERE stream_seq = ANY(CAST(:sequences AS bigint[]))"
        ),
        {"sequences": sorted(row.stream_seq or 0 for row in gathered.verdicts)},
    )
    await work.writer(SCRATCH).replace(connection, gathered)


def _not_there(live: dict[str, dict[str, str]]) -> list[str]:
    """The tables and columns of today's models that the live schema has not got."""
    found = []
    for model in READ_MODELS:
        if (there := live.get(model.name)) is None:
            found.append(f"{SCHEMA}.{model.name}")
        else:
            found += [f"{SCHEMA}.{model.name}.{c.name}" for c in model.columns if c.name not in there]
    return found
