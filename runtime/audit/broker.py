"""What the broker's settings could lose, judged by the facts that `asking` gets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import Enum

from nats.aio.client import Client
from nats.js.api import Base, DiscardPolicy, StreamConfig, StreamInfo

from runtime import streams
from runtime.audit import clock, disk
from runtime.audit.asking import FAULTS, Facts, ask
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, Level, not_asked
from runtime.streams import BODIES_STREAM, DAY_S, DELIVERIES, EVENTS, EXISTENCE, PAUSED, Drift

TOLD_S_MAX = 5.0
"""A service that is to stop meanwhile stops within 10 s."""

RETENTION_S_MIN = {DELIVERIES: 7 * DAY_S, BODIES_STREAM: 7 * DAY_S, EVENTS: DAY_S}
"""For so long a reader may be away before the stream loses what it has not read."""
NEARLY_FULL = 0.9
"""Of its limit: from here on a stream that lets old messages go is said to keep as long as it keeps now."""
PAYLOAD_BYTES_MIN = max(streams.MESSAGE_BYTES_MAX, streams.BODY_PIECE_BYTES + 4 * 1024)
"""The largest message of ours with its headers."""
COPIES_WANTED = 3

MEND = "odooops doctor --mend"
RESTART = (
    "for n in 1 2 3; do docker compose restart nats-$n; docker compose up -d --no-deps --wait nats-$n; done"
    "   # `odooops up` writes its own nats.conf at each start"
)
REMAKE = "odooops backup FILE && odooops restore FILE   # restore into new, empty servers: see the runbook lost-server"


async def told(nc: Client, names: Collection[str], *, servers: bool = True) -> list[Finding]:
    """The findings of a service about what it uses; what it cannot ask is a finding, and no error."""
    try:
        async with asyncio.timeout(TOLD_S_MAX):
            facts = await ask(nc, names, servers=servers)
        return [*findings(facts, datetime.now(UTC)), *clock.findings(clocks(facts))]
    except FAULTS as error:
        return [not_asked("broker", error)]


def findings(facts: Facts, now: datetime, ledger_seq: int | None = None) -> list[Finding]:
    """What these settings could lose. `ledger_seq` is the last sequence that the ledger knows, where that was asked."""
    found = [*_sync(facts), *_payload(facts), *_copies(facts), *_room(facts)]
    found += [not_asked(where, error) for where, error in facts.silent.items()]
    found += [_drifted(each, facts, ledger_seq) for each in facts.drift if not each.is_more_copies]
    for name, info in facts.streams.items():
        found += _retention(name, info, facts, now)
    if (log := facts.streams.get(DELIVERIES)) is not None:
        found += _lost(log, ledger_seq)
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
    found = [
        Finding(
            level="error",
            part=f"broker {server.name}",
            says=f"writes reach its disk every {server.sync_interval_s:g} s, not before they are acknowledged",
            could_lose=f"at a power cut, what was answered with 200 in the last {server.sync_interval_s:g} s",
            mend=f"write `sync_interval: always` into jetstream {{}} of deploy/nats/nats.conf, then {RESTART}",
        )
        for server in facts.servers
        if server.sync_interval_s > 0
    ]
    return found + [not_asked(f"broker {name}", "it did not answer") for name in _unheard(facts)]


def _unheard(facts: Facts) -> list[str]:
    """Servers that the streams know, that are not called away, and that did not say how they are set."""
    known: set[str] = set()
    for info in facts.streams.values():
        if info.cluster is not None and info.cluster.replicas:
            known |= {str(peer.name) for peer in info.cluster.replicas if not peer.offline}
            known |= {info.cluster.leader} if info.cluster.leader else set()
    return sorted(known - {server.name for server in facts.servers or ()})


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
            mend=f"write `max_payload: 1MB` into deploy/nats/nats.conf, then {RESTART}",
        )
        for part, limit in limits.items()
        if 0 < limit < PAYLOAD_BYTES_MIN
    ]


def clocks(facts: Facts) -> dict[str, Reading]:
    """What the clocks showed: of each server that told, else of one."""
    told_by = {f"broker {server.name}": server.clock for server in facts.servers or ()}
    return told_by or ({} if facts.clock is None else {"the broker": facts.clock})


def _copies(facts: Facts) -> list[Finding]:
    """Whether what cannot be had again is on several of the servers, and all its copies are there."""
    found = []
    seen = len(facts.servers or ())
    for name in RETENTION_S_MIN.keys() & facts.streams.keys():
        info, where = facts.streams[name], f"stream {name}"
        told = any((each.where, each.setting) == (where, "num_replicas") for each in facts.drift)
        if seen >= COPIES_WANTED > (info.config.num_replicas or 1) and not told:
            found.append(
                Finding(
                    level="warning",
                    part=where,
                    says=f"num_replicas is {info.config.num_replicas}, and there are {seen} servers",
                    could_lose="all of it, with the disks that have the copies",
                    mend=f"NATS_REPLICAS={COPIES_WANTED} {MEND}",
                )
            )
        peers = (info.cluster and info.cluster.replicas) or []
        behind = [str(peer.name) for peer in peers if peer.offline or not peer.current]
        if behind:
            refused = 2 * len(behind) > len(peers)  # the leader's is the one that is not among them
            found.append(
                Finding(
                    level="error" if refused else "warning",
                    part=where,
                    says=f"of its {len(peers) + 1} copies those on {', '.join(behind)} are away or not up to date",
                    could_lose="what comes: without a majority of them, all is refused"
                    if refused
                    else "nothing yet: with one more gone, what comes is refused",
                    mend=f"docker compose up -d --no-deps --wait {' '.join(behind)}",
                )
            )
    return sorted(found, key=lambda each: (each.part, each.says))


def _room(facts: Facts) -> list[Finding]:
    """How full a server's storage is, the account's, and a stream that takes nothing more once it is full."""
    found = []
    for server in facts.servers or ():
        found += disk.of_storage(f"disk of {server.name}", server.storage_bytes, server.storage_bytes_max)
    if facts.account is not None:
        found += disk.of_storage("storage of the broker's account", *facts.account)
    for name, info in facts.streams.items():
        if info.config.discard == DiscardPolicy.NEW and name in RETENTION_S_MIN:
            found += disk.of_storage(f"room of stream {name}", info.state.bytes, info.config.max_bytes or 0)
    return found


_STREAM_LOSES: Mapping[str, tuple[Level, str]] = {
    EXISTENCE: ("error", "deliveries: they are refused"),
    "storage": ("error", "all of it, at the next restart of the broker"),
    "retention": ("error", "what was read is removed: nothing can be rebuilt or verified"),
    "subjects": ("error", "what comes for other subjects is refused, and some senders never repeat"),
    "mirror": ("error", "deliveries: it only copies another stream, and takes none"),
    "subject_transform": ("error", "what is stored has another subject: its readers do not find it"),
    "max_msg_size": ("error", "larger messages are refused, and some senders never repeat"),
    "max_msgs_per_subject": ("error", "all but the newest messages of each subject"),
    "no_ack": ("error", "deliveries: the broker acknowledges nothing, so each is refused"),
    "sealed": ("error", "deliveries: the stream takes nothing more"),
    "persist_mode": ("error", "what was answered with 200 just before the broker is killed"),
    "num_replicas": ("warning", "all of it, with the disks that have the copies"),
    "duplicate_window": (
        "warning",
        "nothing, but what is repeated after that is stored twice; a fact may be told twice",
    ),
    "allow_rollup_hdrs": (
        "warning",
        "whoever may publish there can erase all earlier messages by one header",
    ),
    "allow_msg_ttl": ("warning", "whoever may publish there can have a message erased later, by one header"),
    "allow_direct": ("warning", "nothing: what is read by its sequence is read slowly, or not at all"),
    "deny_delete": ("warning", "nothing: what must be erased cannot be, `odooops redact` is refused"),
    "deny_purge": ("warning", "nothing, until it is full: `odooops archive --trim` is refused"),
    "allow_atomic": ("info", "nothing: many messages at once are stored slowly"),
    "allow_batched": ("info", "nothing"),
    "compression": (
        "info",
        "nothing: one copy takes more disk without it; of several, with it, one that is killed may stay out",
    ),
}
_UNREADABLE = "nothing yet: its service's questions are refused, and what it is to read waits"
_CONSUMER_LOSES: Mapping[str, tuple[Level, str]] = {
    EXISTENCE: ("error", "nothing: what it is to read waits"),
    PAUSED: ("error", "nothing yet: what it is to read waits"),
    "deliver_policy": ("error", "what was stored before it was made is never read"),
    "ack_policy": ("error", "what was handed out and not done is never read again"),
    "max_deliver": ("error", "what failed so often, in an outage for one, is never read again"),
    "filter_subject": ("error", "what does not fit the filter is never read"),
    "filter_subjects": ("error", "what does not fit the filter is never read"),
    "headers_only": ("error", "every body: what it reads is parked"),
    "deliver_subject": ("error", _UNREADABLE),
    **dict.fromkeys(
        ("max_batch", "max_bytes", "max_expires", "priority_groups", "priority_policy"),
        ("error", _UNREADABLE),
    ),
    "inactive_threshold": (
        "warning",
        "nothing: while its service is away for longer, the broker removes it, and it has to be made again",
    ),
    **dict.fromkeys(
        ("mem_storage", "num_replicas"),
        ("warning", "nothing but what it has read: with its server, all is read again"),
    ),
    **dict.fromkeys(
        ("ack_wait", "backoff"),
        ("warning", "nothing: shorter, work is done twice; longer, a dead process's work waits"),
    ),
    "max_ack_pending": ("warning", "nothing: fewer in hand is slower, more takes memory"),
}
_SMALLER_IS_WORSE = {"num_replicas", "duplicate_window", "max_msg_size"}
_REPLACEABLE = {streams.POLLER_STREAM, streams.ARTIFACTS_STREAM}
"""Streams of which the tables are not made."""


def _drifted(drift: Drift, facts: Facts, ledger_seq: int | None) -> Finding:
    """What a setting that is not ours could lose."""
    kind, _, name = drift.where.partition(" ")
    level, lost = (_STREAM_LOSES if kind == "stream" else _CONSUMER_LOSES).get(
        drift.setting, ("warning", "not known: this version was tried with its own setting alone")
    )
    if _is_more(drift):
        level, lost = "info", "nothing"
    elif drift.setting == "discard":
        level, lost = _discard(facts.streams.get(name))
    if level == "error" and name in _REPLACEABLE:
        level = "warning"
    mend = REMAKE if streams.is_fixed(drift) else MEND
    if kind == "consumer" and streams.has_skipped(drift):
        mend += "   # it then reads all again, which counts nothing twice"
    says = f"{drift.setting} is {_plain(drift.is_)}, not {_plain(drift.expected)}"
    if drift.setting == EXISTENCE:
        says = "is missing"
        if name == DELIVERIES and ledger_seq:
            lost = f"the log: the ledger knows {ledger_seq:,} sequences of it"
            mend = "odooops restore FILE   # FILE: the newest backup; see the runbook lost-server"
    elif drift.setting == PAUSED:
        says = f"is paused until {drift.is_}"
    return Finding(level, drift.where, says, lost, mend)


def _plain(value: object) -> object:
    """A value of a setting as NATS writes it."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "unset"
        case Enum():
            return value.value
        case list():
            return ", ".join(str(_plain(each)) for each in value) or "unset"
        case Base():
            return ", ".join(f"{name} {_plain(said)}" for name, said in vars(value).items() if said)
        case _:
            return value


