"""From one event to at most one message: what is to be done about it now, and when to come again.

Every try ends in the row of `notify.messages`; an event is done with when its row's status is final.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.envelope import Event
from runtime import tracing
from runtime.streams import NOTIFY_AGE_S_MAX
from services.notifier import memory
from services.notifier.memory import Entry, Held, Key, Status
from services.notifier.message import Message, message_id, render
from services.notifier.slack import Later, NotThere, Outcome, Posted, Refused, Search

IN_HAND_S = 5.0
"""Another process has the same message in hand."""
AGAIN_S_MIN = 10.0
"""What is still under way after a lost answer has arrived by then, and can be found."""
AGAIN_S_MAX = 120.0
"""Each try without an answer doubles the wait up to this: the broker gives out repeats before what is new."""
DOUBLINGS_MAX = 10

MESSAGES = Counter("odooops_notifier_messages_total", "Messages by what became of them", ["status", "kind"])
DELAY = Histogram(
    "odooops_notifier_delay_seconds",
    "From the provider's time of an event to its message",
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200),
)
SLACK_ERRORS = Counter(
    "odooops_notifier_slack_errors_total", "Posts and look-ups that Slack did not do", ["error"]
)


class Destination(Protocol):
    """Where messages go: a channel, a webhook or standard output."""

    @property
    def name(self) -> str:
        """What the table calls it; holds no secret."""

    @property
    def channel(self) -> str | None:
        """Slack's id of the channel, where it is known."""

    @property
    def ages(self) -> bool:
        """Whether old news are kept from it."""

    @property
    def done(self) -> Literal["posted", "dry_run"]:
        """What a message that it took is called."""

    async def post(self, message_id: str, message: Message) -> Outcome:
        """Try once."""

    async def find(self, message_id: str, since: datetime) -> Search:
        """Whether it is there already."""


class Notifier:
    """Tells one destination."""

    def __init__(
        self, engine: AsyncEngine, destination: Destination, log: structlog.stdlib.BoundLogger
    ) -> None:
        self.destination = destination
        self.slack_problem: str | None = None
        """Why the last post or look-up failed; None after one that did not."""
        self._engine = engine
        self._log = log
        self._closed_until = 0.0

    async def tell(self, event: Event) -> float | None:
        """Do what can be done about `event` now. Returns None when it is done with, else seconds to wait."""
        message = render(event)
        if message is None:
            return None
        closed_s = self._closed_until - time.monotonic()
        if closed_s > 0 and not self.too_old(event):
            return closed_s  # this one would meet the same obstacle
        key = Key(self.destination.name, message.about, message.kind)
        entry = Entry(
            key=key,
            message_id=message_id(key.destination, key.ref, key.kind),
            event_id=event.id,
            text=message.text,
            blocks=message.blocks,
            channel=self.destination.channel,
            occurred_at=event.occurred_at,
        )
        async with self._engine.begin() as connection:
            new = await memory.enter(connection, entry)
        async with self._engine.begin() as connection:
            held = await memory.hold(connection, key)
            if held is None:
                return IN_HAND_S
            if held.status != "posting":
                return None
            return await self._go_on(connection, event, message, entry, held, new)

    def too_old(self, event: Event) -> bool:
        """Whether `event` is no news any more, for a destination that minds."""
        return self.destination.ages and is_old(event)

    async def _go_on(
        self, connection: AsyncConnection, event: Event, message: Message, entry: Entry, held: Held, new: bool
    ) -> float | None:
        too_old = self.too_old(event)
        # A row from before: an earlier try ended without a known end, so look before posting.
        found = NotThere() if new else await self.destination.find(entry.message_id, held.created_at)
        outcome: Outcome | NotThere = found
        if isinstance(found, NotThere) and not too_old:
            with tracing.below(f"post {self.destination.name}", SpanKind.CLIENT, {}) as span:
                outcome = await self.destination.post(entry.message_id, message)
                if not isinstance(outcome, Posted):
                    tracing.failed(span, outcome.reason.partition(":")[0])
        again_s = _again_s(outcome, held.attempts)
        # A search that is refused keeps back its own message only: the others need none.
        if outcome is not found and isinstance(outcome, Later) and outcome.everything:
            self._closed_until = time.monotonic() + again_s
        self._note(outcome)
        status, error = self._verdict(outcome, too_old)
        slack_ts = outcome.ts if isinstance(outcome, Posted) else None
        await memory.mark(connection, entry.key, status, slack_ts=slack_ts, last_error=error)
        self._report(status, event, entry, error)
        return again_s if status == "posting" else None

    def _verdict(self, outcome: Outcome | NotThere, too_old: bool) -> tuple[Status, str | None]:
        """Status and error. NotThere is the end of what is too old to be posted."""
        if isinstance(outcome, Posted):
            return self.destination.done, None
        if isinstance(outcome, Refused):
            return "failed", f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
        if isinstance(outcome, NotThere):
            return "too_old", None
        return ("too_old" if too_old else "posting"), outcome.reason

    def _note(self, outcome: Outcome | NotThere) -> None:
        if isinstance(outcome, NotThere):
            return  # only what is too old ends so, and it says little of Slack's health
        if isinstance(outcome, Posted):
            self.slack_problem = None
            return
        self.slack_problem = outcome.reason
        SLACK_ERRORS.labels(outcome.reason.partition(":")[0]).inc()

    def _report(self, status: Status, event: Event, entry: Entry, error: str | None) -> None:
        told = {"event_id": event.id, "ref": event.ref, "kind": entry.key.kind, "error": error}
        if status == "posting":
            self._log.warning("not posted yet", **told)
            return
        MESSAGES.labels(status, entry.key.kind).inc()
        if status == "posted":
            DELAY.observe(max(0.0, (datetime.now(UTC) - event.occurred_at).total_seconds()))
        if status in ("failed", "too_old"):
            self._log.warning(status, **told)


def is_old(event: Event) -> bool:
    """Whether `event` is no news any more."""
    return datetime.now(UTC) - event.occurred_at > timedelta(seconds=NOTIFY_AGE_S_MAX)


def _again_s(outcome: Outcome | NotThere, attempts: int) -> float:
    """How long to wait before the next try, if there is to be one."""
    if isinstance(outcome, Later) and outcome.seconds is not None:
        return outcome.seconds
    return min(AGAIN_S_MIN * 2.0 ** min(attempts, DOUBLINGS_MAX), AGAIN_S_MAX)
