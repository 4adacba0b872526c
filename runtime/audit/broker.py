"""What the broker's settings could lose: asked with the rights of a service, judged without any.

`ask` gets the facts, `findings` is a function of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, PersistMode, StreamInfo
from nats.js.errors import APIError

from runtime import streams
from runtime.audit import clock, disk
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, Level, not_asked
from runtime.permissions import API, SERVERS
from runtime.streams import DAY_S, Drift

ASK_S_MAX = 2.0
SERVERS_FIRST_S_MAX = 1.0
SERVERS_NEXT_S_MAX = 0.3
"""How many servers there are, nobody says: they are waited for until none answers any more."""
SERVERS_MAX = 64
TOLD_S_MAX = 5.0
"""A service that is to stop meanwhile stops within 10 s."""
NANOSECONDS = 1_000_000_000

RETENTION_S_MIN = 7 * DAY_S
"""For so long a projector may be away before the log loses what nobody has read."""
EVENTS_S_MIN = DAY_S
PAYLOAD_BYTES_MIN = max(streams.MESSAGE_BYTES_MAX, streams.BODY_PIECE_BYTES + 4 * 1024)
"""The largest message of ours with its headers."""
COPIES_WANTED = 3

MEND = "odooops doctor --mend"
RESTART = "restart the brokers one after the other (`odooops up` writes its own nats.conf at each start)"


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the cluster, as it says itself. `sync_interval_s` is 0 where it syncs each write."""

    name: str
    sync_interval_s: float
    max_payload: int
    storage_bytes: int
    storage_bytes_max: int
    clock: Reading


@dataclass(frozen=True, slots=True)
class Facts:
    """What the broker answered. What a user may not ask is not there."""

    max_payload: int
    servers: Sequence[Server] | None = None
    """Those with JetStream; none where they do not tell this user, None where they were not asked."""
    streams: Mapping[str, StreamInfo] = field(default_factory=dict)
    consumers: Mapping[str, ConsumerInfo] = field(default_factory=dict)
    drift: Sequence[Drift] = ()
    clock: Reading | None = None
    """Of the server that leads DELIVERIES, or another stream that was asked for."""
    waiting_since: Mapping[str, datetime] = field(default_factory=dict)
    """When the oldest message was stored that waits for a consumer, by the consumer's name."""


async def ask(
    nc: Client,
    names: Iterable[str],
    consumers: Iterable[str] = (),
    *,
    servers: bool = True,
    replicas: int | None = None,
    oldest: bool = False,
) -> Facts:
    """The settings of these streams and consumers, and of the servers where this user may ask them.

    With `replicas`, the number of copies is compared with it; with `oldest`, what waits is looked at, which takes the
    right to read it. Raises nats.errors.Error, APIError or TimeoutError where the broker does not answer.
    """
    found: dict[str, StreamInfo] = {}
    held: dict[str, ConsumerInfo] = {}
    drift: list[Drift] = []
    reading: Reading | None = None
    names, consumers = set(names), set(consumers)
    for wanted in streams.stream_configs(replicas or 1):
        name, where = str(wanted.name), f"stream {wanted.name}"
        if name not in names:
            continue
        answer, read = await _asked(nc, f"{API}.STREAM.INFO.{name}")
        if answer is None:
            drift.append(streams.missing(where))
            continue
        reading = reading or read
        found[name] = StreamInfo.from_response(answer)
        compared = streams.compare(where, wanted, found[name].config)
        drift += [each for each in compared if replicas is not None or each.setting != "num_replicas"]
    for stream, config in streams.consumer_configs():
        name, where = str(config.durable_name), f"consumer {config.durable_name}"
        if name not in consumers:
            continue
        answer, _ = await _asked(nc, f"{API}.CONSUMER.INFO.{stream}.{name}")
        if answer is None:
            drift.append(streams.missing(where))
            continue
        held[name] = ConsumerInfo.from_response(answer)
        drift += streams.compare(where, config, held[name].config)
    return Facts(
        max_payload=nc.max_payload,
        servers=await _servers(nc) if servers else None,
        streams=found,
        consumers=held,
        drift=drift,
        clock=reading,
        waiting_since=await _oldest(nc, held.values()) if oldest else {},
    )


