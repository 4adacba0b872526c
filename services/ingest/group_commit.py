"""Group commit: one message goes alone and at once; when many are under way, they go as atomic batches.

The broker syncs a message that comes alone once, and a whole batch once; but it makes and removes a folder for each
batch, which so costs as much as some 8 messages (nats-server 2.15, measured). Nobody chooses a batch's size and
nothing waits for a clock: a batch is what has come while the one before was on its way, so the busier the door, the
less a delivery costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import nats.errors
from nats.aio.client import Client
from prometheus_client import Counter, Histogram

from contracts.delivery import MESSAGE_ID
from runtime import bus, streams
from runtime.bus import Ack, BatchRefused, BrokerAway, Message, Store

BATCHED = Histogram(
    "odooops_ingest_batch_deliveries",
    "Deliveries stored by one atomic batch",
    buckets=(8, 16, 32, 64, 128, 256, 500),
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
    return partial(bus.store_delivery, js, store=group.store)


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
            if batch := self._next_batch():  # empty where nobody waits any more
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
        try:
            last = await self._together([waiting.message for waiting in batch])
            BATCHED.observe(len(batch))
            # A batch stands in the log in one piece.
            acks = [(seq, False) for seq in range(last - len(batch) + 1, last + 1)]
        except (BatchRefused, BrokerAway, nats.errors.Error, OSError):
            REFUSED.inc()
        finally:
            self._committing = None
            for waiting, ack in zip(batch, acks, strict=True):
                _tell(waiting, ack)
            self._go_on()


def _tell(waiting: _Waiting, ack: Ack | None) -> bool:
    """Whether anybody waits to be told."""
    if waiting.ack.done():
        return False
    waiting.ack.set_result(ack)
    return True
