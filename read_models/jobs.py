"""ops.jobs: one row per entry of the queue, through all its attempts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.jobs import JobEvent, JobFinished, JobQueued, JobStarted
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    LATEST,
    PERSONAL,
    VERSION,
    ReadModel,
    Statement,
    as_json,
    latest,
)

OF_THE_QUEUE = latest("queued_version")
OF_THE_ERROR = latest("error_version")


@record
class Job:
    """A job. Its last error outlives the attempt; its arguments may name people, so the plain reader sees none."""

    ref: Annotated[str, KEY]
    job_type: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    requested_by: Annotated[str | None, FACT] = None
    max_attempts: Annotated[int | None, FACT] = None
    timeout_s: Annotated[int | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    queued_at: Annotated[datetime | None, EARLIEST] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    """When the first attempt began."""
    attempts: Annotated[int | None, GREATEST] = None
    """How many have begun."""
    queued_version: Annotated[Version, VERSION] = ()
    args: Annotated[bytes | None, OF_THE_QUEUE, PERSONAL] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """queued, running, done, failed (another attempt follows), dead (none does), cancelled, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    run_after: Annotated[datetime | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    """When the newest attempt ended; NULL while one runs or waits."""
    error_version: Annotated[Version, VERSION] = ()
    last_error: Annotated[str | None, OF_THE_ERROR] = None
    last_error_at: Annotated[datetime | None, OF_THE_ERROR] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _queued(statement: Statement[JobQueued]) -> Job:
    event = statement.event
    return Job(
        **_shared(statement),
        attempts=event.attempt - 1,
        max_attempts=event.max_attempts,
        timeout_s=event.timeout_s,
        queued_at=event.occurred_at,
        queued_version=statement.version,
        args=as_json(event.args),
        run_after=event.run_after,
    )


def _started(statement: Statement[JobStarted]) -> Job:
    event = statement.event
    return Job(**_shared(statement), attempts=event.attempt, started_at=event.occurred_at)


def _finished(statement: Statement[JobFinished]) -> Job:
    event = statement.event
    error: dict[str, Any] = {}
    if event.error is not None:
        error = {
            "error_version": statement.version,
            "last_error": event.error,
            "last_error_at": event.occurred_at,
        }
    return Job(
        **_shared(statement),
        attempts=event.attempt,
        started_at=event.started_at,
        stated_status=event.stated_status,
        run_after=event.run_after,
        finished_at=event.occurred_at,
        **error,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: JobEvent = statement.event
    return {
        "ref": event.ref,
        "job_type": event.job_type,
        "env": event.env,
        "requested_by": event.requested_by,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="jobs",
    row=Job,
    folds={JobQueued: _queued, JobStarted: _started, JobFinished: _finished},
    ref_column="ref",
)
