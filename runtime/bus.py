"""The broker: connections that survive outages, deliveries in, deliveries out, events out.

Measured traps that this file is shaped by: a publish that times out may have been stored (repeat it with the
same message id); one duplicate id refuses a whole atomic batch; a batch of one costs ten plain publishes; a
pull larger than 64 MB makes the server cut the connection (hence the claim check for large bodies).
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ObjectNotFoundError
from nats.nuid import NUID

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from runtime import streams
from runtime.permissions import inbox_prefix

STREAM_FULL_CODES = {10047, 10054, 10077}
"""Not enough storage, message too large, maximum bytes: the stream takes no more."""
_ATOMIC_REFUSED = "the atomic batch was refused"


class BrokerAway(Exception):
    """the broker did not acknowledge in time"""


class LogFull(Exception):
    """the DELIVERIES stream takes no more: it has reached the size that the operator set, or the disk is full"""


class LogTrimmed(Exception):
    """a delivery is no longer in the log"""


class _BatchRefused(Exception):
    """an atomic batch was not stored"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish. Its headers hold the message id that makes a repeat harmless."""

    subject: str
    data: bytes
    headers: Mapping[str, str]


async def connect(
    url: str,
    service: str,
    on_lost: Callable[[str], Awaitable[None]] | None = None,
    on_closed: Callable[[], None] | None = None,
) -> Client:
    """A connection that waits for the broker and reconnects for ever.

    `on_lost` hears of every disconnection and error; `on_closed` is called if the client gives up for good,
    after which only a new process helps.
    """

    async def report(error: Exception | None = None) -> None:
        if on_lost is not None:
            await on_lost(str(error) if error else "disconnected")

    async def closed() -> None:
        if on_closed is not None:
            on_closed()

    return await nats.connect(
        url,
        name=f"odooops-{service}",
        inbox_prefix=inbox_prefix(service),
        max_reconnect_attempts=-1,
        reconnect_time_wait=streams.RECONNECT_WAIT_S,
        connect_timeout=streams.CONNECT_S_MAX,
        ping_interval=10,
        max_outstanding_pings=2,
        error_cb=report,
        disconnected_cb=report,
        closed_cb=closed,
    )


async def store_delivery(js: JetStreamContext, delivery: Delivery) -> tuple[int, bool]:
    """Store `delivery` durably; returns its sequence and whether the broker knew it already.

    Raises BrokerAway after ACCEPT_S_MAX without an acknowledgement, LogFull where the stream refuses.
    """
    try:
        async with asyncio.timeout(streams.ACCEPT_S_MAX):
            if len(delivery.body) <= streams.INLINE_BODY_BYTES_MAX:
                return await _publish_until_acknowledged(js, delivery, delivery.body, None)
            name = body_object_name(delivery)
            await _put_body(js, name, delivery.body)
            return await _publish_until_acknowledged(js, delivery, b"", name)
    except TimeoutError:
        raise BrokerAway("the broker did not acknowledge in time") from None


async def _publish_until_acknowledged(
    js: JetStreamContext, delivery: Delivery, data: bytes, body_object: str | None
) -> tuple[int, bool]:
    while True:
        try:
            ack = await js.publish(
                delivery.subject,
                data,
                timeout=streams.PUBLISH_ATTEMPT_S,
                stream=streams.DELIVERIES,
                headers=wire.to_headers(delivery, body_object),
            )
            return ack.seq, bool(ack.duplicate)
        except APIError as error:
            if error.err_code in STREAM_FULL_CODES:
                raise LogFull(error.description or "the stream is full") from None
            await asyncio.sleep(streams.RECONNECT_WAIT_S)
        except (
            NoStreamResponseError,
            nats.errors.OutboundBufferLimitError,
            nats.errors.ConnectionClosedError,
        ):
            await asyncio.sleep(streams.RECONNECT_WAIT_S)
        except nats.errors.TimeoutError:
            continue


def body_object_name(delivery: Delivery) -> str:
    """Where a body too large for a message lies: by hash, then identity, so that erasing one spares equals."""
    return f"{delivery.body_sha256}/{delivery.name}"


