"""What the broker says of its settings, asked with the rights of a service: streams, consumers, servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import APIError

from runtime import streams
from runtime.audit.clock import Reading
from runtime.permissions import API, SERVERS
from runtime.streams import PAUSED, Drift, Made

ASK_S_MAX = 2.0
SERVERS_FIRST_S_MAX = 1.0
SERVERS_NEXT_S_MAX = 0.3
"""How many servers there are, nobody says: they are waited for until none answers any more."""
SERVERS_MAX = 64
NANOSECONDS = 1_000_000_000
ALL = tuple(each.name for each in streams.all_made())
"""The names of all streams and consumers."""

FAULTS = (
    nats.errors.Error,
    APIError,
    OSError,
    TimeoutError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What asking may end with: no answer, a refusal, or an answer of another shape than this version knows."""


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
    silent: Mapping[str, Exception] = field(default_factory=dict)
    """What was asked of and did not answer, as `stream EVENTS`."""
    clock: Reading | None = None
    """Of the server that leads one of the streams."""
    first_at: Mapping[str, datetime] = field(default_factory=dict)
    """When the first message was stored that a stream has."""
    waiting_since: Mapping[str, datetime] = field(default_factory=dict)
    """When the oldest message was stored that waits for a consumer, by the consumer's name."""
    account: tuple[int, int] | None = None
    """Bytes that the account of the streams takes, and that it may take; -1 is no limit."""


async def ask(
    nc: Client,
    names: Collection[str],
    *,
    servers: bool = True,
    replicas: int = 1,
    limits: bool = False,
    thorough: bool = False,
) -> Facts:
    """The settings of these streams and consumers, and of the servers where this user may ask them.

    Fewer than `replicas` copies are drift, more are none; with `limits`, the operator's own limits are drift, too; with
    `thorough`, what waits is looked at, and the account, which take rights that services have not. Raises one of FAULTS
    where nothing of it is answered.
    """
    made = [each for each in streams.all_made(replicas) if each.name in names]
    found, *answers = await asyncio.gather(
        _servers(nc) if servers else asyncio.sleep(0),
        *(_asked(nc, _info_subject(each)) for each in made),
        return_exceptions=True,
    )
    if isinstance(found, BaseException) and not isinstance(found, FAULTS):
        raise found
    silent: dict[str, Exception] = {}
    held: dict[str, Any] = {}
    drift: list[Drift] = []
    first_at: dict[str, datetime] = {}
    reading: Reading | None = None
    for each, answer in zip(made, answers, strict=True):
        if isinstance(answer, BaseException):
            if not isinstance(answer, FAULTS):
                raise answer
            silent[each.where] = answer
            continue
        said, read = answer
        if said is None:
            drift.append(streams.missing(each.where))
            continue
        reading = reading or read
        if each.of_stream and said["state"]["messages"]:
            first_at[each.name] = datetime.fromisoformat(said["state"]["first_ts"])
        unknown = _unknown(each, said["config"])
        held[each.name] = info = (StreamInfo if each.of_stream else ConsumerInfo).from_response(said)
        ours = _as_many(each, replicas, info.config.num_replicas or 1)
        drift += [*streams.compare(each.where, ours.config, info.config, limits=limits), *unknown]
        if not each.of_stream and info.paused:
            drift.append(Drift(each.where, PAUSED, info.config.pause_until or "paused", None))
    if silent and len(silent) == len(made):
        raise next(iter(silent.values()))
    consumers = {name: info for name, info in held.items() if isinstance(info, ConsumerInfo)}
    waiting_since, account = {}, None
    if thorough:
        try:
            waiting_since, account = await _oldest(nc, consumers.values()), await _account(nc)
        except FAULTS as error:
            silent["what waits"] = error
    return Facts(
        max_payload=nc.max_payload,
        servers=found if isinstance(found, list) else [] if servers else None,
        streams={name: info for name, info in held.items() if isinstance(info, StreamInfo)},
        consumers=consumers,
        drift=drift,
        silent=silent,
        clock=reading,
        first_at=first_at,
        waiting_since=waiting_since,
        account=account,
    )


def _as_many(made: Made, replicas: int, copies: int) -> Made:
    """How it is to be in a cluster that keeps `replicas` copies, or the more that a stream has already."""
    if not made.of_stream or copies <= replicas:
        return made
    return next(each for each in streams.all_made(copies) if each.where == made.where)


def _info_subject(made: Made) -> str:
    return (
        f"{API}.STREAM.INFO.{made.name}"
        if made.of_stream
        else f"{API}.CONSUMER.INFO.{made.stream}.{made.name}"
    )


def _unknown(made: Made, config: Mapping[str, Any]) -> list[Drift]:
    """Settings that nats-py does not know, so that it leaves them out."""
    known = {each.name for each in fields(made.config)}
    return [
        Drift(made.where, name, value, None)
        for name, value in config.items()
        if name not in known and not streams.is_unset(value)
    ]


async def _asked(nc: Client, subject: str, body: bytes = b"") -> tuple[dict[str, Any] | None, Reading | None]:
    """An answer of JetStream, None where there is no such thing, and its clock. Raises one of FAULTS."""
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


async def _account(nc: Client) -> tuple[int, int] | None:
    answer, _ = await _asked(nc, f"{API}.INFO")
    return None if answer is None else (answer["storage"], answer["limits"]["max_storage"])
