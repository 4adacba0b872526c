"""A log that an operator has trimmed: what rests on the deliveries that are gone is taken over from the live tables.

Taken over are the ledger's rows of those deliveries, and every row of the things that they were about. What the log
still holds is folded on top, which changes nothing where the live rows are right. All other rows are made of the log
alone, so that they are proven as ever. What was erased is not trimmed: its redaction stands in the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.ledger import REF_HASH_CHARS
from contracts.own import own_ref
from read_models.registry import FRESHNESS, LEDGER
from read_models.table import SCHEMA
from services.projector import shadow
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, parked

if TYPE_CHECKING:
    from services.projector.rebuild import Replayed

REFS = "trimmed_refs"
TRIMMED = "stream_seq < {first} AND status IS DISTINCT FROM 'redacted'"

_ANY = f"SELECT EXISTS (SELECT FROM {SCHEMA}.{LEDGER.name} WHERE {TRIMMED})"
_MAKE_REFS = (
    f'CREATE TABLE {{schema}}.{REFS} AS SELECT DISTINCT unnest(refs) COLLATE "C" AS ref'
    f" FROM {SCHEMA}.{LEDGER.name} WHERE {TRIMMED}"
)
_TAKE = (
    "INSERT INTO {schema}.{model} ({columns}) SELECT {columns} FROM " + SCHEMA + ".{model} WHERE {condition}"
    " ON CONFLICT DO NOTHING"
)
# Where the word by which a delivery was erased is gone too, nothing else tells of it.
_LEDGER_ROWS = (
    "stream_seq < {first} AND (status IS DISTINCT FROM 'redacted'"
    f" OR '{own_ref('delivery', '')}' || source || ':' || identity || '/' || left(body_sha256, {REF_HASH_CHARS})"
    f" IN (SELECT ref FROM {{schema}}.{REFS}))"
)
_ROWS_OF_REFS = f"{{column}} IN (SELECT ref FROM {{schema}}.{REFS})"
_HEARD = (
    f" OR ref IS NULL AND source IN (SELECT source FROM {SCHEMA}.{LEDGER.name}"
    f" WHERE via = 'webhook' AND {TRIMMED})"
)
_STUCK = f"SELECT stream_seq FROM {SCHEMA}.{LEDGER.name} WHERE stream_seq >= :first AND reason = '{REFOLD_IMPOSSIBLE}'"


@dataclass(frozen=True, slots=True)
class Seeded:
    """What was taken over: the rows of each model, and the deliveries that stay parked because of what is gone."""

    rows: Mapping[str, int] = field(default_factory=dict)
    stuck: frozenset[int] = frozenset()
    """By their sequences. Live, their rows could not be made anew; here they cannot either."""


async def seed(engine: AsyncEngine, schema: str, models: Collection[str], first_seq: int) -> Seeded | None:
    """Take over into `schema` what rests on deliveries before `first_seq`; None where none of them was trimmed.

    May be called again for a later `first_seq`: what is there stays.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        if not (await connection.execute(text(_ANY.format(first=first_seq)))).scalar_one():
            return None
        await connection.execute(text(_MAKE_REFS.format(schema=schema, first=first_seq)))
        await connection.execute(text(f"ANALYZE {schema}.{REFS}"))
        rows = await _take_over(connection, schema, models, first_seq)
        stuck = await connection.execute(text(_STUCK), {"first": first_seq})
        seeded = Seeded(rows, frozenset(row.stream_seq for row in stuck))
        await connection.execute(text(f"DROP TABLE {schema}.{REFS}"))
        await connection.commit()
    return seeded


async def _take_over(
    connection: AsyncConnection, schema: str, models: Collection[str], first_seq: int
) -> dict[str, int]:
    live, ours = await shadow.columns(connection, SCHEMA), await shadow.columns(connection, schema)
    rows = {}
    for model in shadow.chosen(models):
        if model.name not in live:
            continue
        condition = _LEDGER_ROWS if model is LEDGER else _ROWS_OF_REFS
        if model is FRESHNESS:
            condition += _HEARD
        statement = _TAKE.format(
            schema=schema,
            model=model.name,
            columns=", ".join(name for name in ours[model.name] if name in live[model.name]),
            condition=condition.format(schema=schema, column=model.ref_column, first=first_seq),
        )
        if taken := (await connection.execute(text(statement))).rowcount:
            rows[model.name] = taken
    return rows


def as_live(batch: Sequence[Understood], stuck: Collection[int]) -> Sequence[Understood]:
    """`batch`, and in it those that are `stuck` parked as they are live."""
    if not stuck:
        return batch
    return [_parked(each) if each.delivery.seq in stuck else each for each in batch]


def _parked(understood: Understood) -> Understood:
    made = parked(understood.delivery, REFOLD_IMPOSSIBLE, "its rows rest on what is no longer in the log")
    return replace(made, body_bytes=understood.body_bytes)


def sentence(replayed: Replayed) -> str | None:
    """From where on the log proves the tables, and what was taken over; None where the log proves everything."""
    if not replayed.taken_over:
        return None
    rows = ", ".join(f"{count:,} of {model}" for model, count in replayed.taken_over.items())
    return (
        f"the log was trimmed and proves the tables from sequence {replayed.proven_from} on: rows that rest on"
        f" earlier deliveries were taken over as they are ({rows})"
    )
