"""Leaked secrets: which deliveries are not to be believed any more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from read_models.deliveries import SECRET_EXCLUDED
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What `secret` vouched for, received from `since` on and before `until`, is not believed."""

    secret: str
    since: datetime
    until: datetime

    def covers(self, verified_by: str | None, received_at: datetime) -> bool:
        """Whether a delivery that came at `received_at` is one of those."""
        return verified_by == self.secret and self.since <= received_at < self.until


def believed(understood: Understood, exclusions: Sequence[Exclusion]) -> Understood:
    """`understood`, or where an exclusion covers it the same delivery with nothing to fold and nothing to publish.

    What it was about stays known: that is what has to be looked at after a leak. One that could not take its place
    counts for nothing anyhow, and stays parked.
    """
    delivery = understood.delivery
    covered = any(each.covers(delivery.verified_by, delivery.received_at) for each in exclusions)
    if not covered or understood.reason == REFOLD_IMPOSSIBLE:
        return understood
    return replace(
        understood,
        status="discarded",
        reason=SECRET_EXCLUDED,
        error=f"{delivery.verified_by} vouched for it while it was not to be believed",
        statements=(),
        rows=(),
    )
