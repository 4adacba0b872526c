"""How far a stage is behind: what it has not done with yet, and how old the oldest of that is.

Told when figures are asked for. What cannot be told then is NaN: down is never shown as none.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import APIError, NotFoundError
from prometheus_client import Gauge

from runtime.process import LOOK_S_MAX, within

MESSAGES = Gauge("odooops_lag_messages", "What a stage has not done with yet; NaN: not known", ["stage"])
SECONDS = Gauge("odooops_lag_seconds", "Age of the oldest of them, 0 for none; NaN: not known", ["stage"])


def unknown(stage: str) -> None:
    """Nothing is known of `stage`, until `told` says otherwise."""
    MESSAGES.labels(stage).set(math.nan)
    SECONDS.labels(stage).set(math.nan)


def told(stage: str, count: int, oldest_at: datetime | None) -> None:
    """`count` messages wait for `stage`; without `oldest_at`, their age is not known."""
    MESSAGES.labels(stage).set(count)
    if count == 0:
        SECONDS.labels(stage).set(0)
    elif oldest_at is not None:
        SECONDS.labels(stage).set(max(0.0, (datetime.now(UTC) - oldest_at).total_seconds()))


async def waiting(js: JetStreamContext, stream: str, consumer: str) -> tuple[int, int] | None:
    """How many messages a consumer has not acknowledged, and the sequence before the first; None: not known."""
    try:
        info: ConsumerInfo = await within(LOOK_S_MAX, js.consumer_info(stream, consumer))
    except (nats.errors.Error, APIError, OSError):
        return None
    floor = info.ack_floor.stream_seq if info.ack_floor else 0
    return (info.num_pending or 0) + (info.num_ack_pending or 0), floor


async def stored_at(js: JetStreamContext, stream: str, after_seq: int) -> datetime | None:
    """When the first message after `after_seq` was stored; None: not known."""
    try:
        return (await within(LOOK_S_MAX, js.get_msg(stream, after_seq + 1, ">", next=True))).time
    except (nats.errors.Error, NotFoundError, APIError, OSError):
        return None


class Taken:
    """When what a process has taken, and not acknowledged, was stored: of the `count_max` that it took last.

    What is given back may be acknowledged by another process; the consumer's floor says so, or it is pushed out by
    newer ones, since the broker gives out no more than that many at a time.
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._stored_at: dict[int, datetime] = {}

    def take(self, seq: int, stored_at: datetime) -> None:
        """It is in hand, or comes again later."""
        self._stored_at.pop(seq, None)
        self._stored_at[seq] = stored_at
        if len(self._stored_at) > self._count_max:
            del self._stored_at[next(iter(self._stored_at))]

    def acknowledge(self, seq: int) -> None:
        """It is done with."""
        self._stored_at.pop(seq, None)

    def oldest_at(self, floor: int) -> datetime | None:
        """Of those behind `floor`, up to which all are acknowledged; None: not known."""
        for seq in [seq for seq in self._stored_at if seq <= floor]:
            del self._stored_at[seq]
        return min(self._stored_at.values(), default=None)
