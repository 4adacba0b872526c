"""What a database webhook means: a row was inserted, updated or deleted. Its values stay in the delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.rows import RowDeleted, RowEvent, RowInserted, RowUpdated
from contracts.text import NotJson, parse
from contracts.version import moment
from providers.port import Ignored, Source, Unintelligible, problems_of
from providers.supabase.options import SupabaseOptions

EVENTS: Mapping[str, type[RowEvent]] = {
    "INSERT": RowInserted,
    "UPDATE": RowUpdated,
    "DELETE": RowDeleted,
}
NAME_CHARS_MAX = 63
"""Postgres cuts longer names."""


class Change(BaseModel):
    """A body, as the trigger builds it."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    type: str
    table: str = Field(min_length=1, max_length=NAME_CHARS_MAX)
    schema_name: str = Field(alias="schema", min_length=1, max_length=NAME_CHARS_MAX)
    record: dict[str, Any] | None = None
    old_record: dict[str, Any] | None = None


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The one event of a delivery; raises Ignored where it is none of ours, Unintelligible to have it parked."""
    try:
        change = parse(Change, delivery.body)
    except NotJson as error:
        raise Unintelligible(
            "not_json", f"The body of this {delivery.kind} cannot be read: {error}."
        ) from None
    except ValidationError as error:
        raise Unintelligible(
            "shape_mismatch", f"This is no database webhook: {problems_of(error)}."
        ) from None
    event = EVENTS.get(change.type)
    if event is None:
        raise Ignored("no_such_event")
    key = _primary_key(change, source.options)
    stated = {"changed_columns": _changed(change)} if event is RowUpdated else {}
    return [
        event(
            source=delivery.source,
            ref=_ref(delivery.source, change, key),
            moment=moment(delivery.received_at, 0),
            # The sender gives neither a time nor an id: the same change may come again.
            fact=delivery.identity,
            occurred_at=delivery.received_at,
            env=source.environments.of(source=delivery.source),
            schema_name=change.schema_name,
            table=change.table,
            primary_key=key,
            **stated,
        )
    ]


def _primary_key(change: Change, options: SupabaseOptions) -> dict[str, str]:
    """The columns that name the row, and their values as text."""
    row = change.record or change.old_record or {}
    key = {name: row.get(name) for name in options.primary_key(change.schema_name, change.table)}
    if not all(_is_scalar(value) for value in key.values()):
        raise Unintelligible(
            "no_primary_key",
            "The row lacks a column of its primary key, or it is no scalar: name the columns of this table"
            " in options.primary_keys of this source.",
        )
    return {name: str(value) for name, value in key.items()}


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


def _ref(source: str, change: Change, key: Mapping[str, str]) -> str:
    """The row's name; parts are encoded, so that no value can pass for two."""
    schema, table = (quote(part, safe="").replace(".", "%2E") for part in (change.schema_name, change.table))
    return f"{source}:{schema}.{table}/" + ",".join(quote(value, safe="") for value in key.values())


def _changed(change: Change) -> list[str]:
    """The names of the columns whose values differ."""
    new, old = change.record or {}, change.old_record or {}
    return sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
