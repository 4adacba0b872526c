"""The merge rules, each once as Python (inside a batch) and once as SQL (into the table), side by side.

    rule       the column takes                                        Python    SQL
    key        nothing, it names the row
    version    the greater version                                     max       CASE WHEN
    latest     what the higher version of its group states, NULL too   replaced with its version
    earliest   the minimum; None is no statement                       min       LEAST
    greatest   the maximum; None is no statement                       max       GREATEST
    fact       the least value that is not None                        min       LEAST
    tally      the sum (operational)                                   +         +
    note       the newer one that is not None (operational)            or        COALESCE

All but the operational two are joins of semilattices: commutative, associative, idempotent. So any order,
duplication and batching of the same statements gives the same row. The shapes of the SQL were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, datetime
from typing import Any, TypeVar

from contracts.version import Version
from read_models.port import Column, ReadModel, RuleName

Row = TypeVar("Row")

POSTGRES_TYPES: dict[Any, str] = {
    str: "text",
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    datetime: "timestamptz",
    date: "date",
    bytes: "jsonb",
    list[str]: "text[]",
    list[int]: "bigint[]",
    Version: "bigint[]",
}
"""Column type by Python type. `bytes` is a JSON text that is stored as it stands."""


def _least(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    return min(old, new)


def _greatest(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    return max(old, new)


def _sum(old: Any, new: Any) -> Any:
    return old + new


def _newer(old: Any, new: Any) -> Any:
    return old if new is None else new


_PYTHON: dict[RuleName, Callable[[Any, Any], Any]] = {
    "earliest": _least,
    "greatest": _greatest,
    "fact": _least,
    "tally": _sum,
    "note": _newer,
}

_SQL: dict[RuleName, str] = {
    "version": "CASE WHEN excluded.{c} > t.{c} THEN excluded.{c} ELSE t.{c} END",
    "latest": "CASE WHEN excluded.{g} > t.{g} THEN excluded.{c} ELSE t.{c} END",
    "earliest": "LEAST(t.{c}, excluded.{c})",
    "greatest": "GREATEST(t.{c}, excluded.{c})",
    "fact": "LEAST(t.{c}, excluded.{c})",
    "tally": "t.{c} + excluded.{c}",
    "note": "COALESCE(excluded.{c}, t.{c})",
}

# A row is written only where one of these holds. A `latest` column changes exactly when its version does.
_CHANGES: dict[RuleName, str] = {
    "version": "excluded.{c} > t.{c}",
    "earliest": "LEAST(t.{c}, excluded.{c}) IS DISTINCT FROM t.{c}",
    "greatest": "GREATEST(t.{c}, excluded.{c}) IS DISTINCT FROM t.{c}",
    "fact": "LEAST(t.{c}, excluded.{c}) IS DISTINCT FROM t.{c}",
    "tally": "excluded.{c} <> 0",
    "note": "COALESCE(excluded.{c}, t.{c}) IS DISTINCT FROM t.{c}",
}


def joiner(model: ReadModel[Row]) -> Callable[[Row, Row], Row]:
    """The function that merges two rows of `model` with equal keys."""
    groups: dict[str, list[str]] = {c.name: [c.name] for c in model.columns if c.rule.name == "version"}
    for column in model.columns:
        if column.rule.name == "latest":
            groups[column.rule.group].append(column.name)
    joins = [(c.name, _PYTHON[c.rule.name]) for c in model.columns if c.rule.name in _PYTHON]

    def join(old: Row, new: Row) -> Row:
        taken: dict[str, Any] = {}
        for version, names in groups.items():
            if getattr(new, version) > getattr(old, version):
                taken.update((name, getattr(new, name)) for name in names)
        for name, rule in joins:
            taken[name] = rule(getattr(old, name), getattr(new, name))
        return replace(old, **taken)  # type: ignore[type-var]  # rows are dataclasses, which a TypeVar cannot say

    return join


def join_all(model: ReadModel[Row], rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """`rows` merged by key."""
    join = joiner(model)
    joined: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        join_into(joined, model, join, row)
    return joined


def join_into(
    joined: dict[tuple[Any, ...], Row], model: ReadModel[Row], join: Callable[[Row, Row], Row], row: Row
) -> None:
    """Merge one more row into rows by key; `join` is the model's `joiner`."""
    key = tuple(getattr(row, name) for name in model.key)
    before = joined.get(key)
    joined[key] = row if before is None else join(before, row)


def merge_sql(model: ReadModel[Any], schema: str) -> str:
    """The statement that merges a JSON array of rows, parameter `:rows`, into the model's table.

    Each key may stand in the array once. Sorted by key, so that parallel projectors cannot deadlock.
    """
    names = [column.name for column in model.columns]
    table = f"{schema}.{model.name}"
    updates = [f"{c.name} = {_fill(_SQL, c)}" for c in model.columns if c.rule.name != "key"]
    changes = [_fill(_CHANGES, c) for c in model.columns if c.rule.name in _CHANGES]
    key_order = ", ".join(
        f's.{name} COLLATE "C"' if _is_text(model, name) else f"s.{name}" for name in model.key
    )
    return (
        f"INSERT INTO {table} AS t ({', '.join(names)})\n"
        f"SELECT {', '.join(_select(c) for c in model.columns)}\n"
        f"FROM json_to_recordset(CAST(:rows AS json)) AS s({', '.join(_declare(c) for c in model.columns)})\n"
        f"ORDER BY {key_order}\n"
        f"ON CONFLICT ({', '.join(model.key)}) DO UPDATE SET\n  " + ",\n  ".join(updates) + "\n"
        "WHERE " + "\n   OR ".join(changes)
    )


def _fill(templates: dict[RuleName, str], column: Column) -> str:
    return templates[column.rule.name].format(c=column.name, g=column.rule.group)


def _is_text(model: ReadModel[Any], name: str) -> bool:
    return any(column.name == name and column.type is str for column in model.columns)


def _select(column: Column) -> str:
    if column.rule.name == "version":
        return f"COALESCE(s.{column.name}, '{{}}')"
    return f"s.{column.name}"


def _declare(column: Column) -> str:
    return f"{column.name} {POSTGRES_TYPES[column.type]}"
