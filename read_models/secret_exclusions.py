"""ops.secret_exclusions: from when to when the deliveries that a leaked secret vouched for are not to be believed.

The projector reads it in every transaction: what one of its rows covers is discarded, before and after it was said.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.ledger import SecretExcluded
from contracts.record import record
from read_models.port import FACT, KEY, ReadModel, Statement


@record
class SecretExclusion:
    """A secret by its name, and a span of time by when deliveries were received: `since` is in it, `until` is not."""

    event_id: Annotated[str, KEY]
    ref: Annotated[str | None, FACT] = None
    secret: Annotated[str | None, FACT] = None
    since: Annotated[datetime | None, FACT] = None
    until: Annotated[datetime | None, FACT] = None
    why: Annotated[str | None, FACT] = None
    actor: Annotated[str | None, FACT] = None
    excluded_at: Annotated[datetime | None, FACT] = None


def _row(statement: Statement[SecretExcluded]) -> SecretExclusion:
    event = statement.event
    return SecretExclusion(
        event_id=event.id,
        ref=event.ref,
        secret=event.secret,
        since=event.since,
        until=event.until,
        why=event.why,
        actor=event.actor,
        excluded_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="secret_exclusions", row=SecretExclusion, folds={SecretExcluded: _row}, ref_column="ref"
)
