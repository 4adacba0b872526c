"""Every limit with its unit in its name, the streams and consumers, and the one step that makes them.

`provision` is idempotent: it makes what is missing and names every setting that drifted; it overwrites none,
because a silent reset of a stream's settings has lost data elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

# What a sender may do.
INGEST_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
"""What an ingest process may take, whatever is sent to it: compose gives no more, `make abuse` holds it to that."""
BODY_BYTES_MAX = 26_000_000
"""GitHub caps its own bodies at 25 MB."""
DRAIN_BYTES_MAX = 32_000_000
"""How much of a refused body is read, so that the sender gets to read the answer."""
BODIES_IN_FLIGHT_BYTES_MAX = 256_000_000
"""Of bodies as they came; with their compressed copies ingest takes up to three times as much (measured)."""
BODY_READ_S_MAX = 30.0
BODY_GRACE_S = 5.0
BODY_BYTES_PER_S_MIN = 4_096
"""Of a body, on average, after its grace: whoever is slower holds a connection for nothing."""
HEADER_CHARS_MAX = 1024
"""Of a header that is stored with its body: a message has to have room for all of them."""
HEADERS_CHARS_MAX = 8_192
"""Of all of them, names included."""
BODY_PIECES_FREE = 256
BODY_PIECE_BYTES_MIN = 256
"""Of further pieces of a body, on average: each costs some 100 µs however small it is (measured)."""
RETRY_AFTER_S = 5
LEAVE_S_MAX = 2.0
"""How long a door that is to stop asks its callers to go elsewhere."""
LEAVE_QUIET_S = 0.25
"""Without a request for so long, nobody is left to be asked."""
ADDRESSES_COUNT_MAX = 10_000
"""Remembered at once, of strangers and of those that sent something genuine: the least recent are forgotten."""
LIMITED_DRAIN_BYTES_MAX = 128 * 1024
LIMITED_DRAIN_S_MAX = 1.0
"""How much, and how long, is read of a request over its limit: a usual body, so that its sender sees the answer."""
LOG_AGAIN_S = 10.0
"""How long the same line about strangers' requests is not written again."""

# How ingest stores: few deliveries alone, many in atomic batches.
ALONE_COUNT_MAX = 8
"""Under way alone at once; further ones wait for their turn, or for each other."""
GROUP_COUNT_MIN = 8
"""Fewer are sooner stored alone (measured at 4 to 256 connections)."""
GROUP_BYTES_MAX = 4 * 1024 * 1024

# The spool, where deliveries wait for a broker that is away.
SPOOL_BYTES_MAX = 1_000_000_000
"""Of all segments in a folder. When they are full, senders are told to come again."""
SPOOL_DRAIN_COUNT = 128
"""Deliveries stored at the same time when the broker is back, beside those that come meanwhile."""
SPOOL_LOOK_S = 5.0
"""How often the folder is searched for segments of processes that are no more."""

# What a message may be.
INLINE_BODY_BYTES_MAX = 64 * 1024
"""A larger body goes into the object store, and its message carries the object's name."""
MESSAGE_BYTES_MAX = INLINE_BODY_BYTES_MAX + 16 * 1024
BODY_PIECE_BYTES = 128 * 1024
"""Of a compressed body in the object store."""

# How long the broker is waited for. GitHub gives up after 10 s and never retries.
ACCEPT_S_MAX = 8.0
PUBLISH_ATTEMPT_S = 2.5
CONNECT_S_MAX = 2.0
RECONNECT_WAIT_S = 0.5
REQUEST_S_MAX = 5.0

# The projector's loop.
FETCH_COUNT = 250
FETCH_WAIT_S = 0.25
"""How soon an idle projector notices that it is to stop."""
PROJECTOR_WORKERS = 3
"""Batches in hand per process: one is understood, one is written by Postgres, one's events go to the broker."""
ACK_WAIT_S = 30.0
IN_PROGRESS_EVERY_S = 10.0
MAX_ACK_PENDING = 2_000
OUTAGE_WAIT_S_MAX = 5.0
ATOMIC_BATCH_COUNT_MIN = 20
"""A smaller batch costs more than single publishes (measured: a directory is made and removed for each)."""
ATOMIC_BATCH_COUNT_MAX = 500
"""The server takes at most 1,000 messages in one atomic batch."""
EVENT_PUBLISH_WINDOW = 64
FUTURE_S_MAX = 3600
"""A provider time further ahead of received-at parks its delivery: one mad clock must not freeze a row."""

EVENT_BYTES_MAX = INLINE_BODY_BYTES_MAX
"""JSON of one event; with its headers it stays below MESSAGE_BYTES_MAX. A larger one parks its delivery."""
REF_BYTES_MAX = 1_000
"""A ref is indexed, and stands in a header."""
LARGE_BODIES_AT_ONCE = 2
"""Bodies that a process fetches from the object store and understands at the same time."""

# The notifier.
NOTIFIER_ACK_WAIT_S = 60.0
NOTIFIER_MAX_ACK_PENDING = 50
NOTIFY_AGE_S_MAX = 3600