async def _asked(nc: Client, subject: str, body: bytes = b"") -> tuple[dict[str, Any] | None, Reading | None]:
    """An answer of JetStream, None where there is no such thing, and its clock. Raises APIError."""
    asked = datetime.now(UTC)
    message = await nc.request(subject, body, timeout=ASK_S_MAX)
    answered = datetime.now(UTC)
    answer: dict[str, Any] = json.loads(message.data)
    if error := answer.get("error"):
        if error.get("code") == 404:
            return None, None
        raise APIError.from_error(error)
    at = answer.get("ts")
    return answer, None if at is None else Reading(datetime.fromisoformat(at), asked, answered)


async def _servers(nc: Client) -> list[Server]:
    """What each server says of itself; none where this user is not told."""
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    found: list[Server] = []
    try:
        asked = datetime.now(UTC)
        await nc.publish(SERVERS, b"", reply=inbox)
        wait_s = SERVERS_FIRST_S_MAX
        for _ in range(SERVERS_MAX):
            message = await answers.next_msg(wait_s)
            wait_s = SERVERS_NEXT_S_MAX
            if (server := _server(message, asked, datetime.now(UTC))) is not None:
                found.append(server)
    except nats.errors.TimeoutError:
        pass
    finally:
        await answers.unsubscribe()
    return sorted(found, key=lambda each: each.name)


def _server(message: Msg, asked: datetime, answered: datetime) -> Server | None:
    """None where the answer is none, or the server has no JetStream."""
    if not message.data:
        return None
    said = json.loads(message.data).get("data", {})
    config = said.get("jetstream", {}).get("config")
    if config is None:
        return None
    return Server(
        name=said["server_name"],
        sync_interval_s=0.0 if config.get("sync_always") else config.get("sync_interval", 0) / NANOSECONDS,
        max_payload=said["max_payload"],
        storage_bytes=said["jetstream"].get("stats", {}).get("storage", 0),
        storage_bytes_max=config.get("max_storage", 0),
        clock=Reading(datetime.fromisoformat(said["now"]), asked, answered),
    )


async def _oldest(nc: Client, held: Iterable[ConsumerInfo]) -> dict[str, datetime]:
    found = {}
    for each in held:
        if not each.num_pending and not each.num_ack_pending:
            continue
        floor = each.ack_floor.stream_seq if each.ack_floor else 0
        question = json.dumps({"seq": floor + 1, "next_by_subj": ">"}).encode()
        answer, _ = await _asked(nc, f"{API}.STREAM.MSG.GET.{each.stream_name}", question)
        if answer is not None:
            found[str(each.name)] = datetime.fromisoformat(answer["message"]["time"])
    return found


async def told(
    nc: Client, names: Iterable[str], consumers: Iterable[str] = (), *, servers: bool = True
) -> list[Finding]:
    """The findings of a service about what it uses; what it cannot ask is a finding, and no error."""
    try:
        async with asyncio.timeout(TOLD_S_MAX):
            facts = await ask(nc, names, consumers, servers=servers)
    except (nats.errors.Error, APIError, OSError, TimeoutError, ValueError, KeyError) as error:
        return [not_asked("broker", error)]
    return findings(facts, datetime.now(UTC))


def findings(facts: Facts, now: datetime, ledger_seq: int | None = None) -> list[Finding]:
    """What these settings could lose. `ledger_seq` is the last sequence that the ledger knows, where that was asked."""
    found = [*_sync(facts), *_payload(facts), *_clocks(facts), *_copies(facts)]
    for server in facts.servers or ():
        found += disk.of_broker(server.name, server.storage_bytes, server.storage_bytes_max)
    found += [_drifted(each, facts) for each in facts.drift]
    for name, info in facts.streams.items():
        found += [*_stream(name, info), *_retention(name, info, facts, now)]
    for name, consumer in facts.consumers.items():
        found += _consumer(name, consumer)
    if ledger_seq is not None and (log := facts.streams.get(streams.DELIVERIES)) is not None:
        found += _trimmed(log.state.first_seq, ledger_seq)
    return found


