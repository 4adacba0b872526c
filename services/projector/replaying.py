"""Replaying the log into a schema beside the live one: what is there by now, and then what comes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

import nats.errors
from nats.js.errors import APIError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded
from contracts.own import SOURCE
from runtime import streams
from runtime.reading import Reading
from services.projector import crew, seed, shadow
from services.projector.blocks import Folding, Until
from services.projector.shadow import About
from services.projector.sql import ALWAYS
from services.projector.work import Progress, Work, state_of_log

SHADOW = "ops_rebuild"
WORD_KINDS = [event.type for event in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded)]
OPERATORS_WORDS = tuple(f"{wire.SUBJECT_ROOT}.{SOURCE}.{kind}" for kind in WORD_KINDS)
ALONE_COUNT_MAX = 10_000
"""Deliveries that one process folds before another one would have started."""
TAIL_COUNT_MAX = 2_000
"""Deliveries that may be left to fold while the projectors are held up."""


async def sweep(engine: AsyncEngine) -> list[str]:
    """Remove what a killed rebuild left behind; nobody else may be at it. Returns the schemas' names."""
    async with engine.connect() as connection:
        left = [name for name, about in (await shadow.ours(connection)).items() if about.purpose == "rebuild"]
    for name in left:
        await shadow.drop(engine, name)
    return left


def _with_ledger(models: Collection[str]) -> Collection[str]:
    """`models` and those without which nothing can be settled; none named means all."""
    return {*models, *ALWAYS} if models else ()


@asynccontextmanager
async def replaying(
    work: Work, models: Collection[str], process: int, until: Until | None = None
) -> AsyncIterator[Replay]:
    """A shadow schema with empty tables, and what fills it; it is gone after the block. Call it `alone`.

    Nobody else has a schema of that name: who has lost the lock that keeps others away writes into no other's.
    """
    await sweep(work.engine)
    schema = f"{SHADOW}_{process}"
    about = About("rebuild", datetime.now(UTC).isoformat(), tuple(sorted(models)))
    await shadow.make(work.engine, schema, about, _with_ledger(models))
    try:
        yield Replay(work, schema, models, until or Until())
    finally:
        with suppress(DBAPIError, OSError):  # `status` names it, and the next run removes it
            await shadow.drop(work.engine, schema)


@dataclass
class Replay:
    """One way of the whole log into `schema`. `position` is the last sequence whose delivery is in its tables."""

    work: Work
    schema: str
    models: Collection[str] = ()
    until: Until = field(default_factory=Until)
    position: int = 0
    done: int = 0
    first_seq: int = 1
    proven_from: int = 1
    taken_over: dict[str, int] = field(default_factory=dict)
    _left_out: int = 0
    _seeded_for: int = 1
    _phase: str = "replaying"
    _total: int = 0
    _started: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self._folding = Folding(self.work.nc, self.work.writer(self.schema, self.models), self.until)

    async def run(self) -> None:
        """Fold what is in the log by now; first what operators have said of it, so that nothing is folded in vain."""
        state = await state_of_log(self.work.nc)
        self.first_seq, self._total = state.first_seq, state.messages
        last = self._end(state.last_seq)
        await self._seed()
        await self._fold_words(last)
        if await self._seed():
            await self._fold_words(last)
        await self._fold_blocks(last, OPERATORS_WORDS)

    async def _fold_words(self, last: int) -> None:
        await self._fold_alone(
            Reading(self.work.nc, streams.DELIVERIES, self.position, subjects=OPERATORS_WORDS), last
        )

    async def _seed(self) -> bool:
        """Take over what rests on trimmed deliveries; a log with an age limit loses more of them while we look."""
        before = self._seeded_for
        while self.until == Until():
            self.first_seq = (await state_of_log(self.work.nc)).first_seq
            if self.first_seq <= self._seeded_for:
                break
            self._seeded_for, models = self.first_seq, _with_ledger(self.models)
            if seeded := await seed.seed(self.work.engine, self.schema, models, self.first_seq):
                self.proven_from, self._folding.stuck = self.first_seq, seeded.stuck
                for model, count in seeded.rows.items():
                    self.taken_over[model] = self.taken_over.get(model, 0) + count
        return self._seeded_for > before

    async def upto(self, last: int) -> None:
        """Fold what stands between `position` and the sequence `last`, as fast as it goes: others wait for it."""
        last = self._end(last)
        if last > self.position:
            self._count(
                *await self._fold_alone(Reading(self.work.nc, streams.DELIVERIES, self.position), last)
            )
            self.position = last

    async def index(self) -> None:
        """Give the full tables their indexes."""
        await shadow.index(self.work.engine, self.schema, _with_ledger(self.models))

    async def catch_up(self) -> None:
        """Fold what has come meanwhile, until little enough is left for the moment in which all are held up."""
        self._phase = "catching up"
        while True:
            last = self._end((await state_of_log(self.work.nc)).last_seq)
            if last - self.position <= TAIL_COUNT_MAX:
                return
            self._total += last - self.position
            await self._fold_blocks(last)

    def _end(self, last: int) -> int:
        return last if self.until.seq is None else min(last, self.until.seq)

    async def _fold_alone(self, reading: Reading, last: int) -> tuple[int, int]:
        """Fold what `reading` has; how many deliveries those are, and how many were left out."""
        try:
            part = await self._folding.alone(reading, last, crew.BLOCK_COUNT_MAX)
        finally:
            with suppress(nats.errors.Error, APIError, OSError):  # the broker forgets its consumer by itself
                await reading.close()
        return part.count, part.left_out

    async def _fold_blocks(self, last: int, passed_over: Collection[str] = ()) -> None:
        """Fold the deliveries up to the sequence `last`, but for those on subjects that are folded already."""
        after = max(self.position, self.first_seq - 1)
        processes = self._processes(last - after)
        dealing = crew.Dealing(after, last, crew.block_count(processes), self._count, self._ahead_s)
        await crew.replay(self._folding, dealing, passed_over, processes - 1, self._task(passed_over))
        self.position = last

    def _processes(self, count: int) -> int:
        if self.work.addresses is None or self.work.rate_max or count < ALONE_COUNT_MAX:
            return 1
        return min(crew.processors(), crew.PROCESSES_MAX)

    def _task(self, passed_over: Collection[str]) -> crew.Task | None:
        if self.work.addresses is None:
            return None
        sources = [
            (name, source.file, source.options, source.environments)
            for name, source in self.work.sources.items()
        ]
        stuck = self._folding.stuck
        return crew.Task(
            self.work.addresses, sources, self.schema, self.models, self.until, stuck, passed_over
        )

    def _count(self, count: int, left_out: int) -> None:
        self.done += count
        self._left_out += left_out
        seconds = monotonic() - self._started
        done = self.done + self._left_out
        rate = done / seconds if seconds else 0.0
        left = max(0, self._total - done)
        self.work.tell(Progress(self._phase, done, self._total, rate, left / rate if rate else None))

    def _ahead_s(self) -> float:
        """How far it is ahead of the rate that it may have, in seconds."""
        if not self.work.rate_max:
            return 0.0
        return self.done / self.work.rate_max - (monotonic() - self._started)
