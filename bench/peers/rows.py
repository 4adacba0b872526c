"""The rows that a delivery means, as a program without OdooOps would write them: an upsert each, last write wins.

The peers take what our `understand` says, so that reading a body costs all of them alike, and write it into the same
tables with the same indexes. They merge nothing by version and recognise no conflict: that is to their advantage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bench import corpus
from contracts.delivery import Delivery
from contracts.version import Version
from read_models.port import ReadModel
from read_models.registry import LEDGER, READ_MODELS
from services.projector.understand import Understood, ledger_row

SCHEMA = "ops"
_ORDER = {model.name: n for n, model in enumerate(READ_MODELS)}


def deliveries(count: int) -> Iterator[Delivery]:
    """The first `count` deliveries of GitHub, numbered as the log would."""
    return (replace(each, seq=n) for n, each in enumerate(corpus.deliveries(count), 1))


def rows_of(understood: Understood, *, ledger: bool = True) -> list[tuple[ReadModel[Any], Any]]:
    """The delivery's row of the ledger and those of its read models, in an order in which nothing deadlocks."""
    rows = [*understood.rows]
    if ledger:
        rows.append((LEDGER.name, ledger_row(understood, datetime.now(UTC))))
    rows.sort(key=lambda each: _ORDER[each[0]])
    return [(READ_MODELS[_ORDER[name]], row) for name, row in rows]


def upserts(placeholder: str) -> dict[str, str]:
    """The statement of each model; `placeholder` is `$` for asyncpg's numbered ones, else the placeholder itself."""
    return {model.name: _upsert(model, placeholder) for model in READ_MODELS}


def _upsert(model: ReadModel[Any], placeholder: str) -> str:
    names = [column.name for column in model.columns]
    marks = [f"${n}" if placeholder == "$" else placeholder for n in range(1, len(names) + 1)]
    return (
        f"INSERT INTO {SCHEMA}.{model.name} ({', '.join(names)}) VALUES ({', '.join(marks)})"
        f" {on_conflict(model)}"
    )


def on_conflict(model: ReadModel[Any]) -> str:
    """What makes an insert an upsert."""
    updates = [f"{c.name} = excluded.{c.name}" for c in model.columns if c.name not in model.key]
    return f"ON CONFLICT ({', '.join(model.key)}) DO UPDATE SET {', '.join(updates)}"


def values(model: ReadModel[Any], row: Any) -> list[Any]:
    """The parameters of its upsert."""
    return [_value(getattr(row, column.name), column.type) for column in model.columns]


def _value(value: Any, kind: Any) -> Any:
    if kind is Version:
        return list(value)
    return value.decode() if isinstance(value, bytes) else value
