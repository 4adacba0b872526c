"""Polls: what we asked of a provider's API, and which things a whole listing showed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.envelope import Event, Level, RunEvent
from contracts.version import Int64, Moment, moment

PollStatus = Literal["running", "success", "partial", "failed"]
"""`partial`: some of it could not be read, and what was read counts."""

WEBHOOKS = "webhooks"
"""The scope of everything that a source posts to us: no poll and no listing may be called so."""
LISTED_REFS_MAX = 500
"""Refs in one part of a listing: a part has to stay far below the largest event."""
LISTED_CHARS_MAX = 30_000
"""Of all refs of one part together, for the same reason: some providers' refs are long."""


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
    provider: str | None = None
    """Whose API is polled, where the source is not called like it: `digitalocean`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_scope(self.scope)
        _require_order(self.started_at, self.occurred_at)
        return self

    @property
    def provider_name(self) -> str:
        """Whose API is polled."""
        return self.provider or self.source

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

    @property
    def summary(self) -> str:
        return f"{super().summary}: {self.error}" if self.error else super().summary

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        _require_order(self.finished_at, self.occurred_at)
        return self


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

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_scope(self.scope)
        _require_order(self.started_at, self.occurred_at)
        return self

    @property
    def summary(self) -> str:
        return (
            f"{self.source}: {self.scope} listed, {len(self.refs)} things in part {self.part} of {self.parts}"
        )


def _require_scope(scope: str) -> None:
    if scope == WEBHOOKS:
        raise PydanticCustomError("reserved_scope", "no poll has the scope of what is posted to us")


def _require_order(at: datetime, occurred_at: datetime) -> None:
    # A time ahead of the event's own would be ahead of everything later too: it would never be outgrown.
    if at > occurred_at:
        raise PydanticCustomError(
            "time_after_the_event", "started_at and finished_at are not after occurred_at"
        )


def scope_ref(source: str, scope: str) -> str:
    """The ref of a scope."""
    return f"{source}:scope/{scope}"


def listing(
    source: str, scope: str, started_at: datetime, shown: Mapping[str, Sequence[str]]
) -> list[ListingCompleted]:
    """The events, in the order in which to publish them, that say what a whole listing showed: refs by kind."""
    parts = [(kind, refs) for kind in sorted(shown) for refs in _portions(shown[kind])]
    return [
        ListingCompleted(
            source=source,
            ref=scope_ref(source, scope),
            moment=moment(started_at, 0),
            fact=f"{part}/{len(parts)}",
            occurred_at=started_at,
            scope=scope,
            kind=kind,
            started_at=started_at,
            refs=refs,
            part=part,
            parts=len(parts),
        )
        for part, (kind, refs) in enumerate(parts, 1)
    ]


def _portions(refs: Sequence[str]) -> Iterator[list[str]]:
    """`refs`, each once and sorted, in parts; one empty part where there are none."""
    portion: list[str] = []
    chars = 0
    for ref in sorted(set(refs)):
        if portion and (len(portion) == LISTED_REFS_MAX or chars + len(ref) > LISTED_CHARS_MAX):
            yield portion
            portion, chars = [], 0
        portion.append(ref)
        chars += len(ref)
    yield portion


def moment_of_start(started_at: datetime) -> Moment:
    """The moment of `poll.started`."""
    return moment(started_at, 0)


def moment_of_end(finished_at: datetime) -> Moment:
    """The moment of `poll.finished`, where the poll itself says so."""
    return moment(finished_at, 0, major=1)


def moment_of_cut_off(noticed_at: datetime) -> Moment:
    """The moment of a `poll.finished` with which somebody else closes a run as failed: its own end outranks it."""
    return moment(noticed_at, 1)
