"""What must hold when all is healed and quiet. Each law names what breaks it, and nothing where it holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from runtime import bus, streams
from runtime.postgres import make_engine
from services.ingest import segments
from services.notifier.message import message_id, render
from services.projector.publish import messages, parked_messages
from services.projector.rebuild import rebuild
from services.projector.understand import Understood, understand
from tests.chaos.load import Sent, Try
from tests.chaos.world import World
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.services.projector.rebuilding import working
from tests.slack_double import CHANNEL

QUIET_S_MAX = 300.0
"""Until all is worked off: the broker alone waits a minute for a notifier that was killed, each time that it was."""
POLL_S = 0.05
READ_AT_ONCE = 32
NAMED_MAX = 8
DESTINATION = f"slack:{CHANNEL}"


@dataclass(frozen=True)
class Facts:
    """What is found at the end."""

    sent: Sequence[Sent]
    log: Sequence[Delivery]
    ledger: Sequence[tuple[str, str, str | None]]
    """Identity, status, reason."""
    events: Sequence[str]
    """Ids of what is in EVENTS."""
    told: Sequence[str]
    """Ids of what is in Slack's channel."""
    unlike: Sequence[str] = ()
    """Models whose rows are not what the log says."""
    understood: Mapping[int, Understood] = field(init=False)

    def __post_init__(self) -> None:
        found = {each.seq: understand(SOURCES, each) for each in self.log}
        object.__setattr__(self, "understood", found)


def lost(facts: Facts) -> Iterator[str]:
    """Whatever was acknowledged is in the ledger."""
    known = {identity for identity, _, _ in facts.ledger}
    return (sent.identity for sent in facts.sent if sent.acknowledged and sent.identity not in known)


def doubled(facts: Facts) -> Iterator[str]:
    """No delivery is twice in the log or in the ledger."""
    yield from (f"{name} (log)" for name in _twice(each.identity for each in facts.log))
    yield from (f"{name} (ledger)" for name in _twice(identity for identity, _, _ in facts.ledger))


def other_than_sent(facts: Facts) -> Iterator[str]:
    """The log holds nothing but what was sent, byte by byte, with a time of receipt at which it can have come."""
    sent = {each.identity: each for each in facts.sent}
    for each in facts.log:
        known = sent.get(each.identity)
        if known is None:
            yield f"{each.identity} was sent by nobody"
        elif known.request.body != each.body:
            yield f"{each.identity} has {len(each.body)} bytes that are not the {len(known.request.body)} sent"
        elif not _came(known.tries, each.received_at):
            yield f"{each.identity} cannot have come at {each.received_at:%H:%M:%S.%f}"


def _came(tries: Sequence[Try], at: datetime) -> bool:
    """Whether a request can have come then: one that was not answered comes at any time after it was sent."""
    return any(each.began_at <= at and (at <= each.ended_at or each.answer == "unknown") for each in tries)


def misjudged(facts: Facts) -> Iterator[str]:
    """The ledger has each delivery of the log, as what our code says of it: one with a mad clock as parked."""
    ledger = {identity: (status, reason) for identity, status, reason in facts.ledger}
    for identity in ledger.keys() - {each.delivery.identity for each in facts.understood.values()}:
        yield f"{identity} is not in the log"
    for each in facts.understood.values():
        expected, found = (each.status, each.reason), ledger.get(each.delivery.identity)
        if expected != found:
            yield f"{each.delivery.identity} is {found}, expected {expected}"


def unlike_the_log(facts: Facts) -> Iterator[str]:
    """The rows are those of a clean fold."""
    return iter(facts.unlike)


def events_once(facts: Facts) -> Iterator[str]:
    """Every event that the log states is in EVENTS, once by id, and no other is."""
    understood = facts.understood.values()
    projected = [each for each in understood if each.status == "projected"]
    stated = {each.headers["ce-id"] for each in (*messages(projected), *parked_messages(understood))}
    return _compared(stated, facts.events)


def slack_once(facts: Facts) -> Iterator[str]:
    """What is news was told once, and what is old was not told."""
    news: set[str] = set()
    for each in facts.understood.values():
        if each.status != "projected":
            continue
        for statement in each.statements:
            event = statement.event
            message = render(event)
            old = timedelta(seconds=streams.NOTIFY_AGE_S_MAX)
            if message is not None and each.delivery.received_at - event.occurred_at < old:
                news.add(message_id(DESTINATION, message.about, message.kind))
    return _compared(news, facts.told)


