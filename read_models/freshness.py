"""ops.freshness: one row per source and scope, when it was last heard of. A hot row, hence the last table to write.

What webhooks say of it comes from the deliveries themselves, whatever became of them: an ignored, parked or repeated
one proves all the same that its sender reaches us. Such a row has no ref, so no refold removes what only grows. What
polls and listings say has the ref of its scope, and is replaced by a refold as everything that events state.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

from contracts.polls import WEBHOOKS, ListingCompleted, PollFinished, scope_ref
from contracts.record import record
from contracts.version import Version, moment, version
from read_models.port import EARLIEST, FACT, GREATEST, KEY, VERSION, ReadModel, Statement, latest

OF_THE_LIMIT = latest("limit_version")
OF_THE_ERROR = latest("error_version")


@record
class Freshness:
    """One scope of one source. ops.freshness_now says what follows from it at this moment."""

    source: Annotated[str, KEY]
    scope: Annotated[str, KEY]
    ref: Annotated[str | None, FACT] = None
    """The scope's, where events speak of it; NULL for `webhooks`."""
    first_webhook_at: Annotated[datetime | None, EARLIEST] = None
    """Since when it tells of changes by itself: what polls find of before was never missed."""
    last_webhook_at: Annotated[datetime | None, GREATEST] = None
    last_complete_poll_at: Annotated[datetime | None, GREATEST] = None
    """When the newest poll that succeeded, or listing that came to its end, began."""
    last_listing_at: Annotated[datetime | None, GREATEST] = None
    """When the newest whole listing began: what it did not show is gone."""
    last_failed_poll_at: Annotated[datetime | None, GREATEST] = None
    """When the newest poll began that did not succeed."""
    limit_version: Annotated[Version, VERSION] = ()
    stale_after_s: Annotated[int | None, OF_THE_LIMIT] = None
    error_version: Annotated[Version, VERSION] = ()
    last_error_at: Annotated[datetime | None, OF_THE_ERROR] = None
    last_error: Annotated[str | None, OF_THE_ERROR] = None


def heard(
    source: str, first_at: datetime, received_at: datetime, seq: int, quiet_s_max: int | None
) -> Freshness:
    """The row that says that `source` posted something, and after how long a silence it is stale, if ever.

    `first_at` and `received_at` are of the oldest and of the newest that is spoken of.
    """
    return Freshness(
        source=source,
        scope=WEBHOOKS,
        first_webhook_at=first_at,
        last_webhook_at=received_at,
        limit_version=version(moment(received_at, rank=0), seq, 0),
        stale_after_s=quiet_s_max,
    )


def _listed(statement: Statement[ListingCompleted]) -> Freshness | None:
    event = statement.event
    if event.part != event.parts:
        return None
    return Freshness(
        source=event.source,
        scope=event.scope,
        ref=scope_ref(event.source, event.scope),
        last_complete_poll_at=event.started_at,
        last_listing_at=event.started_at,
    )


def _polled(statement: Statement[PollFinished]) -> list[Freshness]:
    event, of_its_end = statement.event, _by_end(statement)
    scope = Freshness(source=event.source, scope=event.scope, ref=scope_ref(event.source, event.scope))
    if event.status == "success":
        rows = [replace(scope, last_complete_poll_at=event.started_at)]
    else:
        rows = [
            replace(
                scope,
                last_failed_poll_at=event.started_at,
                error_version=of_its_end,
                last_error_at=event.finished_at,
                last_error=event.error,
            )
        ]
    if event.stale_after_s is not None:
        rows.append(replace(scope, limit_version=of_its_end, stale_after_s=event.stale_after_s))
    return rows


def _by_end(statement: Statement[PollFinished]) -> Version:
    """Its version among the ends of different runs: by time alone, whereas within a run its own end comes first."""
    major = statement.event.moment[0]
    return (*moment(statement.event.finished_at, rank=major), *statement.version[3:])


READ_MODEL = ReadModel(
    name="freshness",
    row=Freshness,
    folds={ListingCompleted: _listed, PollFinished: _polled},
    ref_column="ref",
)
