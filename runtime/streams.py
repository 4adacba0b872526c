"""Every limit with its unit in its name, the streams and consumers, and the one step that makes them.

`provision` is idempotent: it makes what is missing and names every setting that drifted; but for the two that it says
itself it overwrites none, because a silent reset of a stream's settings has lost data elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import nats.errors
from nats.aio.client import Client
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
    StreamConsumerLimits,
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
BODIES_OF_STRANGERS_BYTES_MAX = 192_000_000
BODIES_OF_A_STRANGER_BYTES_MAX = 64_000_000
"""Of all addresses from which nothing genuine has come yet, and of one: their slow bodies keep nobody else out."""
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
LEAVE_STORE_S_MAX = 4.0
"""How long the broker is waited for from then on: what it has not acknowledged goes into the spool."""
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
BATCH_LATE_S = 0.5
"""So long the others wait for the answer to a batch, of which some are lost: that of a leader that stepped down."""

# The spool, where deliveries wait for a broker that is away.
SPOOL_BYTES_MAX = 1_000_000_000
"""Of all segments in a folder. When they are full, senders are told to come again."""
SPOOL_SEGMENT_BYTES = 8_000_000
"""From here on a file of it takes no more. What a crash leaves half drained is stored once more as a whole: little."""
SPOOL_DRAIN_COUNT = 128
"""Deliveries stored at the same time when the broker is back, beside those that come meanwhile."""
SPOOL_FILES_AWAY = 8
"""Files that are drained at once while the broker is away: more would only be opened for nothing."""
SPOOL_ASK_S = 15.0
"""How often one delivery is offered to a broker that is away, whatever the spool finds out by what it stores."""
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
JETSTREAM_ASK_S = 3.0
JETSTREAM_SILENT_S_MAX = 15.0
"""Then a broker that is connected is left for the next one, if there is one: an election takes up to 9 s."""

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

EXISTENCE = "existence"
"""What a Drift is about that says that something is missing."""
PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Drift:
    """A setting of a stream or consumer that is not what this version of OdooOps would make it."""

    where: str
    setting: str
    is_: object
    expected: object

    @property
    def is_more_copies(self) -> bool:
        """Whether it is more copies than were asked for: nobody takes one away by the way."""
        if self.setting != "num_replicas" or not (
            isinstance(self.is_, int) and isinstance(self.expected, int)
        ):
            return False
        return self.is_ > self.expected

    def __str__(self) -> str:
        if self.setting == EXISTENCE:
            return f"{self.where} is missing"
        return f"{self.where}: {self.setting} is {_plain(self.is_)}, expected {_plain(self.expected)}"


def _plain(value: object) -> str:
    """A setting's value, an enumeration's as NATS writes it."""
    return repr(value.value if isinstance(value, Enum) else value)


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
        compression=compression_of(replicas),
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
        compression=compression_of(replicas),
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
            compression=compression_of(replicas),
        ),
    )


def compression_of(replicas: int) -> StoreCompression:
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


@dataclass(frozen=True, slots=True)
class Made:
    """A stream, or a durable consumer of one, as this version makes it."""

    where: str
    """As `stream DELIVERIES`, `consumer projector`."""
    stream: str
    config: StreamConfig | ConsumerConfig

    @property
    def name(self) -> str:
        """Of the stream, or of the consumer."""
        return self.where.partition(" ")[2]

    @property
    def of_stream(self) -> bool:
        """Whether it is a stream."""
        return isinstance(self.config, StreamConfig)

    async def found(self, js: JetStreamContext) -> StreamConfig | ConsumerConfig | None:
        """How it is set, None where it is missing."""
        found: StreamConfig | ConsumerConfig
        try:
            if self.of_stream:
                found = (await js.stream_info(self.stream)).config
            else:
                found = (await js.consumer_info(self.stream, self.name)).config
        except NotFoundError:
            return None
        return found

    def beside(self, found: StreamConfig | ConsumerConfig) -> StreamConfig | ConsumerConfig:
        """How it is to be, with as many copies as the one that was found has."""
        if (
            isinstance(self.config, StreamConfig)
            and isinstance(found, StreamConfig)
            and self.config.compression
        ):
            return self.config.evolve(compression=compression_of(found.num_replicas or 1))
        return self.config

    async def make(self, js: JetStreamContext) -> None:
        """Make it, or set a consumer back as a whole. Raises APIError where the broker refuses."""
        if isinstance(self.config, StreamConfig):
            await js.add_stream(self.config)
        else:
            await js.add_consumer(self.stream, self.config)


def all_made(replicas: int = 1) -> tuple[Made, ...]:
    """The streams, then their consumers, for a cluster that keeps `replicas` copies."""
    return (
        *(Made(f"stream {each.name}", str(each.name), each) for each in stream_configs(replicas)),
        *(Made(f"consumer {each.durable_name}", stream, each) for stream, each in consumer_configs()),
    )


RESTORING = "odooops_backup"
"""In a stream's metadata, while a restore is under way: which backup it is of."""


