"""ops.listings: one row per source and scope, and when the newest reading to its end began.

What such a listing did not show is gone: views compare `last_listing_at` with when a thing was last heard of. No ref
leads to a row here, so a refold leaves it alone; what it holds only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from contracts.polls import ListingCompleted
from read_models.port import GREATEST, KEY, ReadModel, Statement, on


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A scope that was read to its end."""

    source: Annotated[str, KEY]
    scope: Annotated[str, KEY]
    last_listing_at: Annotated[datetime | None, GREATEST] = None


def _complete(statement: Statement[ListingCompleted]) -> Listing | None:
    """Only the last part says that there is no more."""
    event = statement.event
    if event.part != event.parts:
        return None
    return Listing(source=event.source, scope=event.scope, last_listing_at=event.started_at)


READ_MODEL = ReadModel(
    name="listings", row=Listing, folds=on(ListingCompleted, fold=_complete), ref_column=None
)
