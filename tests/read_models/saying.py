"""Folds what OdooOps itself says, in every order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

from contracts.envelope import Event
from contracts.own import delivery_of
from read_models.merge import join_all
from read_models.registry import READ_MODELS
from services.projector.understand import Understood, understand
from tests.samples import SOURCES

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SAID_AT = NOON + timedelta(hours=12)
MODELS = {model.name: model for model in READ_MODELS}


def after(minutes: float) -> datetime:
    """So many minutes past noon."""
    return NOON + timedelta(minutes=minutes)


def understood(events: Iterable[Event]) -> list[Understood]:
    """The deliveries that state `events`, understood in this order of arrival."""
    return [
        understand(SOURCES, replace(delivery_of(event, "job", SAID_AT), seq=seq))
        for seq, event in enumerate(events, 1)
    ]


def folded(table: str, events: Iterable[Event]) -> list[dict[str, Any]]:
    """The rows of `table` by key, without their versions, which say where in the log a statement stands."""
    model = MODELS[table]
    versions = {column.name for column in model.columns if column.rule.name == "version"}
    rows = []
    for each in understood(events):
        assert each.status == "projected", each.error
        rows += [row for name, row in each.rows if name == table]
    joined = join_all(model, rows)
    return [
        {name: value for name, value in asdict(joined[key]).items() if name not in versions}
        for key in sorted(joined)
    ]


def in_any_order(table: str, history: Sequence[Event]) -> list[dict[str, Any]]:
    """The rows that `history` gives, which no order of arrival changes."""
    (first, *others) = [folded(table, order) for order in permutations(history)]
    assert all(other == first for other in others)
    return first