class HalfRestored(Exception):
    """a restore is under way, or broke off"""


def _refuse_half_restored(there: Iterable[StreamConfig | ConsumerConfig | None]) -> None:
    """Raises HalfRestored where a stream waits for others of its backup.

    What is made empty now, the rest could not be put into once anything was stored there.
    """
    for found in there:
        if isinstance(found, StreamConfig) and RESTORING in (found.metadata or {}):
            raise HalfRestored(
                f"a restore broke off here, or is under way: {found.name} is restored, and others may be missing:"
                " run the same `odooops restore` again first, or use an empty system"
            )


async def provision(js: JetStreamContext, replicas: int = 1, *, restoring: bool = False) -> list[Drift]:
    """Make the streams and consumers that are missing; name what drifted in those that are there.

    Two things are changed: the filter of a consumer that is exactly as an earlier version made it; and whether a stream
    is compressed, where that does not fit its copies. What stands there stays as it is, and what comes is written anew
    from a broker's restart on. Unless `restoring`, raises HalfRestored.
    """
    drift: list[Drift] = []
    there = [(made, await made.found(js)) for made in all_made(replicas)]
    if not restoring:
        _refuse_half_restored(found for _, found in there)
    for made, found in there:
        if found is None:
            await made.make(js)
            continue
        if made.name == NOTIFIER and set(getattr(found, "filter_subjects", None) or ()) in NOTIFIED_BEFORE:
            found = found.evolve(filter_subjects=list(NOTIFIED_SUBJECTS))
            assert isinstance(found, ConsumerConfig)
            await js.add_consumer(made.stream, found)
        ours = made.beside(found)
        fits = getattr(ours, "compression", None)
        if isinstance(found, StreamConfig) and fits and found.compression != fits:
            found = found.evolve(compression=fits)
            await js.update_stream(found)
        drift += compare(made.where, ours, found)
    return drift


async def inspect(js: JetStreamContext, replicas: int = 1) -> list[Drift]:
    """What `provision` would make or name, making nothing; what is missing is a Drift too."""
    drift: list[Drift] = []
    for made in all_made(replicas):
        found = await made.found(js)
        drift += [missing(made.where)] if found is None else compare(made.where, made.beside(found), found)
    return drift


FIXED: Mapping[str, object] = {
    "storage": "file",
    "retention": "limits",
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_msg_ttl": False,
    "persist_mode": "default",
}
"""How all our streams are set, as the broker says it, where it lets nobody change that later (measured with 2.15).

A snapshot may be restored with it, whatever the stream was that it was taken of.
"""


def is_fixed(drift: Drift) -> bool:
    """Whether a stream has to be made anew for that."""
    if drift.setting == "retention":
        return drift.is_ == RetentionPolicy.WORK_QUEUE
    return drift.where.startswith("stream ") and drift.setting in FIXED


async def mend(nc: Client, drifts: Iterable[Drift], replicas: int = 1) -> tuple[list[str], list[str]]:
    """Set these back: what was done, and what was not with the reason, each a sentence.

    For an operator who has read what drifted. What is missing is made; of a stream each setting is set by itself, but
    copies that are more than `replicas` stay. A consumer is set as a whole, made anew where the broker does not let it
    be changed, and reads all again where it may have passed over something. Where the broker no longer answers, the
    rest is left as it is. Raises HalfRestored.
    """
    js = nc.jetstream()
    _refuse_half_restored([await each.found(js) for each in all_made() if each.of_stream])
    done: list[str] = []
    left: list[str] = []
    made = {each.where: each for each in all_made(replicas)}
    whole: dict[str, list[Drift]] = {}
    for drift in drifts:
        if not drift.is_more_copies:
            key = drift.where if drift.where.startswith("consumer ") else str(drift)
            whole.setdefault(key, []).append(drift)
    waiting = list(whole.values())
    while waiting:
        tried, waiting, left = waiting, [], []
        for together in tried:
            said = "; ".join(map(str, together))
            try:
                done.append(f"{await _mend(nc, made[together[0].where], together)}: {said}")
            except APIError as error:
                waiting.append(together)
                left.append(f"{said}: the broker refuses: {error.description}")
            except nats.errors.Error as error:
                return done, [*left, f"{said}: {error}; what comes after that was not tried"]
        if len(waiting) == len(tried):
            break  # one that was set may be what another waited for, and none was
    return done, left


