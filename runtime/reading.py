"""Reading a stream from front to back, in order, by a consumer of one's own that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from time import monotonic

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError
from nats.nuid import NUID

from runtime import streams
from runtime.bus import BrokerAway, sequence_of
from runtime.pull import ConsumerGone, Pull

FORGOTTEN_S = 60.0
"""A reader that has not asked for so long is gone, and its consumer with it."""
AWAY_S_MAX = 60.0
"""How long a reader waits for a broker that is away, or starting, before it gives up."""
READ_COUNT = 64
"""Messages on the way at a time: few enough to be in the processor's cache still when they are understood."""
LOOK_S = 0.25
"""How soon a reader that waits for a message looks whether there is any more to wait for."""


class Reading:
    """One way through a stream. `position` is the last sequence that was given out, or passed over."""

    def __init__(
        self,
        nc: Client,
        stream: str,
        after: int = 0,
        *,
        subjects: Sequence[str] = (),
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> None:
        self.position = after
        self._nc, self._js, self._stream = nc, nc.jetstream(), stream
        self._subjects, self._since, self._headers_only = list(subjects), since, headers_only
        self._pull: Pull | None = None
        self._name = ""
        self._came = 0
        self._ahead: list[Msg] = []

    async def upto(self, last: int) -> AsyncIterator[list[Msg]]:
        """The messages after `position` up to the sequence `last`, in parts; may be asked again for a later `last`.

        Waits for a broker that is away, and raises BrokerAway after AWAY_S_MAX.
        """
        while self.position < last:
            messages, more = await self._next(last)
            within = [message for message in messages if sequence_of(message) <= last]
            self._ahead = messages[len(within) :]
            if within:
                self.position = sequence_of(within[-1])
                yield within
            if self._ahead or not more:
                self.position = max(self.position, last)

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._pull is not None:
            await self._pull.close()
            try:
                await self._js.delete_consumer(self._stream, self._name)
            except (NotFoundError, APIError, nats.errors.Error):
                return  # the broker forgets it by itself

    async def _next(self, wanted: int) -> tuple[list[Msg], bool]:
        """Messages, in order, and whether there may be more after them up to the sequence `wanted`."""
        if self._ahead:
            return self._ahead, True
        given_up_at = monotonic() + AWAY_S_MAX
        while True:
            try:
                pull = self._pull or await self._open()
                if pull is None:
                    return [], False
                messages = await pull.fetch(LOOK_S, wanted - self.position)
                if messages:
                    self._came += len(messages)
                    last = messages[-1].metadata
                    if last.sequence.consumer == self._came:
                        # Nothing was behind the last one when it was sent, which may be a while ago.
                        more = last.num_pending > 0 or last.sequence.stream >= wanted
                        return messages, more or not await self._at_the_end()
                    self._pull = None  # some before it were lost on the way: it starts again where we are
                    continue
                info = await self._js.consumer_info(self._stream, self._name)
                if info.delivered is not None and info.delivered.consumer_seq > self._came:
                    self._pull = None  # sent and lost on the way: it starts again where we are
                elif not info.num_pending:
                    return [], False
            except (ConsumerGone, nats.errors.Error, APIError, OSError) as error:
                if monotonic() > given_up_at:
                    raise BrokerAway(
                        f"{self._stream} cannot be read: {error or type(error).__name__}"
                    ) from None
                self._pull = None
                await asyncio.sleep(streams.RECONNECT_WAIT_S)

    async def _at_the_end(self) -> bool:
        """Whether all that the stream holds now has come."""
        info = await self._js.consumer_info(self._stream, self._name)
        sent = info.delivered.consumer_seq if info.delivered is not None else 0
        return not info.num_pending and sent == self._came

    async def _open(self) -> Pull | None:
        """Make the consumer; None where there is nothing for it yet."""
        self._name = f"reading_{NUID().next().decode()}"
        start: dict[str, object] = {"deliver_policy": DeliverPolicy.ALL}
        if self.position:
            start = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": self.position + 1}
        elif self._since is not None:
            start = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": self._since}
        made = await self._js.add_consumer(
            self._stream,
            ConsumerConfig(
                name=self._name,
                description="Reads from front to back",
                ack_policy=AckPolicy.NONE,
                filter_subjects=self._subjects or None,
                headers_only=self._headers_only,
                mem_storage=True,
                inactive_threshold=FORGOTTEN_S,
                **start,  # type: ignore[arg-type]  # one of the three ways to start
            ),
        )
        self._came = 0
        self._pull = Pull(self._nc, self._stream, self._name, READ_COUNT)
        return self._pull if made.num_pending else None
