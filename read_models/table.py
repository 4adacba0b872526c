"""SQLAlchemy tables derived from row classes: the columns are stated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Double, MetaData, Table, Text, text
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Index as SqlIndex
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from read_models.merge import POSTGRES_TYPES
from read_models.port import Column, ReadModel

SCHEMA = "ops"
FILLFACTOR_PERCENT = 80

_TEXT = Text(collation="C")
_TYPES: dict[str, TypeEngine[Any]] = {
    "text": _TEXT,
    "bigint": BigInteger(),
    "boolean": Boolean(),
    "double precision": Double(),
    "timestamptz": DateTime(timezone=True),
    "date": Date(),
    "jsonb": JSONB(),
    "text[]": ARRAY(_TEXT),
    "bigint[]": ARRAY(BigInteger()),
}


def table_of(model: ReadModel[Any], metadata: MetaData, order: Sequence[str] = ()) -> Table:
    """The table of `model`, added to `metadata`, whose schema it takes; the columns in `order` come first."""
    places = {name: place for place, name in enumerate(order)}
    columns = sorted(model.columns, key=lambda column: places.get(column.name, len(places)))
    return Table(
        model.name,
        metadata,
        *(_column(column) for column in columns),
        *(
            SqlIndex(
                index.name,
                *([text(index.expression)] if index.expression else index.columns),
                postgresql_using=index.method,
                postgresql_where=text(index.where) if index.where else None,
            )
            for index in model.indexes
        ),
        postgresql_with={"fillfactor": str(FILLFACTOR_PERCENT)},
    )


def _column(column: Column) -> SqlColumn[Any]:
    kind = column.rule.name
    default = {"version": text("'{}'"), "tally": text("0")}.get(kind)
    return SqlColumn(
        column.name,
        _TYPES[POSTGRES_TYPES[column.type]],
        primary_key=kind == "key",
        nullable=kind not in ("key", "version", "tally"),
        server_default=default,
    )