# The poller: what it remembers is in one bucket of keys and values.
POLLER_VALUE_BYTES_MAX = 512 * 1024
"""One value, compressed: the refs of a whole listing are one."""
POLLER_MEMORY_S_MAX = 30 * 86_400
"""What was not written for so long is forgotten: a thing that is still shown is then stored once more."""

# Subscribers who are none of our services.
SUBSCRIBER_ACK_WAIT_S = 60.0
SUBSCRIBER_MAX_ACK_PENDING = 1_000

DELIVERIES = "DELIVERIES"
EVENTS = "EVENTS"
BODIES = "DELIVERY_BODIES"
BODIES_STREAM = f"OBJ_{BODIES}"
ARTIFACTS = "ARTIFACTS"
ARTIFACTS_STREAM = f"OBJ_{ARTIFACTS}"
POLLER_BUCKET = "POLLER"
POLLER_STREAM = f"KV_{POLLER_BUCKET}"
PROJECTOR = "projector"
NOTIFIER = "notifier"
NOTIFIED_SUBJECTS = (
    "events.build.finished",
    "events.deployment.status_changed",
    "events.webhook.failing",
    "events.webhook.mended",
)
NOTIFIED_BEFORE = (frozenset({"events.build.finished", "events.deployment.status_changed"}),)
"""What earlier versions let the notifier hear. Such a consumer is widened, else what is new would not be told."""

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Drift:
    """A setting of a stream or consumer that is not what this version of OdooOps would make it."""

    where: str
    setting: str
    is_: object
    expected: object

    def __str__(self) -> str:
        return f"{self.where}: {self.setting} is {self.is_!r}, expected {self.expected!r}"


