"""The broker: connections that survive outages, deliveries in, deliveries out, events out.

Measured traps that this file is shaped by: a publish that times out may have been stored (repeat it with the
same message id); one duplicate id refuses a whole atomic batch; a batch of one costs ten plain publishes; a
pull larger than 64 MB makes the server cut the connection (hence the claim check for large bodies).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo, ObjectMetaOptions, PubAck, RawStreamMsg
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.nuid import NUID

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from runtime import streams
from runtime.permissions import inbox_prefix, question
from runtime.settings import BadSettings

STREAM_FULL_CODES = {10047, 10054, 10077}
"""Not enough storage, message too large, maximum bytes: the stream takes no more."""
CLOSE_S_MAX = 2.0
UNAVAILABLE = 503
"""Of an error: JetStream is, not what was asked for."""
ACK_TOKENS = 9
"""Of the subject by which a message is acknowledged, where it names no domain."""
_ATOMIC_REFUSED = "the atomic batch was refused"


class BrokerAway(Exception):
    """the broker did not acknowledge in time"""


class LogFull(Exception):
    """the DELIVERIES stream takes no more: it has reached the size that the operator set, or the disk is full"""


class LogTrimmed(Exception):
    """a delivery is no longer in the log"""


class BatchRefused(Exception):
    """an atomic batch was not stored"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish. Its headers hold the message id that makes a repeat harmless."""

    subject: str
    data: bytes
    headers: Mapping[str, str]


Ack = tuple[int, bool]
"""The sequence of a stored message, and whether the broker knew it already."""


def servers(addresses: str) -> list[str]:
    """The brokers that a setting names: one address, or several with commas between, each with its login.

    Raises BadSettings where one is no address.
    """
    found = [address.strip() for address in addresses.split(",") if address.strip()]
    try:
        for address in found:
            if urlsplit(address if "://" in address else f"nats://{address}").port == 0:
                raise ValueError
    except ValueError:
        # Said without the error, which may quote a part of the password.
        raise BadSettings("NATS_URL is no address like nats://user:password@host:4222") from None
    return found


_HEAD = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: (?:\S(?:[^\r\n]*\S)?)?\r\n)+")
"""Header lines that nats-py would write as they are."""


