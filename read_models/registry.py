"""Every read model, in the one order in which a transaction touches their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData, Table

from contracts.envelope import Event
from read_models import (
    advisor_dismissals,
    advisor_findings,
    advisor_runs,
    artifacts,
    backup_jobs,
    backups,
    build_jobs,
    builds,
    capabilities,
    deliveries,
    deployment_targets,
    deployments,
    do_actions,
    do_databases,
    do_droplets,
    do_firewalls,
    do_ingest_runs,
    drift,
    exec_sessions,
    freshness,
    healthcheck_runs,
    integrations_catalog,
    integrations_installations,
    jobs,
    mail_events,
    metric_snapshots,
    platform_events,
    policy_gate_runs,
    repo_aliases,
    run_events,
    runs,
    secret_exclusions,
    secret_sync_runs,
    starters,
    work_items,
)
from read_models.port import Fold, ReadModel
from read_models.table import SCHEMA, table_of

LEDGER = deliveries.READ_MODEL
AUDIT = platform_events.READ_MODEL
"""The one model that takes every event: a row that is new there is an event that nobody has published."""
EXCLUSIONS = secret_exclusions.READ_MODEL
"""Which deliveries are not to be believed: the projector asks it before it folds."""
FRESHNESS = freshness.READ_MODEL
"""What deliveries say by having come at all."""

READ_MODELS: tuple[ReadModel[Any], ...] = (
    LEDGER,
    EXCLUSIONS,
    builds.READ_MODEL,
    build_jobs.READ_MODEL,
    deployments.READ_MODEL,
    deployment_targets.READ_MODEL,
    work_items.READ_MODEL,
    backups.READ_MODEL,
    backup_jobs.READ_MODEL,
    advisor_runs.READ_MODEL,
    advisor_findings.READ_MODEL,
    advisor_dismissals.READ_MODEL,
    secret_sync_runs.READ_MODEL,
    policy_gate_runs.READ_MODEL,
    exec_sessions.READ_MODEL,
    jobs.READ_MODEL,
    runs.READ_MODEL,
    artifacts.READ_MODEL,
    healthcheck_runs.READ_MODEL,
    metric_snapshots.READ_MODEL,
    mail_events.READ_MODEL,
    do_droplets.READ_MODEL,
    do_databases.READ_MODEL,
    do_firewalls.READ_MODEL,
    do_actions.READ_MODEL,
    do_ingest_runs.READ_MODEL,
    integrations_catalog.READ_MODEL,
    integrations_installations.READ_MODEL,
    capabilities.READ_MODEL,
    starters.READ_MODEL,
    drift.READ_MODEL,
    run_events.READ_MODEL,
    repo_aliases.READ_MODEL,
    platform_events.READ_MODEL,
    FRESHNESS,  # hot rows: locked last, hence for the shortest time
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
