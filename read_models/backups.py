"""ops.backups: one row per snapshot of a database."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.backups import BackupEvent, BackupExpired, BackupFinished, BackupStarted
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    LATEST,
    VERSION,
    Index,
    ReadModel,
    Statement,
    latest,
)

OF_ITS_END = latest("end_version")


@record
class Backup:
    """A snapshot. How it ended is a group of its own: the event that it was removed knows nothing of it."""

    ref: Annotated[str, KEY]
    backup_id: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    database: Annotated[str | None, FACT] = None
    backup_type: Annotated[str | None, FACT] = None
    stated_backup_type: Annotated[str | None, FACT] = None
    provider: Annotated[str | None, FACT] = None
    storage_ref: Annotated[str | None, FACT] = None
    size_bytes: Annotated[int | None, FACT] = None
    checksum: Annotated[str | None, FACT] = None
    postgres_version: Annotated[str | None, FACT] = None
    created_by: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, EARLIEST] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """running, success, partial, failed, cancelled, skipped, unknown, expired."""
    end_version: Annotated[Version, VERSION] = ()
    stated_status: Annotated[str | None, OF_ITS_END] = None
    error: Annotated[str | None, OF_ITS_END] = None
    finished_at: Annotated[datetime | None, OF_ITS_END] = None
    expires_at: Annotated[datetime | None, OF_ITS_END] = None
    """Whether that is over is for the view backups_now to say."""
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _started(statement: Statement[BackupStarted]) -> Backup:
    return Backup(**_shared(statement), started_at=statement.event.occurred_at)


def _finished(statement: Statement[BackupFinished]) -> Backup:
    event = statement.event
    return Backup(
        **_shared(statement),
        started_at=event.started_at,
        storage_ref=event.storage_ref,
        size_bytes=event.size_bytes,
        checksum=event.checksum,
        postgres_version=event.postgres_version,
        end_version=statement.version,
        stated_status=event.stated_status,
        error=event.error,
        finished_at=event.occurred_at,
        expires_at=event.expires_at,
    )


def _expired(statement: Statement[BackupExpired]) -> Backup:
    return Backup(**_shared(statement))


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: BackupEvent = statement.event
    return {
        "ref": event.ref,
        "backup_id": event.backup_id,
        "env": event.env,
        "database": event.database,
        "backup_type": event.backup_type,
        "stated_backup_type": event.stated_backup_type,
        "provider": event.provider,
        "created_by": event.created_by,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "created_at": event.created_at,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="backups",
    row=Backup,
    folds={BackupStarted: _started, BackupFinished: _finished, BackupExpired: _expired},
    ref_column="ref",
    indexes=(Index("backups_env", ("env", "created_at")),),
)
