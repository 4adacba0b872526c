"""The log in blocks: each is read, understood, and folded at its turn. All processes of a replay do this."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy.exc import DBAPIError

from contracts.delivery import Delivery, UnreadableDelivery
from runtime import bus, streams
from runtime.bus import LogTrimmed
from runtime.garbage import seldom_collected
from runtime.postgres import is_outage
from runtime.reading import Reading
from services.projector import seed
from services.projector.understand import Understood, understand, unreadable
from services.projector.work import Busy
from services.projector.write import Writer, refused

YIELD_EVERY = 16
"""Deliveries understood in one go: between, Postgres is given its next statement."""


@dataclass(frozen=True, slots=True)
class Until:
    """Where a replay ends: deliveries received later are left out, those after a sequence are not even read."""

    received_at: datetime | None = None
    seq: int | None = None


class Block(NamedTuple):
    """The deliveries after one sequence up to another: the `number`-th part of what is replayed, from 0."""

    number: int
    after: int
    last: int


class Dealer(Protocol):
    """Deals blocks in the order of the log, and says when one may be settled: once all before it are."""

    async def next(self) -> Block | None:
        """The next block that nobody has; None where there is none."""

    async def turn(self, number: int) -> None:
        """Return when all blocks before this one are settled."""

    def settled(self, number: int) -> None:
        """Let the next block be settled."""

    def folded(self, number: int, count: int, left_out: int) -> None:
        """A block is in the tables: so many of its deliveries, without so many that came too late."""


@dataclass(frozen=True)
class Turn:
    """The turn of one block."""

    dealer: Dealer
    number: int

    async def come(self) -> None:
        """Return when it has come."""
        await self.dealer.turn(self.number)

    def pass_on(self) -> None:
        """Whose turn is next need not wait any longer."""
        self.dealer.settled(self.number)


@dataclass(slots=True)
class Part:
    """Deliveries of the log, understood: those to be folded, how many are done with them, how many came too late."""

    batch: list[Understood] = field(default_factory=list)
    count: int = 0
    left_out: int = 0


@dataclass
class Folding:
    """Makes rows of deliveries; `stuck` are those that stay parked because of what was trimmed, by sequence."""

    nc: Client
    writer: Writer
    until: Until = field(default_factory=Until)
    stuck: Collection[int] = frozenset()

    async def blocks(self, dealer: Dealer, passed_over: Collection[str] = ()) -> None:
        """Fold one block after the other: understand it while Postgres writes the one before.

        Deliveries on the subjects `passed_over` are folded already.
        """
        reading = Reading(self.nc, streams.DELIVERIES)
        writing: asyncio.Task[None] | None = None
        try:
            with seldom_collected():
                while (block := await dealer.next()) is not None:
                    if reading.position != block.after:
                        await reading.close()
                        reading = Reading(self.nc, streams.DELIVERIES, block.after)
                    part = Part()
                    async for messages in reading.upto(block.last):
                        await self.understand(messages, part, passed_over)
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(block, part, dealer))
                if writing is not None:
                    await writing
        finally:
            if writing is not None and not writing.done():
                writing.cancel()
                await asyncio.wait([writing])
            await reading.close()

    async def _write(self, block: Block, part: Part, dealer: Dealer) -> None:
        turn = Turn(dealer, block.number)
        await self._fold(part.batch, lambda batch: self.writer.fold_in_turn(batch, turn))
        turn.pass_on()
        dealer.folded(block.number, part.count, part.left_out)

    async def alone(self, reading: Reading, last: int, batch_count: int) -> Part:
        """Fold what `reading` has up to the sequence `last` while nobody else writes the schema; what there was."""
        whole = Part()
        async for messages in reading.upto(last):
            await self.understand(messages, whole)
            if len(whole.batch) >= batch_count:
                await self._fold(whole.batch, self.writer.fold_unseen)
                whole.batch = []
        await self._fold(whole.batch, self.writer.fold_unseen)
        return whole

    async def understand(
        self, messages: Sequence[Msg], part: Part, passed_over: Collection[str] = ()
    ) -> None:
        """Add what `messages` mean to `part`."""
        js = self.nc.jetstream()
        for n, message in enumerate(messages):
            if n % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            seq = bus.sequence_of(message)
            unread: Understood | None = None
            try:
                delivery = await bus.delivery_of(js, message.subject, message.headers, message.data, seq)
            except UnreadableDelivery as error:
                stored_at, headers = message.metadata.timestamp, message.headers or {}
                unread = unreadable(message.subject, headers, message.data, stored_at, seq, error)
                delivery = unread.delivery
            if not self._is_wanted(delivery):
                part.left_out += 1
                continue
            part.count += 1
            if message.subject not in passed_over:
                part.batch.append(unread or understand(self.writer.sources, delivery))

    def _is_wanted(self, delivery: Delivery) -> bool:
        return self.until.received_at is None or delivery.received_at <= self.until.received_at

    async def _fold(
        self, batch: Sequence[Understood], once: Callable[[Sequence[Understood]], Awaitable[None]]
    ) -> None:
        """Fold a batch; a delivery of it whose data Postgres refuses is parked, as the projector does."""
        if not batch:
            return
        try:
            await once(seed.as_live(batch, self.stuck))
        except LogTrimmed as error:
            raise Busy(
                "an operator has set deliveries aside, and the rows that they share with trimmed ones are not"
                f" mended yet ({error}): try again when the projector has caught up"
            ) from error
        except (DBAPIError, TypeError) as error:
            half = len(batch) // 2
            if is_outage(error) or (len(batch) == 1 and batch[0].status == "parked"):
                raise
            for part in (batch[:half], batch[half:]) if half else ([refused(batch[0], error)],):
                await self._fold(part, once)
