"""ops.runs: one row per execution, of ours or reported by others: what a row of ops.run_events belongs to by `ref`.

CI builds, deployments and polls are executions too and have tables of their own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.jobs import JobRunEvent, JobRunFinished, JobRunProgressed, JobRunStarted
from contracts.record import record
from contracts.runs import ReportedRun, RunFinished, RunQueued, RunStarted
from contracts.version import Version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, LATEST, VERSION, Index, ReadModel, Statement, on


@record
class Run:
    """An execution. `runner` is who executes it: a worker of ours, or the application that reports it."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    kind: Annotated[str | None, FACT] = None
    name: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    repository: Annotated[str | None, FACT] = None
    job_ref: Annotated[str | None, FACT] = None
    triggered_by: Annotated[str | None, FACT] = None
    runner: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """queued, running, success, partial, failed, cancelled, skipped, neutral, action_required, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    error: Annotated[str | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _reported(statement: Statement[ReportedRun]) -> Run:
    event = statement.event
    return Run(
        ref=event.ref,
        source=event.source,
        kind=event.kind,
        name=event.name,
        env=event.env,
        repository=event.repository,
        runner=event.reporter,
        correlation_id=event.correlation,
        url=event.url,
        started_at=event.started_at,
        version=statement.version,
        status=event.status,
        stated_status=event.provider_conclusion or event.provider_status,
        finished_at=event.finished_at,
        last_event_at=event.occurred_at,
    )


def _alive(statement: Statement[JobRunEvent]) -> Run:
    return Run(**_shared(statement), started_at=statement.event.occurred_at)


def _finished(statement: Statement[JobRunFinished]) -> Run:
    event = statement.event
    return Run(
        **_shared(statement),
        started_at=event.started_at,
        stated_status=event.stated_status,
        error=event.error,
        finished_at=event.occurred_at,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: JobRunEvent = statement.event
    return {
        "ref": event.ref,
        "source": event.source,
        "kind": event.kind,
        "name": event.name,
        "env": event.env,
        "job_ref": event.job_ref,
        "triggered_by": event.triggered_by,
        "runner": event.runner,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="runs",
    row=Run,
    folds={
        **on(RunQueued, RunStarted, RunFinished, fold=_reported),
        **on(JobRunStarted, JobRunProgressed, fold=_alive),
        JobRunFinished: _finished,
    },
    ref_column="ref",
    indexes=(Index("runs_correlation_id", ("correlation_id",)), Index("runs_job_ref", ("job_ref",))),
)