async def _mend(nc: Client, made: Made, drifts: Sequence[Drift]) -> str:
    """What was done. `drifts` are all of a consumer's, or one of a stream's."""
    js = nc.jetstream()
    settings = {each.setting: each.expected for each in drifts}
    if EXISTENCE in settings:
        await made.make(js)
        return "made"
    if made.of_stream:
        config = (await js.stream_info(made.name)).config
        # What nats-py does not know, it leaves out, which sets it back.
        await js.update_stream(config.evolve(**{k: v for k, v in settings.items() if hasattr(config, k)}))
        return "set back"
    floor = (await js.consumer_info(made.stream, made.name)).ack_floor
    goes_on_at = 1 if any(map(has_skipped, drifts)) or floor is None else floor.stream_seq + 1
    how = "set back"
    try:
        await made.make(js)
    except APIError as error:
        if error.err_code != CANNOT_BE_UPDATED:
            raise  # not now: then it would be gone
        await js.delete_consumer(made.stream, made.name)
        await made.make(js)
        how = "made anew"
    if PAUSED in settings:
        await js.resume_consumer(made.stream, made.name)
    if how == "made anew" or goes_on_at == 1:
        subject = f"$JS.API.CONSUMER.RESET.{made.stream}.{made.name}"
        answer = await nc.request(subject, json.dumps({"seq": goes_on_at}).encode(), REQUEST_S_MAX)
        if fault := json.loads(answer.data).get("error"):
            raise APIError.from_error(fault)
    return f"{how}, it reads from {goes_on_at} on"


CANNOT_BE_UPDATED = 10012
"""The server's code for what it lets nobody change in a consumer that is there."""
_SKIPPING = {
    "deliver_policy",
    "ack_policy",
    "opt_start_seq",
    "opt_start_time",
    "max_deliver",
    "filter_subject",
}


def has_skipped(drift: Drift) -> bool:
    """Whether a consumer that was set so may have passed over something, which it never reads unless it begins anew.

    That it is set otherwise later does not bring that back (measured with 2.15).
    """
    return drift.setting in _SKIPPING or (drift.setting == "filter_subjects" and bool(drift.is_))


def missing(where: str) -> Drift:
    """What is not there at all."""
    return Drift(where, EXISTENCE, "missing", "there")


LIMITS = {"max_age", "max_bytes", "max_msgs"}
"""What an operator may set on purpose: it bounds the log, and `status` says how full it is."""
_NEVER_COMPARED = {"name", "description", "metadata", "placement", "republish", "first_seq", "pause_until"}
_BY_THE_BROKER = {"max_waiting": 512, "consumer_limits": StreamConsumerLimits()}
"""What it sets where nothing is stated, beside what `_is_unset` knows."""


def compare(
    where: str,
    wanted: StreamConfig | ConsumerConfig,
    found: StreamConfig | ConsumerConfig,
    *,
    limits: bool = False,
) -> list[Drift]:
    """One Drift for each setting that is other than `wanted`, which leaves to the broker what it does not state.

    The operator's own limits count with `limits` only.
    """
    drift = []
    for setting, stated in vars(wanted).items():
        if setting in _NEVER_COMPARED or (setting in LIMITS and not limits):
            continue
        expected, is_ = stated, getattr(found, setting)
        if isinstance(expected, list) and isinstance(is_, list):
            expected, is_ = sorted(expected), sorted(is_)
        by_the_broker = expected is None and is_ == _BY_THE_BROKER.get(setting)
        if is_ != expected and not by_the_broker and not (is_unset(is_) and is_unset(expected)):
            drift.append(Drift(where, setting, is_, expected))
    return drift


def is_unset(value: object) -> bool:
    """Whether that is one of the broker's ways to say that a setting is not set."""
    return value in (None, False, 0, -1, "", "none", [], {})