def _is_more(drift: Drift) -> bool:
    """Whether it is wider than ours; no limit at all is said as 0 or -1, and no filter by none."""
    if drift.setting == "filter_subjects":
        return not drift.is_
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


def _retention(name: str, info: StreamInfo, facts: Facts, now: datetime) -> list[Finding]:
    """Whether the stream lets go of what nobody has read."""
    found = []
    where, (limit, keeps_s) = f"stream {name}", _keeps(name, info, facts, now)
    if keeps_s is None or name not in RETENTION_S_MIN:
        return []
    if keeps_s < RETENTION_S_MIN[name]:
        reader = "a subscriber" if name == EVENTS else "the projector"
        lost = f"what comes while {reader} is away for longer"
        found.append(Finding("warning", where, limit, lost, f"{MEND} --limits"))
    elif name != EVENTS:
        lost = "what is older: rebuild takes its rows over as they are, verify cannot prove them"
        found.append(Finding("info", where, limit, lost, f"{MEND} --limits"))
    for consumer, at in facts.waiting_since.items():
        waits_s = (now - at).total_seconds()
        if keeps_s < 2 * waits_s and facts.consumers[consumer].stream_name == name:
            found.append(
                Finding(
                    "error",
                    where,
                    f"{limit}, and what waits for the {consumer} has waited for {_span(waits_s)}",
                    f"what the {consumer} has not read, in {_span(max(0.0, keeps_s - waits_s))}",
                    f"{MEND} --limits   # then see why the {consumer} is behind: odooops status",
                )
            )
    return found


