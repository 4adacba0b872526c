"""ops.secret_sync_runs: one row per try to bring secrets from one store to another. Names, never values."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.record import record
from contracts.secret_sync import SecretSyncEvent, SecretSyncFinished, SecretSyncStarted
from contracts.version import Version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, LATEST, VERSION, ReadModel, Statement, as_json


@record
class SecretSyncRun:
    """A sync. `pushed` are names that were written, `skipped` maps names to reasons."""

    ref: Annotated[str, KEY]
    env: Annotated[str | None, FACT] = None
    actor: Annotated[str | None, FACT] = None
    source_store: Annotated[str | None, FACT] = None
    target_store: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """running, success, partial, failed, cancelled, skipped, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    pushed: Annotated[list[str] | None, LATEST] = None
    skipped: Annotated[bytes | None, LATEST] = None
    error: Annotated[str | None, LATEST] = None
    """A slug."""
    finished_at: Annotated[datetime | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _started(statement: Statement[SecretSyncStarted]) -> SecretSyncRun:
    return SecretSyncRun(**_shared(statement), started_at=statement.event.occurred_at)


def _finished(statement: Statement[SecretSyncFinished]) -> SecretSyncRun:
    event = statement.event
    return SecretSyncRun(
        **_shared(statement),
        started_at=event.started_at,
        stated_status=event.stated_status,
        pushed=event.pushed,
        skipped=as_json(event.skipped),
        error=event.error,
        finished_at=event.occurred_at,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: SecretSyncEvent = statement.event
    return {
        "ref": event.ref,
        "env": event.env,
        "actor": event.actor,
        "source_store": event.source_store,
        "target_store": event.target_store,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="secret_sync_runs",
    row=SecretSyncRun,
    folds={SecretSyncStarted: _started, SecretSyncFinished: _finished},
    ref_column="ref",
)
