"""ops.backup_jobs: one row per restore, clone or snapshot that somebody asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.backups import BackupJobEvent, BackupJobFinished, BackupJobQueued, BackupJobStarted
from contracts.record import record
from contracts.version import Version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, LATEST, VERSION, Index, ReadModel, Statement


@record
class BackupJob:
    """A job on a backup, kept for the audit: who wanted what done to which database."""

    ref: Annotated[str, KEY]
    env: Annotated[str | None, FACT] = None
    """Where the backup comes from."""
    action: Annotated[str | None, FACT] = None
    stated_action: Annotated[str | None, FACT] = None
    backup_ref: Annotated[str | None, FACT] = None
    target_env: Annotated[str | None, FACT] = None
    target_database: Annotated[str | None, FACT] = None
    actor: Annotated[str | None, FACT] = None
    """Who asked for it."""
    runner: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    queued_at: Annotated[datetime | None, EARLIEST] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """queued, running, success, partial, failed, cancelled, skipped, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    error: Annotated[str | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _queued(statement: Statement[BackupJobQueued]) -> BackupJob:
    event = statement.event
    return BackupJob(**_shared(statement), actor=event.actor, queued_at=event.occurred_at)


def _started(statement: Statement[BackupJobStarted]) -> BackupJob:
    return BackupJob(**_shared(statement), started_at=statement.event.occurred_at)


def _finished(statement: Statement[BackupJobFinished]) -> BackupJob:
    event = statement.event
    return BackupJob(
        **_shared(statement),
        started_at=event.started_at,
        stated_status=event.stated_status,
        error=event.error,
        finished_at=event.occurred_at,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: BackupJobEvent = statement.event
    return {
        "ref": event.ref,
        "env": event.env,
        "action": event.action,
        "stated_action": event.stated_action,
        "backup_ref": event.backup_ref,
        "target_env": event.target_env,
        "target_database": event.target_database,
        "runner": event.runner,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="backup_jobs",
    row=BackupJob,
    folds={BackupJobQueued: _queued, BackupJobStarted: _started, BackupJobFinished: _finished},
    ref_column="ref",
    indexes=(Index("backup_jobs_backup_ref", ("backup_ref",)),),
)
