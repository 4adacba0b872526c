"""Polls: what we asked of a provider's API, and which things a whole listing showed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts.envelope import Event, Level, RunEvent
from contracts.version import Int64, moment

PollStatus = Literal["running", "success", "partial", "failed"]
"""`partial`: some of it could not be read, and what was read counts."""

LISTED_REFS_MAX = 500
"""Refs in one part of a listing: a part has to stay far below the largest event."""


class PollEvent(RunEvent):
    """One run of a poll over one scope. `ref` is the run: `digitalocean:poll/<run id>`."""

    service: ClassVar[str] = "poll"

    run_id: str
    scope: str
    """What is polled: `droplets`, `repos/<org>/<repo>/issues`."""
    triggered_by: str
    """`cron`, `manual` or `webhook`."""
    status: PollStatus
    started_at: AwareDatetime

    @property
    def step(self) -> str:
        return self.scope

    @property
    def outcome(self) -> str:
        return self.status

    @property
    def level(self) -> Level:
        return {"failed": "error", "partial": "warn"}.get(self.status, "info")  # type: ignore[return-value]  # levels

    @property
    def correlation(self) -> str:
        return self.run_id

    @property
    def summary(self) -> str:
        return f"{self.source}: poll of {self.scope} {self.status}"


class PollStarted(PollEvent):
    """A poll began."""

    type: ClassVar[str] = "poll.started"


class PollFinished(PollEvent):
    """A poll has ended. One that was cut off is closed as failed, by whoever notices."""

    type: ClassVar[str] = "poll.finished"

    finished_at: AwareDatetime
    counts: dict[str, Int64] = {}
    """How many things were seen, by kind: `{"droplets": 4, "errors": 0}`."""
    error: str | None = None
    """Why it is not a success, in one sentence without secrets."""
    stale_after_s: Int64 | None = None
    """After how many seconds without another success its scope counts as stale."""


class ListingCompleted(Event):
    """A scope was read to its end: what it did not show is gone. `ref` is the scope: `digitalocean:scope/droplets`."""

    type: ClassVar[str] = "listing.completed"
    service: ClassVar[str] = "poll"

    scope: str
    kind: str
    """What kind of thing it lists: `droplet`."""
    started_at: AwareDatetime
    """When the reading began: what was changed later may be missing from it."""
    refs: list[str] = Field(default=[], max_length=LISTED_REFS_MAX)
    """What this part of it showed."""
    part: Int64 = 1
    parts: Int64 = 1
    """Only with its last part is a listing complete."""

    @property
    def summary(self) -> str:
        return (
            f"{self.source}: {self.scope} listed, {len(self.refs)} things in part {self.part} of {self.parts}"
        )


def scope_ref(source: str, scope: str) -> str:
    """The ref of a scope."""
    return f"{source}:scope/{scope}"


def listing_of(
    source: str, scope: str, kind: str, refs: Sequence[str], started_at: datetime
) -> list[ListingCompleted]:
    """The parts, in order, that say that `scope` was read to its end and showed `refs`."""
    cuts = range(0, max(len(refs), 1), LISTED_REFS_MAX)
    return [
        ListingCompleted(
            source=source,
            ref=scope_ref(source, scope),
            moment=moment(started_at, 0),
            fact=f"{part}/{len(cuts)}",
            occurred_at=started_at,
            scope=scope,
            kind=kind,
            started_at=started_at,
            refs=list(refs[start : start + LISTED_REFS_MAX]),
            part=part,
            parts=len(cuts),
        )
        for part, start in enumerate(cuts, 1)
    ]
