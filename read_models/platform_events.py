"""ops.platform_events: the audit stream, one row per event of any kind. Keyed by event id: a log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.envelope import Event
from contracts.record import record
from contracts.registry import EVENTS
from contracts.version import Version
from read_models.port import KEY, LATEST, PERSONAL, VERSION, Index, ReadModel, Statement, on


@record
class PlatformEvent:
    """One event. `payload` is the event as published; it may name people, so the plain reader has no sight of it."""

    event_id: Annotated[str, KEY]
    version: Annotated[Version, VERSION] = ()
    event_type: Annotated[str | None, LATEST] = None
    ref: Annotated[str | None, LATEST] = None
    source: Annotated[str | None, LATEST] = None
    service: Annotated[str | None, LATEST] = None
    env: Annotated[str | None, LATEST] = None
    level: Annotated[str | None, LATEST] = None
    message: Annotated[str | None, LATEST] = None
    actor: Annotated[str | None, LATEST] = None
    correlation_id: Annotated[str | None, LATEST] = None
    occurred_at: Annotated[datetime | None, LATEST] = None
    received_at: Annotated[datetime | None, LATEST] = None
    delivery: Annotated[str | None, LATEST] = None
    payload: Annotated[bytes | None, LATEST, PERSONAL] = None


def _row(statement: Statement[Event]) -> PlatformEvent:
    event = statement.event
    return PlatformEvent(
        event_id=event.id,
        version=statement.first,
        event_type=event.type,
        ref=event.ref,
        source=event.source,
        service=event.service,
        env=event.env,
        level=event.level,
        message=event.summary,
        actor=event.actor,
        correlation_id=event.correlation,
        occurred_at=event.occurred_at,
        received_at=statement.received_at,
        delivery=statement.delivery,
        payload=statement.data,
    )


READ_MODEL = ReadModel(
    name="platform_events",
    row=PlatformEvent,
    folds=on(*EVENTS.values(), fold=_row),
    ref_column="ref",
    indexes=(
        Index("platform_events_ref", ("ref",)),
        Index("platform_events_correlation_id", ("correlation_id",)),
        Index("platform_events_received_at", ("received_at",), "brin"),
        # What people filter by, each with the time that they sort by. Of `info` there is too much for an index.
        Index("platform_events_occurred_at", ("occurred_at",)),
        Index("platform_events_service", ("service", "occurred_at")),
        Index("platform_events_actor", ("actor", "occurred_at"), where="actor IS NOT NULL"),
        Index("platform_events_env", ("env", "occurred_at"), where="env IS NOT NULL"),
        Index("platform_events_level", ("level", "occurred_at"), where="level <> 'info'"),
        Index("platform_events_message", (), "gin", expression="to_tsvector('simple', message)"),
    ),
)
