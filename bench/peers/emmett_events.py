"""@event-driven-io/emmett-postgresql 0.42.0 (npm), event sourcing on Postgres: append with inline projection.

Follows https://event-driven-io.github.io/emmett/event-stores/postgresql.html (inline projections) and the package's
own `postgreSQLRawBatchSQLProjection`; `emmett/run.mjs` is the program, ten appends at a time, as many as its pool has
connections. Each delivery is a stream of one event, and the transaction that appends it upserts ledger and rows, one
statement for each table.

To its advantage it never sees a body: it gets from a file what our code understood, rows that are ready to be written.
To its disadvantage it appends too, in the same transaction: that is what its inline projections are.
It leaves out: bodies and their understanding, merging by version, conflicts of bodies, HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from bench.peers import rows
from read_models.port import ReadModel
from read_models.registry import READ_MODELS
from services.projector.understand import understand
from tests.samples import SOURCES


def write_events(path: Path, count: int) -> None:
    """The statement of each table, then `count` deliveries as rows, one JSON text a line."""
    with path.open("wb") as file:
        file.write(orjson.dumps({model.name: _upsert(model) for model in READ_MODELS}) + b"\n")
        for delivery in rows.deliveries(count):
            found = [
                (model.name, " ".join(str(getattr(row, name)) for name in model.key), row)
                for model, row in rows.rows_of(understand(SOURCES, delivery))
            ]
            line = {"stream": f"delivery-{delivery.identity}", "rows": found}
            file.write(orjson.dumps(line, default=orjson.Fragment) + b"\n")


def _upsert(model: ReadModel[Any]) -> str:
    names = ", ".join(column.name for column in model.columns)
    table = f"{rows.SCHEMA}.{model.name}"
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, %L::json)"
        f" {rows.on_conflict(model)}"
    )