def _sync(facts: Facts) -> list[Finding]:
    if facts.servers is None:
        return []
    if not facts.servers:
        return [
            Finding(
                level="unknown",
                part="broker",
                says="it does not tell this user whether it syncs each write to its disk",
                could_lose="where it does not: at a power cut, what was answered with 200 in the last 2 minutes",
                mend="docker compose exec nats-1 wget -qO- http://127.0.0.1:8222/varz   # must say sync_always: true;"
                " a nats.conf with the account $SYS of this version lets doctor ask",
            )
        ]
    return [
        Finding(
            level="error",
            part=f"broker {server.name}",
            says=f"writes reach its disk every {server.sync_interval_s:g} s, not before they are acknowledged",
            could_lose=f"at a power cut, what was answered with 200 in the last {server.sync_interval_s:g} s",
            mend=f"sync_interval: always in jetstream {{}} of nats.conf, then {RESTART}",
        )
        for server in facts.servers
        if server.sync_interval_s > 0
    ]


def _payload(facts: Facts) -> list[Finding]:
    limits = {f"broker {server.name}": server.max_payload for server in facts.servers or ()} or {
        "broker": facts.max_payload
    }
    return [
        Finding(
            level="error",
            part=part,
            says=f"max_payload is {limit:,} bytes, a message of ours has up to {PAYLOAD_BYTES_MIN:,}",
            could_lose="larger deliveries: their senders are told to come again, and some never do",
            mend=f"max_payload: 1MB in nats.conf, then {RESTART}",
        )
        for part, limit in limits.items()
        if 0 < limit < PAYLOAD_BYTES_MIN
    ]


def _clocks(facts: Facts) -> list[Finding]:
    found = []
    for server in facts.servers or ():
        found += clock.findings(f"broker {server.name}", server.clock)
    if not facts.servers and facts.clock is not None:
        found += clock.findings("the broker", facts.clock)
    return found


def _copies(facts: Facts) -> list[Finding]:
    """Whether the log is on several of the servers, and all its copies are there."""
    found = []
    info = facts.streams.get(streams.DELIVERIES)
    if info is None:
        return []
    seen = len(facts.servers or ())
    wanted = COPIES_WANTED if seen >= COPIES_WANTED else 1
    told = any(each.setting == "num_replicas" for each in facts.drift)
    if (info.config.num_replicas or 1) < wanted and not told:
        found.append(
            Finding(
                level="warning",
                part=f"stream {streams.DELIVERIES}",
                says=f"num_replicas is {info.config.num_replicas}, and there are {seen} servers",
                could_lose="the whole log, with the disk of the one server that has it",
                mend=f"NATS_REPLICAS={COPIES_WANTED} {MEND}",
            )
        )
    found += [
        Finding(
            level="warning",
            part=f"stream {streams.DELIVERIES}",
            says=f"the copy on {peer.name} is {'offline' if peer.offline else 'not up to date'}",
            could_lose="nothing yet: with one more copy gone, deliveries are refused",
            mend=f"docker compose up -d --no-deps --wait {peer.name}",
        )
        for peer in (info.cluster and info.cluster.replicas) or ()
        if peer.offline or not peer.current
    ]
    return found