def answered_wrongly(facts: Facts) -> Iterator[str]:
    """Honest senders are never told anything but that it is stored, or to come again."""
    return (
        f"{sent.identity}: {sent.words}"
        for sent in facts.sent
        if any(each.answer == "wrong" for each in sent.tries)
    )


LAWS: Mapping[str, Callable[[Facts], Iterator[str]]] = {
    "acknowledged is in the ledger": lost,
    "nothing twice": doubled,
    "the log is what was sent": other_than_sent,
    "each ended as it must": misjudged,
    "rows are a clean fold": unlike_the_log,
    "events once": events_once,
    "Slack once": slack_once,
    "answers": answered_wrongly,
}


def verdicts(facts: Facts) -> dict[str, list[str]]:
    """What breaks each law."""
    return {name: list(law(facts)) for name, law in LAWS.items()}


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _compared(expected: set[str], found: Sequence[str]) -> Iterator[str]:
    yield from (f"{each} is missing" for each in sorted(expected.difference(found)))
    yield from (f"{each} is there and should not be" for each in sorted(set(found) - expected))
    yield from (f"{each} is there twice" for each in _twice(found))


async def quiet(world: World, js: JetStreamContext, engine: AsyncEngine) -> None:
    """Wait until nothing is left to do. Raises TimeoutError that says what is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUIET_S_MAX
    left: object = None
    while loop.time() < deadline:
        try:
            if not (left := await _left(world, js, engine)):
                return
        except (nats.errors.Error, APIError) as error:  # brokers elect
            left = error
        await asyncio.sleep(POLL_S)
    raise TimeoutError(f"after {QUIET_S_MAX:g} s there is still work: {left}")


async def _left(world: World, js: JetStreamContext, engine: AsyncEngine) -> dict[str, int]:
    projector = await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    notifier = await js.consumer_info(streams.EVENTS, streams.NOTIFIER)
    async with engine.connect() as connection:
        outbox = (await connection.execute(text("SELECT count(*) FROM projector.outbox"))).scalar_one()
    found = {
        "spooled bytes": segments.held_bytes(world.spool.seen_from_here),
        "deliveries": (projector.num_pending or 0) + (projector.num_ack_pending or 0),
        "outbox": int(outbox),
        "replicas": await _behind(js),
        "events": (notifier.num_pending or 0) + (notifier.num_ack_pending or 0),
    }
    return {name: count for name, count in found.items() if count}


async def _behind(js: JetStreamContext) -> int:
    """Copies of streams that are not whole, as far as a leader knows; a broker that knows none may say anything."""
    count = 0
    for info in await js.streams_info():
        if info.cluster is not None and info.config.num_replicas != 1:
            current = sum(bool(each.current) for each in info.cluster.replicas or [])
            count += (info.config.num_replicas or 1) - (current + 1 if info.cluster.leader else 0)
    return count


async def gather(world: World, sent: Sequence[Sent]) -> Facts:
    """Wait until all is worked off, and look at everything. Raises TimeoutError."""
    nc = await bus.connect(world.nats_url("operator"), "operator")
    js = nc.jetstream()
    engine = make_engine(world.database_url("operator"), "chaos")
    try:
        await quiet(world, js, engine)
        async with working(Broker(world.nats, nc, js), world.database) as work:
            replayed = await rebuild(work, limit=NAMED_MAX, dry_run=True)
        unlike = [str(each) for each in replayed.compared if not each.equal]
        async with engine.connect() as connection:
            rows = await connection.execute(text("SELECT identity, status, reason FROM ops.deliveries"))
            ledger = [(row.identity, row.status, row.reason) for row in rows]
        return Facts(sent, await _log(js), ledger, await _events(js), world.slack.ids, unlike)
    finally:
        await engine.dispose()
        await nc.close()


async def _log(js: JetStreamContext) -> list[Delivery]:
    room = asyncio.Semaphore(READ_AT_ONCE)

    async def read(seq: int) -> Delivery:
        async with room:
            return await bus.read_delivery(js, seq)

    last = (await js.stream_info(streams.DELIVERIES)).state.last_seq
    return list(await asyncio.gather(*(read(seq) for seq in range(1, last + 1))))


async def _events(js: JetStreamContext) -> list[str]:
    room = asyncio.Semaphore(READ_AT_ONCE)

    async def read(seq: int) -> str:
        async with room:
            message = await js.get_msg(streams.EVENTS, seq)
            return str((message.headers or {})["ce-id"])

    last = (await js.stream_info(streams.EVENTS)).state.last_seq
    return list(await asyncio.gather(*(read(seq) for seq in range(1, last + 1))))
