"""Every read model, in the one order in which a transaction touches their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData, Table

from contracts.envelope import Event
from read_models import (
    builds,
    capabilities,
    deliveries,
    deployments,
    integrations_catalog,
    integrations_installations,
    listings,
    platform_events,
    run_events,
    starters,
    work_items,
)
from read_models.port import Fold, ReadModel
from read_models.table import SCHEMA, table_of

LEDGER = deliveries.READ_MODEL
AUDIT = platform_events.READ_MODEL
"""The one model that takes every event: a row that is new there is an event that nobody has published."""

READ_MODELS: tuple[ReadModel[Any], ...] = (
    LEDGER,
    builds.READ_MODEL,
    deployments.READ_MODEL,
    work_items.READ_MODEL,
    listings.READ_MODEL,
    integrations_catalog.READ_MODEL,
    integrations_installations.READ_MODEL,
    capabilities.READ_MODEL,
    starters.READ_MODEL,
    run_events.READ_MODEL,
    platform_events.READ_MODEL,
)

METADATA = MetaData(schema=SCHEMA)
TABLES: Mapping[str, Table] = {model.name: table_of(model, METADATA) for model in READ_MODELS}


def _by_event() -> dict[type[Event], tuple[tuple[ReadModel[Any], Fold], ...]]:
    found: dict[type[Event], tuple[tuple[ReadModel[Any], Fold], ...]] = {}
    for model in READ_MODELS:
        for event, fold in model.folds.items():
            found[event] = (*found.get(event, ()), (model, fold))
    return found


FOLDS: Mapping[type[Event], tuple[tuple[ReadModel[Any], Fold], ...]] = _by_event()
"""Which models take an event type, and how."""
