"""ops.exec_sessions: one row per session in which a person worked, or wanted to work, inside an environment."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.exec_sessions import (
    ExecSessionClosed,
    ExecSessionDenied,
    ExecSessionEnded,
    ExecSessionEvent,
    ExecSessionExpired,
    ExecSessionOpened,
    ExecSessionRequested,
)
from contracts.record import record
from contracts.version import Version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, LATEST, VERSION, ReadModel, Statement, on


@record
class ExecSession:
    """A session. One whose time is over may still be called open here: the view exec_sessions_now knows better."""

    ref: Annotated[str, KEY]
    env: Annotated[str | None, FACT] = None
    target: Annotated[str | None, FACT] = None
    requested_by: Annotated[str | None, FACT] = None
    approved_by: Annotated[str | None, FACT] = None
    reason: Annotated[str | None, FACT] = None
    transcript_ref: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    requested_at: Annotated[datetime | None, EARLIEST] = None
    opened_at: Annotated[datetime | None, EARLIEST] = None
    expires_at: Annotated[datetime | None, GREATEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """requested, open, closed, expired, denied."""
    closed_at: Annotated[datetime | None, LATEST] = None
    detail: Annotated[str | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None


def _requested(statement: Statement[ExecSessionRequested]) -> ExecSession:
    return ExecSession(**_shared(statement), requested_at=statement.event.occurred_at)


def _opened(statement: Statement[ExecSessionOpened]) -> ExecSession:
    event = statement.event
    return ExecSession(
        **_shared(statement),
        approved_by=event.approved_by,
        opened_at=event.occurred_at,
        expires_at=event.expires_at,
    )


def _ended(statement: Statement[ExecSessionEnded]) -> ExecSession:
    event = statement.event
    return ExecSession(
        **_shared(statement),
        transcript_ref=event.transcript_ref,
        closed_at=event.occurred_at,
        detail=event.detail,
    )


def _shared(statement: Statement[Any]) -> dict[str, Any]:
    event: ExecSessionEvent = statement.event
    return {
        "ref": event.ref,
        "env": event.env,
        "target": event.target,
        "requested_by": event.requested_by,
        "reason": event.reason,
        "correlation_id": event.correlation_id,
        "url": event.url,
        "version": statement.version,
        "status": event.outcome,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="exec_sessions",
    row=ExecSession,
    folds={
        ExecSessionRequested: _requested,
        ExecSessionOpened: _opened,
        **on(ExecSessionClosed, ExecSessionExpired, ExecSessionDenied, fold=_ended),
    },
    ref_column="ref",
)