class _Client(Client):
    """nats-py's client, but for how it reads and writes headers, that no cancellation is lost, and that it lets go.

    To close a connection, it waits until all is sent that was written on it: where the other side takes nothing more
    but does not say so, it would wait for ever, and never connect anew. As to headers, its own way takes a third of its
    time for a message that comes, and two thirds for one that goes (measured). Should a later nats-py do that by other
    methods, it is as slow as it was, and nothing else.
    """

    watching: asyncio.Task[None] | None = None
    """Ends with the connection."""

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        answer = await super().request(subject, payload, timeout, old_style, headers)
        # Before Python 3.12, `wait_for` forgets a cancellation that comes together with the answer.
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
        return answer

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        lines = "".join([f"{name}: {value}\r\n" for name, value in (headers or {}).items()])
        # A value with a line end in it would be a header more.
        if not subject or not _HEAD.fullmatch(lines) or lines.count("\n") != len(headers or {}):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        head = f"NATS/1.0\r\n{lines}\r\n".encode()
        command = f"HPUB {subject} {reply} {len(head)} {len(head) + payload_size}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"".join((command, head, payload, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        flushed = await super()._flush_pending(force_flush)
        if task and task.cancelling() > before:  # which it swallows: a deadline would pass without effect
            raise asyncio.CancelledError
        return flushed

    async def _attempt_reconnect(self) -> None:
        self._cut()
        # No answer comes on another connection: whoever waits for one may ask again now.
        for waiting in list(self._resp_map.values()):
            if not waiting.done():
                waiting.set_exception(nats.errors.TimeoutError())
        await super()._attempt_reconnect()

    async def close(self) -> None:
        """Say what is left to be said, for CLOSE_S_MAX at most, and close."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                if self._transport is not None:
                    await self._transport.drain()  # type: ignore[no-untyped-call]
        except (TimeoutError, OSError, AttributeError):  # one that never connected has no writer
            self._pending, self._pending_data_size = [], 0
            self._cut()
        await super().close()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if self.watching is not None:
            self.watching.cancel()
        await super()._close(status, do_cbs)

    def _cut(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers = {}
        for line in raw.decode(errors="replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name] = value.strip()
        return headers


async def connect(
    url: str,
    service: str,
    on_lost: Callable[[str], Awaitable[None]] | None = None,
    on_closed: Callable[[], None] | None = None,
) -> Client:
    """A connection that waits for one of the brokers that `url` names, and reconnects for ever.

    Where JetStream is silent at one broker, it goes on to the next one that `url` names.
    `on_lost` hears of every disconnection and error; `on_closed` is called if the client gives up for good,
    after which only a new process helps. Raises BadSettings where `url` is no address.
    """

    async def report(error: Exception | None = None) -> None:
        if on_lost is not None:
            await on_lost((str(error) or type(error).__name__) if error else "disconnected")

    async def closed() -> None:
        if on_closed is not None:
            on_closed()

    try:
        client = _Client()
        await client.connect(
            servers(url),
            name=f"odooops-{service}",
            inbox_prefix=inbox_prefix(service),
            max_reconnect_attempts=-1,
            reconnect_time_wait=streams.RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it takes parts of a second
            connect_timeout=streams.CONNECT_S_MAX,  # type: ignore[arg-type]
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=report,
            disconnected_cb=report,
            closed_cb=closed,
        )
        client.watching = asyncio.create_task(leave_the_silent(client, service, report))
        return client
    except (nats.errors.Error, ValueError):
        raise BadSettings(
            f"NATS_URL_{service.upper()}, or else NATS_URL, is no address like nats://user:password@host:4222"
        ) from None


async def leave_the_silent(client: Client, user: str, report: Callable[[Exception], Awaitable[None]]) -> None:
    """For ever: have `client` go on to its next broker when JetStream has been silent at the one it is connected to.

    One that is cut off from the others keeps its clients and answers their pings. `report` hears of each change, of
    which there is at most one in JETSTREAM_SILENT_S_MAX. Returns at once where there is no other broker.
    """
    if len(client.servers) == 1:
        return
    client.options["dont_randomize"] = True  # nats-py then takes one after the other, the present one last
    asked, inbox = question(user), client.new_inbox()
    unanswered, connection = 0, -1

    async def hear(answer: Msg) -> None:
        nonlocal unanswered
        if is_led(answer.data):
            unanswered = 0

    await client.subscribe(inbox, cb=hear)
    while True:
        await asyncio.sleep(streams.JETSTREAM_ASK_S)
        if not client.is_connected or client.is_draining:
            continue
        if client.stats["reconnects"] != connection:
            connection, unanswered = client.stats["reconnects"], 0
        # Questions are counted, not seconds: whoever stood still himself asks first.
        silent_s = unanswered * streams.JETSTREAM_ASK_S
        if silent_s >= streams.JETSTREAM_SILENT_S_MAX:
            url = client.connected_url
            where = f"{url.hostname}:{url.port}" if url else "a broker"
            await report(
                BrokerAway(f"JetStream was silent for {silent_s:g} s at {where}: the next broker is tried")
            )
            await client.force_reconnect()
            continue
        unanswered += 1
        with suppress(nats.errors.Error, OSError):  # as good as no answer
            await client.publish(asked, reply=inbox)


def is_led(answer: bytes) -> bool:
    """Whether what a broker says of a stream shows that it is at work: one that is cut off names no leader (seen)."""
    try:
        said = json.loads(answer)
    except ValueError:  # nobody was there to answer
        return False
    if "error" in said:
        return bool(said["error"].get("code") != UNAVAILABLE)
    return "cluster" not in said or bool(said["cluster"].get("leader"))


Store = Callable[[Delivery, float], Awaitable[Ack]]
"""Stores a delivery durably, within seconds. Raises BrokerAway and LogFull."""


async def store_delivery(
    js: JetStreamContext,
    delivery: Delivery,
    wait_s: float = streams.ACCEPT_S_MAX,
    store: Callable[[Message], Awaitable[Ack]] | None = None,
) -> Ack:
    """Store `delivery` durably, its message by `store` if given.

    Raises BrokerAway after `wait_s` without an acknowledgement, LogFull where the stream refuses.
    """
    try:
        async with asyncio.timeout(wait_s):
            data, body_object = delivery.body, None
            if len(data) > streams.INLINE_BODY_BYTES_MAX:
                data, body_object = b"", body_object_name(delivery)
                await _put_body(js, body_object, delivery.body)
            message = Message(delivery.subject, data, wire.to_headers(delivery, body_object))
            return await (store(message) if store else store_alone(js, message))
    except TimeoutError:
        raise BrokerAway("the broker did not acknowledge in time") from None


async def store_alone(js: JetStreamContext, message: Message) -> Ack:
    """Store one message of DELIVERIES; tries until it is acknowledged. Raises LogFull where the stream refuses."""
    ack = await _publish_until_acknowledged(
        js, streams.DELIVERIES, message.subject, message.data, dict(message.headers)
    )
    return ack.seq, bool(ack.duplicate)


async def _publish_until_acknowledged(
    js: JetStreamContext, stream: str, subject: str, data: bytes, headers: dict[str, str]
) -> PubAck:
    """Publish again and again; `headers` hold the message id that makes that harmless."""
    while True:
        try:
            return await js.publish(
                subject, data, timeout=streams.PUBLISH_ATTEMPT_S, stream=stream, headers=headers
            )
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


class Bodied(Protocol):
    """What has a body, perhaps elsewhere."""

    @property
    def name(self) -> str: ...

    @property
    def body_sha256(self) -> str: ...


def body_object_name(delivery: Bodied) -> str:
    """Where a body too large for a message lies: by hash, then identity, so that erasing one spares equals."""
    return f"{delivery.body_sha256}/{delivery.name}"


# Bodies lie in the form of JetStream's object store, but are not written and read by nats-py's: its writer rolls
# subjects up, and whoever may do that can wipe the bucket by one message; its reader makes a consumer, and
# whoever may do that can have the broker publish in its name.


async def _put_body(js: JetStreamContext, name: str, body: bytes) -> None:
    """Store `body` compressed under `name`, unless there is one: the first is what counts."""
    if await _is_stored(js, name):
        return
    packed = await asyncio.to_thread(zlib.compress, body, 1)
    nuid, size = NUID().next().decode(), streams.BODY_PIECE_BYTES
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    for n, piece in enumerate(pieces):
        message_id = {wire.MESSAGE_ID: f"{nuid}-{n}"}
        await _publish_until_acknowledged(js, streams.BODIES_STREAM, pieces_subject(nuid), piece, message_id)
    digest = base64.urlsafe_b64encode(hashlib.sha256(packed).digest()).decode()
    description = ObjectInfo(
        name=name,
        bucket=streams.BODIES,
        nuid=nuid,
        size=len(packed),
        chunks=len(pieces),
        digest=f"SHA-256={digest}",
        options=ObjectMetaOptions(max_chunk_size=size),
    )
    await _publish_until_acknowledged(
        js,
        streams.BODIES_STREAM,
        description_subject(name),
        json.dumps(description.as_dict()).encode(),
        {wire.MESSAGE_ID: nuid},
    )


async def _is_stored(js: JetStreamContext, name: str) -> bool:
    """Whether there is a body `name`; asks until it is told, as a publish is repeated."""
    while True:
        try:
            return await first_of_bodies(js, description_subject(name)) is not None
        except nats.errors.TimeoutError:
            continue
        except nats.errors.Error:
            await asyncio.sleep(streams.RECONNECT_WAIT_S)


async def _get_body(js: JetStreamContext, name: str) -> bytes:
    """The body stored under `name`; raises UnreadableDelivery where it is missing or not what `name` says."""
    description = await first_of_bodies(js, description_subject(name))
    if description is None:
        raise UnreadableDelivery(f"its body {name} is not in the object store")
    try:
        info = ObjectInfo.from_response(json.loads(description.data or b""))
        packed = await _pieces(js, pieces_subject(info.nuid), info.chunks or 0)
        unpack = zlib.decompressobj()
        body = await asyncio.to_thread(unpack.decompress, packed, streams.BODY_BYTES_MAX + 1)
    except (ValueError, TypeError, zlib.error) as error:
        raise UnreadableDelivery(f"its body {name} cannot be read: {error}") from None
    if len(body) > streams.BODY_BYTES_MAX:
        raise UnreadableDelivery("its body unpacks to more than a delivery may have")
    if wire.body_sha256(body) != name.partition("/")[0]:
        raise UnreadableDelivery(f"its body {name} is another one")
    return body


async def _pieces(js: JetStreamContext, subject: str, count: int) -> bytes:
    pieces: list[bytes] = []
    seq = 1
    for _ in range(count):
        piece = await first_of_bodies(js, subject, seq)
        if piece is None:
            raise ValueError(f"{len(pieces)} of {count} pieces are there")
        pieces.append(piece.data or b"")
        seq = (piece.seq or 0) + 1
    return b"".join(pieces)


async def first_of_bodies(js: JetStreamContext, subject: str, seq: int = 1) -> RawStreamMsg | None:
    """The first message on `subject` at or after `seq`, asked of the leader: a replica may lag behind."""
    try:
        return await js.get_msg(streams.BODIES_STREAM, seq, subject, next=True)
    except NotFoundError:
        return None


def description_subject(name: str) -> str:
    """Where what describes the body `name` lies in the object store."""
    return f"$O.{streams.BODIES}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def pieces_subject(nuid: str) -> str:
    """Where the pieces of a body lie; `nuid` stands in what describes it."""
    return f"$O.{streams.BODIES}.C.{nuid}"


async def delivery_of(
    js: JetStreamContext, subject: str, headers: Mapping[str, str] | None, data: bytes, seq: int
) -> Delivery:
    """The delivery that a message of DELIVERIES carries, its body fetched; raises UnreadableDelivery.

    For who reads the log once more: it has no trace, so what comes of it goes on with none that ended long ago.
    """
    again = {name: value for name, value in (headers or {}).items() if name != wire.TRACEPARENT}
    return wire.from_message(subject, again, await body_of(js, headers, data), seq)


async def body_of(js: JetStreamContext, headers: Mapping[str, str] | None, data: bytes) -> bytes:
    """The body that a message of DELIVERIES has, or that it names; raises UnreadableDelivery."""
    name = (headers or {}).get(wire.BODY_OBJECT)
    return data if name is None else await _get_body(js, name)


async def read_delivery(js: JetStreamContext, seq: int) -> Delivery:
    """The delivery at `seq` of the log; raises LogTrimmed or UnreadableDelivery."""
    try:
        # Of the leader, not directly: a replica that lags would call a delivery trimmed that is only late.
        message = await js.get_msg(streams.DELIVERIES, seq)
    except NotFoundError:
        raise LogTrimmed(f"sequence {seq} is no longer in {streams.DELIVERIES}") from None
    return await delivery_of(js, message.subject or "", message.headers, message.data or b"", seq)


def sequence_of(message: Msg) -> int:
    """The stream sequence of a message that a consumer delivered."""
    return _of_acknowledgement(message, 3)


def waiting_behind(message: Msg) -> int:
    """How many messages its consumer had still to deliver when it delivered this one."""
    return _of_acknowledgement(message, 6)


def _of_acknowledgement(message: Msg, place: int) -> int:
    # $JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<count>.<time>.<pending>, or with domain and account in front:
    # `metadata` is all of it.
    tokens = message.reply.split(".")
    return int(tokens[place + (2 if len(tokens) == ACK_TOKENS else 4)])


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
                await publish_atomically(nc, chunk, streams.REQUEST_S_MAX)
                continue
            except BatchRefused:
                pass  # a duplicate id refuses the whole batch; single publishes sort it out
        await _publish_singly(js, stream, chunk)


async def publish_atomically(nc: Client, messages: Sequence[Message], wait_s: float) -> int:
    """Publish all or none, at least one, synced once; the sequence of the last.

    Raises BatchRefused where nothing was stored, one of the ids being known for instance; BrokerAway where that is
    not known after `wait_s`.
    """
    batch = NUID().next().decode()
    for n, message in enumerate(messages, 1):
        headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(n)}
        if n < len(messages):
            await nc.publish(message.subject, message.data, headers=headers)
            continue
        headers["Nats-Batch-Commit"] = "1"
        try:
            answer = await nc.request(message.subject, message.data, wait_s, headers=headers)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
            raise BrokerAway(f"{_ATOMIC_REFUSED}: {error}") from None
        said = json.loads(answer.data)
        if "error" in said:
            raise BatchRefused(_ATOMIC_REFUSED)
        return int(said["seq"])
    raise ValueError("a batch of no messages")


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