def stream_configs(replicas: int) -> tuple[StreamConfig, ...]:
    """The streams, for a cluster that keeps `replicas` copies."""
    deliveries = StreamConfig(
        name=DELIVERIES,
        description="Every delivery, byte for byte: the only truth",
        subjects=["deliveries.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.NEW,
        max_msg_size=MESSAGE_BYTES_MAX,
        duplicate_window=1800,
        allow_direct=True,
        allow_atomic=True,
        compression=_compression(replicas),
    )
    events = StreamConfig(
        name=EVENTS,
        description="Facts understood from deliveries, as CloudEvents",
        subjects=["events.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.OLD,
        max_age=30 * DAY_S,
        max_msg_size=MESSAGE_BYTES_MAX,
        duplicate_window=7200,
        allow_direct=True,
        allow_atomic=True,
        compression=_compression(replicas),
    )
    return (
        deliveries,
        events,
        _bucket(BODIES, "Bodies too large for a message, compressed", replicas),
        _bucket(ARTIFACTS, "What runs leave behind: reports, transcripts, logs", replicas),
        StreamConfig(
            name=POLLER_STREAM,
            description="What the poller remembers; losing it costs only that things are read and stored again",
            subjects=[f"$KV.{POLLER_BUCKET}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            num_replicas=replicas,
            max_msgs_per_subject=1,
            max_age=POLLER_MEMORY_S_MAX,
            discard=DiscardPolicy.NEW,
            max_msg_size=POLLER_VALUE_BYTES_MAX + 16 * 1024,
            duplicate_window=120,
            allow_direct=True,
            allow_rollup_hdrs=False,
            compression=_compression(replicas),
        ),
    )


def _compression(replicas: int) -> StoreCompression:
    """Of a stream's files: none where several brokers have a copy.

    One that was killed (nats-server 2.15, three of eight kills) may be unable to cut a compressed copy back to where
    the others are. Its log alone says so. It answers for the stream with figures of its own, and stays out for minutes
    or until it is started again; with a second one nobody leads. Uncompressed: none of 42 kills.
    """
    return StoreCompression.S2 if replicas == 1 else StoreCompression.NONE


def _bucket(name: str, description: str, replicas: int) -> StreamConfig:
    """The stream of an object store."""
    return StreamConfig(
        name=f"OBJ_{name}",
        description=description,
        subjects=[f"$O.{name}.C.>", f"$O.{name}.M.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.NEW,
        duplicate_window=120,
        allow_direct=True,
        # A message that rolls up erases the others, and no permission tells it from one that does not.
        allow_rollup_hdrs=False,
    )


def consumer_configs() -> tuple[tuple[str, ConsumerConfig], ...]:
    """The durable consumers, each with its stream."""
    return (
        (
            DELIVERIES,
            ConsumerConfig(
                durable_name=PROJECTOR,
                description="Folds deliveries into ops.*",
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=MAX_ACK_PENDING,
            ),
        ),
        (
            EVENTS,
            ConsumerConfig(
                durable_name=NOTIFIER,
                description="Tells Slack",
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=NOTIFIER_ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=NOTIFIER_MAX_ACK_PENDING,
                filter_subjects=list(NOTIFIED_SUBJECTS),
            ),
        ),
    )


def subscriber_config(name: str, subjects: list[str]) -> ConsumerConfig:
    """The durable consumer of a subscriber who is none of our services."""
    return ConsumerConfig(
        durable_name=name,
        description="A subscriber's own",
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=SUBSCRIBER_ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=SUBSCRIBER_MAX_ACK_PENDING,
        filter_subjects=subjects,
    )


async def provision(js: JetStreamContext, replicas: int = 1) -> list[Drift]:
    """Make the streams and consumers that are missing; name what drifted in those that are there.

    Two things are changed: the filter of a consumer that is exactly as an earlier version made it; and whether a stream
    is compressed, where that does not fit its copies. What stands there stays as it is, and what comes is written anew
    from a broker's restart on.
    """
    drift: list[Drift] = []
    for stream in stream_configs(replicas):
        found = await _stream(js, stream)
        if found is None:
            await js.add_stream(stream)
            continue
        if found.compression != stream.compression:
            found = found.evolve(compression=stream.compression)
            await js.update_stream(found)
        drift += compare(f"stream {stream.name}", stream, found)
    for stream_name, consumer in consumer_configs():
        existing = await _consumer(js, stream_name, consumer)
        if existing is None:
            await js.add_consumer(stream_name, consumer)
            continue
        if set(existing.filter_subjects or ()) in NOTIFIED_BEFORE and consumer.durable_name == NOTIFIER:
            existing = existing.evolve(filter_subjects=consumer.filter_subjects)
            await js.add_consumer(stream_name, existing)
        drift += compare(f"consumer {consumer.durable_name}", consumer, existing)
    return drift


async def inspect(js: JetStreamContext, replicas: int = 1) -> list[Drift]:
    """What `provision` would make or name, making nothing; what is missing is a Drift too."""
    drift: list[Drift] = []
    for stream in stream_configs(replicas):
        found = await _stream(js, stream)
        where = f"stream {stream.name}"
        drift += [missing(where)] if found is None else compare(where, stream, found)
    for stream_name, consumer in consumer_configs():
        existing = await _consumer(js, stream_name, consumer)
        where = f"consumer {consumer.durable_name}"
        drift += [missing(where)] if existing is None else compare(where, consumer, existing)
    return drift


FIXED = {"storage", "retention", "sealed", "deliver_policy", "ack_policy"}
"""Settings of a stream or a consumer that is there, which the broker lets nobody change."""


async def mend(js: JetStreamContext, replicas: int = 1) -> tuple[list[Drift], list[tuple[Drift, str]]]:
    """Set back what drifted, each setting by itself; what was set, and what the broker refused with its reason.

    For an operator who has read what drifted. Copies that are more than `replicas` stay.
    """
    done: list[Drift] = []
    refused: list[tuple[Drift, str]] = []
    for drift in await provision(js, replicas):
        if drift.setting in FIXED or (drift.setting == "num_replicas" and drift.is_ > drift.expected):  # type: ignore[operator]  # numbers
            continue
        try:
            await _set(js, drift)
        except APIError as error:
            refused.append((drift, str(error.description)))
        else:
            done.append(drift)
    return done, refused


async def _set(js: JetStreamContext, drift: Drift) -> None:
    kind, _, name = drift.where.partition(" ")
    changed = {drift.setting: drift.expected}
    if kind == "stream":
        await js.update_stream((await js.stream_info(name)).config.evolve(**changed))
        return
    stream = next(stream for stream, config in consumer_configs() if config.durable_name == name)
    await js.add_consumer(stream, (await js.consumer_info(stream, name)).config.evolve(**changed))


async def _stream(js: JetStreamContext, wanted: StreamConfig) -> StreamConfig | None:
    assert wanted.name is not None
    try:
        return (await js.stream_info(wanted.name)).config
    except NotFoundError:
        return None


async def _consumer(js: JetStreamContext, stream: str, wanted: ConsumerConfig) -> ConsumerConfig | None:
    assert wanted.durable_name is not None
    try:
        found: ConsumerConfig = (await js.consumer_info(stream, wanted.durable_name)).config
    except NotFoundError:
        return None
    return found


def missing(where: str) -> Drift:
    """What is not there at all."""
    return Drift(where, "existence", "missing", "there")


# What an operator may set on purpose: it bounds the log, and `status` says how full it is.
_OPERATORS_CHOICE = {"max_age", "max_bytes", "max_msgs", "description"}


def compare(
    where: str, wanted: StreamConfig | ConsumerConfig, found: StreamConfig | ConsumerConfig
) -> list[Drift]:
    """One Drift for each setting that `wanted` states and `found` has otherwise."""
    drift = []
    for setting, expected in vars(wanted).items():
        if expected is None or setting in _OPERATORS_CHOICE:
            continue
        is_ = getattr(found, setting)
        if isinstance(expected, list):
            expected, is_ = sorted(expected), sorted(is_ or [])
        if is_ != expected and not (expected in (False, 0, -1) and is_ in (None, False, 0, -1)):
            drift.append(Drift(where, setting, is_, expected))
    return drift
