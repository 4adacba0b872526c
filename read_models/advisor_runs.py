"""ops.advisor_runs: one row per scan of the platform."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.advisor import AdvisorRunEvent, AdvisorRunFinished, AdvisorRunStarted
from contracts.record import record
from contracts.version import Version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, LATEST, VERSION, ReadModel, Statement


@record
class AdvisorRun:
    """A scan. Complete is one that succeeded and of which `finding_count` findings are at hand."""

    ref: Annotated[str, KEY]
    advisor: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    triggered_by: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """running, success, partial, failed, cancelled, skipped, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    finding_count: Annotated[int | None, LATEST] = None
    error: Annotated[str | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _started(statement: Statement[AdvisorRunStarted]) -> AdvisorRun:
    return AdvisorRun(**_shared(statement), started_at=statement.event.occurred_at)


def _finished(statement: Statement[AdvisorRunFinished]) -> AdvisorRun:
    event = statement.event
    return AdvisorRun(
        **_shared(statement),
        started_at=event.started_at,
        stated_status=event.stated_status,
        finding_count=event.finding_count,
        error=event.error,
        finished_at=event.occurred_at,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: AdvisorRunEvent = statement.event
    return {
        "ref": event.ref,
        "advisor": event.advisor,
        "env": event.env,
        "triggered_by": event.triggered_by,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="advisor_runs",
    row=AdvisorRun,
    folds={AdvisorRunStarted: _started, AdvisorRunFinished: _finished},
    ref_column="ref",
)