_STREAM_LOSES: Mapping[str, tuple[Level, str]] = {
    "storage": ("error", "all of it, at the next restart of the broker"),
    "retention": ("error", "what was read is removed: nothing can be rebuilt or verified"),
    "subjects": ("error", "what comes for other subjects is refused, and some senders never repeat"),
    "max_msg_size": ("error", "larger messages are refused, and some senders never repeat"),
    "max_msgs_per_subject": ("error", "all but the newest messages of each subject"),
    "no_ack": ("error", "deliveries: the broker acknowledges nothing, so each is refused"),
    "sealed": ("error", "deliveries: the stream takes nothing more"),
    "num_replicas": ("warning", "all of it, with the disks that have the copies"),
    "duplicate_window": (
        "warning",
        "nothing, but what is repeated after that is stored twice; a fact may be told twice",
    ),
    "allow_rollup_hdrs": (
        "warning",
        "whoever may publish there can erase all earlier messages by one header",
    ),
    "allow_direct": ("warning", "nothing: what is read by its sequence is read slowly, or not at all"),
    "allow_atomic": ("info", "nothing: many messages at once are stored slowly"),
    "compression": (
        "info",
        "nothing: one copy takes more disk without it; of several, with it, one that is killed may stay out",
    ),
}
_CONSUMER_LOSES: Mapping[str, tuple[Level, str]] = {
    "deliver_policy": ("error", "what was stored before it was made is never read"),
    "ack_policy": ("error", "what was handed out and not done is never read again"),
    "max_deliver": ("error", "what failed so often, in an outage for one, is never read again"),
    "filter_subjects": ("error", "what does not fit the filter is never read"),
    "ack_wait": ("warning", "nothing: shorter, work is done twice; longer, a dead process's work waits"),
    "max_ack_pending": ("warning", "nothing: fewer in hand is slower, more takes memory"),
}
_SMALLER_IS_WORSE = {"num_replicas", "duplicate_window", "max_msg_size"}
_REPLACEABLE = {streams.POLLER_STREAM, streams.ARTIFACTS_STREAM}
"""Streams of which the tables are not made."""


def _drifted(drift: Drift, facts: Facts) -> Finding:
    """What a setting that is not ours could lose."""
    kind, _, name = drift.where.partition(" ")
    if drift.setting == "existence":
        lost = "deliveries: they are refused" if kind == "stream" else "nothing: what it is to read waits"
        return Finding("error", drift.where, "is missing", lost, MEND)
    level, lost = (_STREAM_LOSES if kind == "stream" else _CONSUMER_LOSES).get(
        drift.setting, ("warning", "not known: this version was tried with its own setting alone")
    )
    if _is_more(drift):
        level, lost = "info", "nothing"
    elif drift.setting == "discard" and kind == "stream":
        level, lost = _discard(facts.streams.get(name))
    if level == "error" and name in _REPLACEABLE:
        level = "warning"
    mend = MEND
    if drift.setting in streams.FIXED:
        mend = (
            f"nats stream add {name}_KEPT --source {name} --storage file   # a copy; this setting cannot be changed"
            if kind == "stream"
            else f"nats consumer rm {_stream_of(name)} {name} && {MEND}   # it reads anew, and folds once"
        )
    return Finding(
        level,
        drift.where,
        f"{drift.setting} is {_plain(drift.is_)}, not {_plain(drift.expected)}",
        lost,
        mend,
    )


def _plain(value: object) -> object:
    """A value of a setting as NATS writes it."""
    return value.value if isinstance(value, Enum) else ", ".join(value) if isinstance(value, list) else value


def _is_more(drift: Drift) -> bool:
    """Whether it is a limit that is wider than ours; none at all is said as 0 or -1."""
    if drift.setting not in _SMALLER_IS_WORSE or not isinstance(drift.expected, (int, float)):
        return False
    if not isinstance(drift.is_, (int, float)):
        return False
    return drift.is_ > drift.expected or (drift.setting == "max_msg_size" and drift.is_ <= 0)


def _discard(info: StreamInfo | None) -> tuple[Level, str]:
    """Old messages make room for new ones: at once harmful where there is a limit to reach."""
    limits = (info.config.max_bytes, info.config.max_msgs) if info else ()
    if any(limit is not None and limit > 0 for limit in limits):
        return "error", "the oldest, read or not, as soon as its limit is reached"
    return "warning", "the oldest, read or not, as soon as somebody sets a limit"