def _keeps(name: str, info: StreamInfo, facts: Facts, now: datetime) -> tuple[str, float | None]:
    """For how many seconds a stream keeps a message, with the limit that says so; None: for ever, or not known."""
    config: StreamConfig = info.config
    keeps: list[tuple[float, str]] = []
    if config.max_age:
        keeps.append((config.max_age, f"max_age is {_span(config.max_age)}"))
    if config.discard == DiscardPolicy.OLD and (first := facts.first_at.get(name)) is not None:
        held_s = (now - first).total_seconds()
        for limit, held, most in (
            ("max_bytes", info.state.bytes, config.max_bytes),
            ("max_msgs", info.state.messages, config.max_msgs),
        ):
            if most is not None and 0 < most and held >= NEARLY_FULL * most:
                keeps.append((held_s, f"{limit} is {most:,}, which is {_span(held_s)} of it"))
    seconds, said = min(keeps, default=(None, ""))
    return said, seconds


def _lost(log: StreamInfo, ledger_seq: int | None) -> list[Finding]:
    """What the log should have and has not. Archiving takes out nothing that the ledger does not know."""
    found = []
    first, last, lost = log.state.first_seq, log.state.last_seq, log.state.lost
    restore = (
        "odooops restore FILE   # FILE: the newest backup, into empty servers; see the runbook lost-server"
    )
    if lost is not None and lost.msgs:
        says = f"the broker cannot read {len(lost.msgs)} messages of its disk, the first is {min(lost.msgs)}"
        found.append((says, "these deliveries: their rows stay, and cannot be rebuilt or verified"))
    if ledger_seq is not None and last < ledger_seq:
        says = f"it ends at {last}, and the ledger knows {ledger_seq}: it was lost, or this is another"
        found.append(
            (says, "what the tables rest on; and new deliveries, which take the old ones' sequences")
        )
    elif ledger_seq is not None and first > ledger_seq + 1:
        says = f"it begins at {first}, and the ledger ends at {ledger_seq}"
        gone = f"the deliveries from {ledger_seq + 1} to {first - 1} left the log before they were projected"
        restore = f"{restore}; else ask the senders: see the runbook lost-webhooks"
        found.append((says, gone))
    return [Finding("error", f"stream {DELIVERIES}", says, gone, restore) for says, gone in found]


def _span(seconds: float) -> str:
    for unit, length in (("d", DAY_S), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
