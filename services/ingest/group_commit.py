"""Group commit: one message goes alone and at once; when many are under way, they go as atomic batches.

The broker syncs a message that comes alone once, and a whole batch once; but it makes and removes a folder for each
batch, which so costs as much as some 8 messages (nats-server 2.15, measured). Nobody chooses a batch's size and
nothing waits for a clock: a batch is what has come while the one before was on its way, so the busier the door, the
less a delivery costs. Only where an answer is late, the next batch goes without it: it may be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import nats.errors
from nats.aio.client import Client
from prometheus_client import Counter, Histogram

from contracts.delivery import MESSAGE_ID, Delivery
from runtime import bus, streams
from runtime.bus import Ack, BatchRefused, BrokerAway, Message, Store

BATCHED = Histogram(
    "odooops_ingest_batch_deliveries",
    "Deliveries stored by one atomic batch",
    buckets=(8, 16, 32, 64, 128, 256, 500),
)
STORE_SECONDS = Histogram(
    "odooops_ingest_store_seconds",
    "From handing a delivery to the broker to its acknowledgement",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
REFUSED = Counter(
    "odooops_ingest_batches_refused_total", "Atomic batches whose deliveries were then stored one by one"
)


def store_by(nc: Client) -> Store:
    """What stores deliveries by the connection `nc`, all of a process by the same groups."""
    js = nc.jetstream()

    def together(messages: Sequence[Message]) -> Awaitable[int]:
        return bus.publish_atomically(nc, messages, streams.PUBLISH_ATTEMPT_S)

    group = GroupCommit(partial(bus.store_alone, js), together)

    async def store(delivery: Delivery, wait_s: float) -> Ack:
        started = perf_counter()
        ack = await bus.store_delivery(js, delivery, wait_s, group.store)
        STORE_SECONDS.observe(perf_counter() - started)
        return ack

    return store


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    message: Message
    ack: asyncio.Future[Ack | None]
    """None: whoever waits is to store it alone. Done early where nobody waits any more."""


class GroupCommit:
    """Stores messages for callers that each wait for their own.

    `alone` stores one, and repeats it until it is told; `together` stores all or none and returns the last one's
    sequence, or raises, and then each goes alone: its id makes that harmless, whatever became of the batch. Callers
    are as many as there are connections, and their bodies are counted: the queue needs no bound of its own.
    """

    def __init__(
        self,
        alone: Callable[[Message], Awaitable[Ack]],
        together: Callable[[Sequence[Message]], Awaitable[int]],
    ) -> None:
        self._alone = alone
        self._together = together
        self._under_way = 0
        """Messages that go alone."""
        self._queue: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        """A batch that the others wait for."""
        self._late: asyncio.Task[None] | None = None
        """One that they wait for no more: its answer is late, perhaps lost."""

    async def store(self, message: Message) -> Ack:
        """Store one message: where it stands, once it is fsynced. Raises what `alone` raises."""
        if self._committing or self._queue or self._under_way >= streams.ALONE_COUNT_MAX:
            ack = await self._queued(message)
            if ack is not None:
                return ack
        self._under_way += 1
        try:
            return await self._alone(message)
        finally:
            self._under_way -= 1
            self._go_on()

    async def _queued(self, message: Message) -> Ack | None:
        waiting = _Waiting(message, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._go_on()
        return await waiting.ack

    def _go_on(self) -> None:
        """Send what waits as a batch, one at a time; where it is too little, alone, as far as there is room."""
        if self._committing:
            return
        while len(self._queue) >= streams.GROUP_COUNT_MIN:
            if batch := self._next_batch():  # none where nobody waits any more
                self._committing = asyncio.create_task(self._commit(batch))
                return
        room = streams.ALONE_COUNT_MAX - self._under_way
        while self._queue and room > 0:
            room -= _tell(self._queue.popleft(), None)

    def _next_batch(self) -> list[_Waiting]:
        batch: dict[str, _Waiting] = {}
        bytes_left = streams.GROUP_BYTES_MAX
        while self._queue and len(batch) < streams.ATOMIC_BATCH_COUNT_MAX and bytes_left > 0:
            waiting = self._queue.popleft()
            if waiting.ack.done():
                continue
            # The same id twice would have the whole batch refused.
            if batch.setdefault(waiting.message.headers[MESSAGE_ID], waiting) is not waiting:
                _tell(waiting, None)
            bytes_left -= len(waiting.message.data)
        return list(batch.values())

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        acks: Sequence[Ack | None] = [None] * len(batch)
        task = asyncio.current_task()
        late = asyncio.get_running_loop().call_later(streams.BATCH_LATE_S, self._pass_by, task)
        try:
            last = await self._together([waiting.message for waiting in batch])
            BATCHED.observe(len(batch))
            # A batch stands in the log in one piece.
            acks = [(seq, False) for seq in range(last - len(batch) + 1, last + 1)]
        except (BatchRefused, BrokerAway, nats.errors.Error, OSError):
            REFUSED.inc()
        finally:
            late.cancel()
            if self._late is task:
                self._late = None
            else:
                self._committing = None
            for waiting, ack in zip(batch, acks, strict=True):
                _tell(waiting, ack)
            self._go_on()

    def _pass_by(self, batch: asyncio.Task[None] | None) -> None:
        """Let the others go on without it; but by one at a time, for it may be the broker that is slow."""
        if self._late is None:
            self._late, self._committing = batch, None
            self._go_on()


def _tell(waiting: _Waiting, ack: Ack | None) -> bool:
    """Whether anybody waits to be told."""
    if waiting.ack.done():
        return False
    waiting.ack.set_result(ack)
    return True
