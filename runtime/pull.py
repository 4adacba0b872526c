"""Pulling from a durable consumer: full batches where there is a backlog, else each message as it comes.

nats-py's own `fetch` waits for a full batch until its timeout (seen in 2.16: up to the whole second that was
asked for) and leaves the connection idle between two calls. Here a pull stays open while the last batch is being
worked on. At most `2 * count` messages are pulled and not yet read, far below the 64 MB at which the server cuts
a slow reader.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtime import bus

PULL_EXPIRES_S = 5.0
PULL_LOST_S = PULL_EXPIRES_S + 2.0
"""A pull of which nothing was heard for so long died with a server or a connection."""
FILL_S_MAX = 0.05
"""How long a batch waits for messages that the broker says are there: it may keep them for another process."""
CLOSE_S_MAX = 2.0

_EXPIRED = "408"
_CONFLICT = "409"
_UNFULFILLED = "Nats-Pending-Messages"


class ConsumerGone(Exception):
    """the consumer, or JetStream, does not answer: it was deleted, or the broker is starting"""


class Pull:
    """One open pull of a process. `fetch` may be called from several tasks; they take turns."""

    def __init__(self, nc: Client, stream: str, consumer: str, count: int) -> None:
        self._nc = nc
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._count = count
        self._messages: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._inbox = nc.new_inbox()
        self._asked = 0
        self._heard_at = 0.0
        self._reconnects = 0
        self._failure: str | None = None

    async def fetch(self, wait_s: float, most: int | None = None) -> list[Msg]:
        """Up to `count` messages: as many where the log has them, else the first that come within `wait_s`, or none.

        Where only `most` are of use, no more are asked for. Raises ConsumerGone, or a nats error where the broker is
        away: wait and come again.
        """
        async with self._turn:
            await self._ask(most)
            await self._until(lambda: bool(self._messages), wait_s)
            if self._messages:
                await self._until(self._is_whole, FILL_S_MAX)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise ConsumerGone(failure)
            return [self._messages.popleft() for _ in range(min(self._count, len(self._messages)))]

    async def close(self) -> None:
        """Take no more, and give back what nobody fetched, so that another process gets it at once."""
        if self._subscription is not None:
            # Waits for what is on its way as well, but not for a broker that says nothing.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self._subscription.drain()  # type: ignore[no-untyped-call]
        while self._messages:
            await self._messages.popleft().nak()

    def _is_whole(self) -> bool:
        """Whether the batch is full or nothing more is on its way: the last message says how many wait behind it."""
        return (
            len(self._messages) >= self._count
            or not self._asked
            or not bus.waiting_behind(self._messages[-1])
        )

    async def _until(self, holds: Callable[[], bool], wait_s: float) -> None:
        # Not `wait_for`: before Python 3.12 it forgets a cancellation that comes together with a message.
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._failure is None and not holds():
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _ask(self, most: int | None = None) -> None:
        """Keep the server's leave to send at between one and two batches."""
        if self._subscription is None:
            self._subscription = await self._nc.subscribe(self._inbox, cb=self._take)
        if self._reconnects != self._nc.stats["reconnects"] or monotonic() - self._heard_at > PULL_LOST_S:
            self._reconnects = self._nc.stats["reconnects"]
            self._asked = 0
        coming = self._asked + len(self._messages)
        count = self._count if most is None else min(self._count, most - coming)
        if coming < self._count and count > 0:
            request = {"batch": count, "expires": int(PULL_EXPIRES_S * 1e9)}
            await self._nc.publish(self._subject, json.dumps(request).encode(), self._inbox)
            self._asked += count
            self._heard_at = monotonic()

    async def _take(self, message: Msg) -> None:
        self._heard_at = monotonic()
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is None:
            self._asked = max(0, self._asked - 1)
            self._messages.append(message)
        elif status in (_EXPIRED, _CONFLICT):
            headers = message.headers or {}
            self._asked = max(0, self._asked - int(headers.get(_UNFULFILLED, self._asked)))
            if status == _CONFLICT:
                self._failure = headers.get("Description", "the pull was refused")
        else:
            self._asked = 0
            self._failure = f"status {status}"
        if self._messages or self._failure:
            self._arrived.set()
