"""ops.listings: one row per scope and kind of thing, and when it was last read to its end.

What such a listing did not show is gone: views compare its `started_at` with when a thing was last seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from contracts.polls import ListingCompleted
from read_models.port import FACT, GREATEST, KEY, ReadModel, Statement, on


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A scope that was read to its end. `started_at` is when the newest complete reading began."""

    ref: Annotated[str, KEY]
    kind: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    scope: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, GREATEST] = None


def _complete(statement: Statement[ListingCompleted]) -> Listing | None:
    """Only the last part says that there is no more."""
    event = statement.event
    if event.part != event.parts:
        return None
    return Listing(
        ref=event.ref, kind=event.kind, source=event.source, scope=event.scope, started_at=event.started_at
    )


READ_MODEL = ReadModel(
    name="listings", row=Listing, folds=on(ListingCompleted, fold=_complete), ref_column="ref"
)