def _stream_of(consumer: str) -> str:
    return next(stream for stream, config in streams.consumer_configs() if config.durable_name == consumer)


def _stream(name: str, info: StreamInfo) -> list[Finding]:
    """What this version never sets, and nobody else may."""
    if info.config.persist_mode != PersistMode.ASYNC:
        return []
    return [
        Finding(
            "error",
            f"stream {name}",
            "persist_mode is async: a message is acknowledged before it is written",
            "what was answered with 200 just before the broker is killed",
            f"nats stream add {name}_KEPT --source {name} --storage file   # a copy; this setting cannot be changed",
        )
    ]


def _retention(name: str, info: StreamInfo, facts: Facts, now: datetime) -> list[Finding]:
    """Whether the stream lets go of what nobody has read."""
    found = []
    where, age_s = f"stream {name}", info.config.max_age or 0.0
    least_s = {
        streams.DELIVERIES: RETENTION_S_MIN,
        streams.BODIES_STREAM: RETENTION_S_MIN,
        streams.EVENTS: EVENTS_S_MIN,
    }.get(name, 0)
    readers = "the projector" if name != streams.EVENTS else "a subscriber"
    if 0 < age_s < least_s:
        found.append(
            Finding(
                "warning",
                where,
                f"max_age is {_span(age_s)}",
                f"what comes while {readers} is away for longer",
                f"nats stream edit {name} --max-age={'0' if name != streams.EVENTS else '30d'}",
            )
        )
    elif age_s > 0 and name in (streams.DELIVERIES, streams.BODIES_STREAM):
        found.append(
            Finding(
                "info",
                where,
                f"max_age is {_span(age_s)}",
                "what is older: rebuild takes its rows over as they are, verify cannot prove them",
                f"nats stream edit {name} --max-age=0",
            )
        )
    for consumer, at in facts.waiting_since.items():
        waits_s = (now - at).total_seconds()
        if 0 < age_s < 2 * waits_s and _stream_of(consumer) == name:
            found.append(
                Finding(
                    "error",
                    where,
                    f"max_age is {_span(age_s)}, and what waits for the {consumer} has waited for {_span(waits_s)}",
                    f"what the {consumer} has not read, in {_span(max(0.0, age_s - waits_s))}",
                    f"nats stream edit {name} --max-age={int(2 * age_s)}s   # then see why the {consumer} is behind",
                )
            )
    return found


def _trimmed(first_seq: int, ledger_seq: int) -> list[Finding]:
    """Archiving takes out nothing that the ledger does not know: somebody or something else did."""
    if first_seq <= ledger_seq + 1:
        return []
    return [
        Finding(
            "error",
            f"stream {streams.DELIVERIES}",
            f"it begins at {first_seq}, and the ledger ends at {ledger_seq}",
            f"the deliveries from {ledger_seq + 1} to {first_seq - 1} left the log before they were projected",
            "put back the broker's data from a backup; else ask the senders: see the runbook lost-webhooks",
        )
    ]


def _consumer(name: str, info: ConsumerInfo) -> list[Finding]:
    """What a consumer must not be, whatever else its settings are."""
    where, stream, config = f"consumer {name}", info.stream_name, info.config
    found = []
    if info.paused:
        found.append(
            Finding(
                "error",
                where,
                f"is paused until {config.pause_until}",
                "nothing yet: what it is to read waits",
                f"nats consumer resume {stream} {name}",
            )
        )
    filters = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
    if name == streams.PROJECTOR and filters:
        found.append(
            Finding(
                "error",
                where,
                f"reads only {', '.join(filters)}",
                "what does not fit the filter is never projected",
                f"nats consumer rm {stream} {name} && {MEND}   # it reads anew, and folds once",
            )
        )
    if config.headers_only:
        found.append(
            Finding(
                "error",
                where,
                "headers_only is set",
                "every body: what it reads is parked",
                f"nats consumer rm {stream} {name} && {MEND}",
            )
        )
    return found


def _span(seconds: float) -> str:
    for unit, length in (("d", DAY_S), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
