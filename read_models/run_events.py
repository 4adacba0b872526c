"""ops.run_events: one row per event of anything that runs and ends. Keyed by event id: a log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.envelope import RunEvent
from contracts.record import record
from contracts.registry import EVENTS
from contracts.version import Version
from read_models.port import KEY, LATEST, VERSION, Index, ReadModel, Statement, on


@record
class RunEventRow:
    """One event of a run. The event's own JSON is in ops.platform_events under the same `event_id`."""

    event_id: Annotated[str, KEY]
    version: Annotated[Version, VERSION] = ()
    event_type: Annotated[str | None, LATEST] = None
    ref: Annotated[str | None, LATEST] = None
    source: Annotated[str | None, LATEST] = None
    step: Annotated[str | None, LATEST] = None
    outcome: Annotated[str | None, LATEST] = None
    level: Annotated[str | None, LATEST] = None
    message: Annotated[str | None, LATEST] = None
    actor: Annotated[str | None, LATEST] = None
    correlation_id: Annotated[str | None, LATEST] = None
    occurred_at: Annotated[datetime | None, LATEST] = None
    delivery: Annotated[str | None, LATEST] = None


def _row(statement: Statement[RunEvent]) -> RunEventRow:
    event = statement.event
    return RunEventRow(
        event_id=event.id,
        version=statement.first,
        event_type=event.type,
        ref=event.ref,
        source=event.source,
        step=event.step,
        outcome=event.outcome,
        level=event.level,
        message=event.summary,
        actor=event.actor,
        correlation_id=event.correlation,
        occurred_at=event.occurred_at,
        delivery=statement.delivery,
    )


READ_MODEL = ReadModel(
    name="run_events",
    row=RunEventRow,
    folds=on(*(event for event in EVENTS.values() if issubclass(event, RunEvent)), fold=_row),
    ref_column="ref",
    indexes=(Index("run_events_ref", ("ref",)), Index("run_events_occurred_at", ("occurred_at",), "brin")),
)
