"""One run over one scope: drives the generators of its parts, and stores what they show and say.

Nothing here knows a provider, a lease or a schedule.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from nats.js import JetStreamContext

from contracts import own
from contracts.delivery import Delivery, body_sha256
from contracts.envelope import Event
from contracts.observation import observation
from contracts.polls import (
    PollFinished,
    PollStarted,
    PollStatus,
    listing,
    moment_of_end,
    moment_of_start,
)
from providers.polling import (
    Ask,
    Failed,
    Keep,
    Known,
    Listed,
    Look,
    Part,
    Reply,
    Say,
    Scope,
    Show,
    Step,
    Steps,
    Warn,
)
from providers.port import Item, Source, Unintelligible
from runtime import bus, tracing
from runtime.bus import BrokerAway, LogFull
from runtime.permissions import POLLED_FAMILIES
from services.poller.asking import USED_UP
from services.poller.memory import Memory, Refs, TooLarge

STORES_AT_ONCE = 16
TROUBLES_NAMED_MAX = 5
SENTENCE_CHARS_MAX = 300
NOTES_MAX = 500
ALARMS_MAX = 20
STALE_AFTER_RUNS = 3
STALE_GRACE_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be polled, by whom, and from when on."""

    source: Source
    scope: Scope
    run_id: str
    triggered_by: str
    started_at: datetime
    since: datetime | None = None
    dry_run: bool = False
    """Nothing is stored, remembered or changed anywhere."""

    @property
    def every_s(self) -> int:
        """How often its scope is due."""
        every_s = self.scope.every_s or self.source.file.poll_interval_s
        assert every_s is not None  # no source is polled without
        return every_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a run is not a success. `ended`: the part was not read to its end."""

    part: str
    reason: str
    sentence: str
    ended: bool

    def __str__(self) -> str:
        return f"{self.part}: {self.sentence} ({self.reason})"


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run found, as far as it came."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    calls: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """Things, by kind."""
    troubles: list[Trouble] = field(default_factory=list)
    parts: int = 0
    not_before: datetime | None = None
    """From when on the API lets itself be asked again, where it would not any more."""
    alarms: list[str] = field(default_factory=list)
    """What it said that is wrong at the provider, as a webhook of ours that is off; at most ALARMS_MAX."""
    notes: list[str] = field(default_factory=list)
    """In a dry run: what would have been done. At most NOTES_MAX of `notes_count`."""
    notes_count: int = 0

    @property
    def status(self) -> PollStatus:
        """Failed where every part was."""
        ended = {trouble.part for trouble in self.troubles if trouble.ended}
        if len(ended) >= self.parts > 0:
            return "failed"
        return "partial" if self.troubles else "success"

    @property
    def counts(self) -> dict[str, int]:
        """All figures: what became of things, calls, errors, and the things seen by kind."""
        return {
            **self.seen,
            "seen": self.seen.total(),
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "gone": self.gone,
            "calls": self.calls,
            "errors": len(self.troubles),
        }

    @property
    def error(self) -> str | None:
        """Which parts failed and why, in one sentence; None where none did."""
        parts: dict[tuple[str, str], list[str]] = {}
        for trouble in self.troubles:
            parts.setdefault((trouble.sentence, trouble.reason), []).append(trouble.part)
        told = [f"{', '.join(names)}: {sentence} ({reason})" for (sentence, reason), names in parts.items()]
        named, hidden = "; ".join(told[:TROUBLES_NAMED_MAX]), len(told) - TROUBLES_NAMED_MAX
        return (f"{named}; and {hidden} more" if hidden > 0 else named) or None

    def note(self, line: str) -> None:
        """Of a dry run."""
        self.notes_count += 1
        if len(self.notes) < NOTES_MAX:
            self.notes.append(line)


class Asks(Protocol):
    """Whoever asks the API."""

    calls: int
    not_before: datetime | None

    async def ask(self, request: Ask) -> Reply: ...

    def harmless(self, text: str) -> str: ...


class Run:
    """A run in hand. `report` holds what it has found so far, so that one that is cut off can tell, too."""

    def __init__(self, js: JetStreamContext, memory: Memory, asker: Asks, order: Order) -> None:
        self.report = Report(parts=len(order.scope.parts))
        self._js = js
        self._memory = memory
        self._asker = asker
        self._order = order
        self._unread = dict.fromkeys(order.scope.parts)
        self._last: dict[tuple[str, str], str] = {}
        """The content of each thing that this run showed."""
        self._sights: Counter[str] = Counter()
        """How many deliveries this run made of each ref."""

    async def drive(self) -> None:
        """Read all parts, one after the other; raises BrokerAway or LogFull where nothing can be stored."""
        if not self._order.dry_run:
            await self._store(own.delivery_of(started(self._order), "poll", datetime.now(UTC)))
        for name, part in self._order.scope.parts.items():
            try:
                await self._read(name, part)
            except Failed as error:
                self._trouble(name, error.reason, str(error), ended=True)
            finally:
                self.report.calls, self.report.not_before = self._asker.calls, self._asker.not_before
            self._unread.pop(name)

    def cut_off(self, reason: str, sentence: str) -> None:
        """Its end has come before that of its parts."""
        for name in self._unread:
            self._trouble(name, reason, sentence, ended=True)

    async def finish(self) -> None:
        """Say how it ended; raises BrokerAway or LogFull."""
        if not self._order.dry_run:
            now = datetime.now(UTC)
            await self._store(own.delivery_of(finished(self._order, self.report, now), "poll", now))

    async def _read(self, name: str, part: Part) -> None:
        """Read one part to its end; raises Failed."""
        order = self._order
        steps = part(
            Look(
                source=order.source,
                scope=order.scope.name,
                started_at=order.started_at,
                since=order.since,
                state=await self._memory.kept(order.scope.name, name),
            )
        )
        try:
            came: Any = None
            failure: Failed | None = None
            used_up: Failed | None = None
            while (step := _next(steps, came, failure)) is not None:
                if used_up is not None and isinstance(step, Ask):
                    raise used_up
                came, failure = None, None
                try:
                    came = await self._do(name, step)
                except Failed as error:
                    failure = error
                    used_up = error if error.reason in USED_UP else used_up
            if used_up is not None:
                self._trouble(name, used_up.reason, str(used_up), ended=True)
        finally:
            steps.close()

    async def _do(self, part: str, step: Step) -> Any:
        """What a step is sent; raises Failed."""
        match step:
            case Ask():
                return await self._ask(step)
            case Show():
                await self._show(step)
            case Listed():
                await self._listed(step)
            case Known():
                shown = await self._memory.listed(step.scope) or {}
                since = await self._memory.shown_since(step.scope)
                return frozenset((*since, *(ref for refs in shown.values() for ref in refs)))
            case Say():
                await self._say(step.event)
            case Keep():
                await self._keep(part, step.state)
            case Warn():
                self._trouble(part, step.reason, step.sentence, ended=False)
        return None

    async def _ask(self, request: Ask) -> Reply:
        if self._order.dry_run and request.method != "GET":
            self.report.note(f"would ask: {request.method} {request.path}")
            now = datetime.now(UTC)
            return Reply(status=202, body=b"{}", asked_at=now, fetched_at=now)
        return await self._asker.ask(request)

    async def _show(self, step: Show) -> None:
        """Store what is not as it was stored last, and remember it then."""
        sightings: list[asyncio.Task[str | None]] = []
        room = asyncio.Semaphore(STORES_AT_ONCE)
        # A thing that one page shows twice is as the later sight says.
        sights = {(item.kind, item.ref): item for item in step.items}
        try:
            async with asyncio.TaskGroup() as group:
                sightings += [
                    group.create_task(self._sight(item, step.fetched_at, room)) for item in sights.values()
                ]
        except* (BrokerAway, LogFull) as several:
            raise several.exceptions[0] from None
        if step.listing is not None and not self._order.dry_run:
            fresh = [ref for sighting in sightings if (ref := sighting.result()) is not None]
            await self._memory.remember_shown(step.listing, fresh)

    async def _sight(self, item: Item, fetched_at: datetime, room: asyncio.Semaphore) -> str | None:
        """The ref of a thing that nobody remembers."""
        thing, content = (item.kind, item.ref), body_sha256(item.body)
        before = self._last.get(thing)
        self._last[thing] = content
        if content == before:
            return None
        # One run shows a ref once; where it does so again, with another content, that is the sight of a run of its own.
        self._sights[item.ref] += 1
        nth = self._sights[item.ref]
        run_id = self._order.run_id if nth == 1 else f"{self._order.run_id}.{nth}"
        async with room:
            known = before or await self._memory.last(*thing)
            word = "new" if known is None else "unchanged" if known == content else "changed"
            if before is None:
                self.report.seen[item.kind] += 1
                setattr(self.report, word, getattr(self.report, word) + 1)
            if word == "unchanged" and not item.undated:
                return None
            if self._order.dry_run:
                self.report.note(f"{word}: {item.kind} {item.ref}")
                return None
            shown = observation(
                source=self._order.source.name,
                ref=item.ref,
                kind=item.kind,
                body=item.body,
                via="poll",
                run_id=run_id,
                fetched_at=fetched_at,
            )
            await self._store(shown)
            if word != "unchanged":
                await self._memory.remember(*thing, content)
            return item.ref if word == "new" else None

    async def _listed(self, step: Listed) -> None:
        """Say that a listing is whole: what was shown is stored by now."""
        source = self._order.source.name
        before = await self._memory.listed(step.scope) or {}
        shown: Refs = {kind: sorted(set(refs)) for kind, refs in step.shown.items()}
        for kind, refs in before.items():
            gone = sorted(set(refs).difference(shown.get(kind, ())))
            self.report.gone += len(gone)
            if self._order.dry_run:
                for ref in gone:
                    self.report.note(f"gone: {kind} {ref}")
        if self._order.dry_run:
            return
        for event in listing(source, step.scope, step.began_at, shown):
            await self._store(own.delivery_of(event, "poll", datetime.now(UTC)))
        await self._memory.remember_listed(step.scope, self._order.run_id, shown)

    async def _say(self, event: Event) -> None:
        if event.type.partition(".")[0] not in POLLED_FAMILIES:
            raise Failed("not_ours_to_say", f"a poll may not say {event.type}")
        if self._order.dry_run:
            self.report.note(f"would say: {event.type} {event.ref}")
            return
        await self._store(own.delivery_of(event, "poll", datetime.now(UTC)))
        if event.level == "error" and len(self.report.alarms) < ALARMS_MAX:
            self.report.alarms.append(event.summary)

    async def _keep(self, part: str, state: Mapping[str, Any]) -> None:
        if self._order.dry_run or self._order.since is not None:
            return
        try:
            await self._memory.keep(self._order.scope.name, part, state)
        except TooLarge as error:
            raise Failed("state_too_large", str(error)) from None

    async def _store(self, delivery: Delivery) -> None:
        with tracing.within(tracing.publishing(delivery)) as span:
            await bus.store_delivery(self._js, replace(delivery, trace=tracing.traceparent(span)))

    def _trouble(self, part: str, reason: str, sentence: str, *, ended: bool) -> None:
        said = self._asker.harmless(sentence)[:SENTENCE_CHARS_MAX]
        self.report.troubles.append(Trouble(part=part, reason=reason, sentence=said, ended=ended))


def _next(steps: Steps, came: Any, failure: Failed | None) -> Step | None:
    """A part's next step; None at its end. Raises Failed, for a mistake in the part, too: others go on."""
    try:
        return steps.send(came) if failure is None else steps.throw(failure)
    except StopIteration:
        return None
    except Failed:
        raise
    except Unintelligible as error:
        raise Failed(error.reason, str(error)) from None
    except Exception as error:  # noqa: BLE001  # a mistake of one part must not end the others
        raise Failed("crashed", f"{type(error).__name__} {place_of(error)}") from None


