"""ops.advisor_dismissals: one row per finding that somebody decided about, in whichever scan it is seen."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.advisor import AdvisorDecision, AdvisorFindingDismissed, AdvisorFindingReopened
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, KEY, LATEST, VERSION, ReadModel, Statement, on


@record
class AdvisorDismissal:
    """The newest decision about a finding."""

    ref: Annotated[str, KEY]
    advisor: Annotated[str | None, FACT] = None
    fingerprint: Annotated[str | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    dismissed: Annotated[bool | None, LATEST] = None
    decided_by: Annotated[str | None, LATEST] = None
    decided_at: Annotated[datetime | None, LATEST] = None
    reason: Annotated[str | None, LATEST] = None


def _decided(statement: Statement[AdvisorDecision]) -> AdvisorDismissal:
    event = statement.event
    return AdvisorDismissal(
        ref=event.ref,
        advisor=event.advisor,
        fingerprint=event.fingerprint,
        version=statement.version,
        dismissed=event.dismissed,
        decided_by=event.actor,
        decided_at=event.occurred_at,
        reason=event.reason,
    )


READ_MODEL = ReadModel(
    name="advisor_dismissals",
    row=AdvisorDismissal,
    folds=on(AdvisorFindingDismissed, AdvisorFindingReopened, fold=_decided),
    ref_column="ref",
)