async def _put_body(js: JetStreamContext, name: str, body: bytes) -> None:
    bucket = await js.object_store(streams.BODIES)
    try:
        await bucket.get_info(name)
    except ObjectNotFoundError:
        packed = await asyncio.to_thread(zlib.compress, body, 1)
        await bucket.put(name, packed)


async def _get_body(js: JetStreamContext, name: str) -> bytes:
    bucket = await js.object_store(streams.BODIES)
    try:
        found = await bucket.get(name)
    except ObjectNotFoundError:
        raise UnreadableDelivery(f"its body {name} is not in the object store") from None
    unpack = zlib.decompressobj()
    body = await asyncio.to_thread(unpack.decompress, found.data or b"", streams.BODY_BYTES_MAX + 1)
    if len(body) > streams.BODY_BYTES_MAX:
        raise UnreadableDelivery("its body unpacks to more than a delivery may have")
    return body


async def delivery_of(
    js: JetStreamContext, subject: str, headers: Mapping[str, str] | None, data: bytes, seq: int
) -> Delivery:
    """The delivery that a message of DELIVERIES carries, its body fetched; raises UnreadableDelivery."""
    known = headers or {}
    name = known.get(wire.BODY_OBJECT)
    return wire.from_message(subject, known, data if name is None else await _get_body(js, name), seq)


async def read_delivery(js: JetStreamContext, seq: int) -> Delivery:
    """The delivery at `seq` of the log; raises LogTrimmed or UnreadableDelivery."""
    try:
        message = await js.get_msg(streams.DELIVERIES, seq, direct=True)
    except NotFoundError:
        raise LogTrimmed(f"sequence {seq} is no longer in {streams.DELIVERIES}") from None
    return await delivery_of(js, message.subject or "", message.headers, message.data or b"", seq)


async def fetch(subscription: JetStreamContext.PullSubscription, count: int, wait_s: float) -> list[Msg]:
    """Up to `count` messages: what is there at once, else the first that comes within `wait_s`, else none.

    Raises OSError or a nats error where the broker is away: the caller waits and comes again.
    """
    try:
        return await subscription.fetch(count, timeout=wait_s)
    except nats.errors.TimeoutError:
        return []


def sequence_of(message: Msg) -> int:
    """The stream sequence of a message that a consumer delivered."""
    return message.metadata.sequence.stream


async def publish_all(nc: Client, stream: str, messages: Sequence[Message]) -> None:
    """Publish to `stream`, each message stored once by its id; in atomic batches where that pays.

    Raises BrokerAway where it is unknown whether all were stored: the caller repeats the whole call.
    """
    js = nc.jetstream()
    size = streams.ATOMIC_BATCH_COUNT_MAX
    for start in range(0, len(messages), size):
        chunk = messages[start : start + size]
        if len(chunk) >= streams.ATOMIC_BATCH_COUNT_MIN:
            try:
                await _publish_atomically(nc, chunk)
                continue
            except _BatchRefused:
                pass  # a duplicate id refuses the whole batch; single publishes sort it out
        await _publish_singly(js, stream, chunk)


async def _publish_atomically(nc: Client, messages: Sequence[Message]) -> None:
    batch = NUID().next().decode()
    for n, message in enumerate(messages, 1):
        headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(n)}
        if n < len(messages):
            await nc.publish(message.subject, message.data, headers=headers)
            continue
        headers["Nats-Batch-Commit"] = "1"
        try:
            answer = await nc.request(message.subject, message.data, streams.REQUEST_S_MAX, headers=headers)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
            raise BrokerAway(f"{_ATOMIC_REFUSED}: {error}") from None
        if "error" in json.loads(answer.data):
            raise _BatchRefused(_ATOMIC_REFUSED)


async def _publish_singly(js: JetStreamContext, stream: str, messages: Sequence[Message]) -> None:
    window = asyncio.Semaphore(streams.EVENT_PUBLISH_WINDOW)

    async def publish(message: Message) -> None:
        async with window:
            await js.publish(
                message.subject,
                message.data,
                timeout=streams.REQUEST_S_MAX,
                stream=stream,
                headers=dict(message.headers),
            )

    try:
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(publish(message))
    except* (nats.errors.Error, APIError, NoStreamResponseError, OSError) as group_error:
        raise BrokerAway(str(group_error.exceptions[0])) from None