def place_of(error: BaseException) -> str:
    """Where an error comes from. What it says may hold what was read, so that is not told."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {frame.name} ({Path(frame.filename).name}:{frame.lineno})"


def started(order: Order) -> PollStarted:
    """What a run says at its start."""
    return PollStarted(
        **facts(order.source.name, order.run_id),
        moment=moment_of_start(order.started_at),
        occurred_at=order.started_at,
        scope=order.scope.name,
        triggered_by=order.triggered_by,
        status="running",
        started_at=order.started_at,
        provider=provider_of(order.source),
    )


def finished(order: Order, report: Report, now: datetime) -> PollFinished:
    """What a run says at its end."""
    finished_at = max(now, order.started_at)
    return PollFinished(
        **facts(order.source.name, order.run_id),
        moment=moment_of_end(finished_at),
        occurred_at=finished_at,
        scope=order.scope.name,
        triggered_by=order.triggered_by,
        status=report.status,
        started_at=order.started_at,
        provider=provider_of(order.source),
        finished_at=finished_at,
        counts=report.counts,
        error=report.error,
        stale_after_s=STALE_AFTER_RUNS * order.every_s + STALE_GRACE_S,
    )


def facts(source: str, run_id: str) -> dict[str, Any]:
    """What all that is said of a run has in common."""
    return {"source": source, "ref": f"{source}:poll/{run_id}", "run_id": run_id}


def provider_of(source: Source) -> str | None:
    """The provider's name, where the source has another."""
    return None if source.provider.name == source.name else source.provider.name
