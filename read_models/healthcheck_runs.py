"""ops.healthcheck_runs: one row per check that was made. Keyed by event id: a log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.health import HealthcheckCompleted
from contracts.record import record
from contracts.version import Version
from read_models.port import KEY, LATEST, VERSION, Index, ReadModel, Statement


@record
class HealthcheckRun:
    """One check. `ref` names what is checked, so that its rows in order of `checked_at` are its history."""

    event_id: Annotated[str, KEY]
    version: Annotated[Version, VERSION] = ()
    ref: Annotated[str | None, LATEST] = None
    env: Annotated[str | None, LATEST] = None
    target: Annotated[str | None, LATEST] = None
    check_name: Annotated[str | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    """ok, degraded, failing, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    latency_ms: Annotated[float | None, LATEST] = None
    detail: Annotated[str | None, LATEST] = None
    checked_at: Annotated[datetime | None, LATEST] = None


def _completed(statement: Statement[HealthcheckCompleted]) -> HealthcheckRun:
    event = statement.event
    return HealthcheckRun(
        event_id=event.id,
        version=statement.first,
        ref=event.ref,
        env=event.env,
        target=event.target,
        check_name=event.check_name,
        status=event.status,
        stated_status=event.stated_status,
        latency_ms=event.latency_ms,
        detail=event.detail,
        checked_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="healthcheck_runs",
    row=HealthcheckRun,
    folds={HealthcheckCompleted: _completed},
    ref_column="ref",
    indexes=(
        Index("healthcheck_runs_ref", ("ref", "checked_at")),
        Index("healthcheck_runs_checked_at", ("checked_at",), "brin"),
    ),
)
