"""Parked deliveries once more: what today's code makes of them, folding those that it understands, giving up others.

They are taken in portions by their place in the log. What was done of them is done, whatever ends the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import delivery as wire
from contracts import own
from contracts.delivery import Delivery, UnreadableDelivery
from contracts.ledger import DeliveryDiscarded
from providers.port import Source
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, postgres, streams
from runtime.bus import LogTrimmed, Message
from runtime.reading import Reading
from services.projector import drift
from services.projector.exclusions import Exclusion, believed
from services.projector.publish import messages
from services.projector.understand import Understood, parked, understand
from services.projector.work import Progress, Work
from services.projector.write import CANNOT_BE_WRITTEN, Folded, Publish, ReadLog, Writer, refused

PORTION_COUNT = 100
"""Deliveries that are read, folded and published together."""
NOT_IN_THE_LOG = "not_in_the_log"
IDENTITY_HASH_CHARS = 32
SEQUENCE_MAX = 2**63 - 1

_COLUMNS = (
    "stream_seq, source, identity, body_sha256, kind, via, received_at, body_bytes, status, reason, refs, attempts,"
    " last_error"
)
_CHOSEN = f"""
FROM {SCHEMA}.{LEDGER.name} WHERE status IN ('parked', 'conflict') AND status = ANY(CAST(:statuses AS text[]))
  AND (CAST(:source AS text) IS NULL OR source = :source)
  AND (CAST(:reason AS text) IS NULL OR reason = :reason)
  AND (CAST(:kind AS text) IS NULL OR kind = :kind)
  AND (CAST(:since AS timestamptz) IS NULL OR received_at >= :since)
  AND (CAST(:sequences AS bigint[]) IS NULL OR stream_seq = ANY(CAST(:sequences AS bigint[])))
"""
_OLDEST = text(f"SELECT {_COLUMNS} {_CHOSEN} AND stream_seq > :beyond ORDER BY stream_seq LIMIT :count")
_NEWEST = text(f"SELECT {_COLUMNS} {_CHOSEN} AND stream_seq < :beyond ORDER BY stream_seq DESC LIMIT :count")
_COUNTS = text(f"SELECT source, reason, count(*) AS n {_CHOSEN} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2")
_ENDS = text(
    f"SELECT status, reason, count(*) AS n FROM {SCHEMA}.{LEDGER.name}"
    " WHERE stream_seq = ANY(CAST(:sequences AS bigint[])) GROUP BY 1, 2"
)
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")


class RetryRunning(Exception):
    """another retry runs, or what must not run beside one; the message says so"""


class CannotDiscard(Exception):
    """a delivery whose names cannot be said in a delivery of ours; the message says which"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which parked deliveries; None is any."""

    source: str | None = None
    reason: str | None = None
    kind: str | None = None
    since: datetime | None = None
    ref: str | None = None
    """Only those that today's code understands as being about it: the ledger does not know, they have to be read."""
    sequences: tuple[int, ...] | None = None
    statuses: tuple[str, ...] = ("parked",)

    @property
    def values(self) -> dict[str, Any]:
        """What the statements ask of the ledger."""
        chosen = None if self.sequences is None else list(self.sequences)
        return {
            "source": self.source,
            "reason": self.reason,
            "kind": self.kind,
            "since": self.since,
            "sequences": chosen,
            "statuses": list(self.statuses),
        }

    def takes(self, understood: Understood) -> bool:
        """Whether a delivery that was read is about the ref that is asked for."""
        return self.ref is None or self.ref in understood.refs


@dataclass(frozen=True, slots=True)
class Parked:
    """What the ledger says of a parked delivery. It has refs only where a retry was cut short."""

    stream_seq: int
    source: str
    identity: str
    body_sha256: str
    kind: str
    via: str
    received_at: datetime
    body_bytes: int | None
    status: str
    reason: str | None
    refs: list[str] | None
    attempts: int
    last_error: str | None

    @property
    def without_body(self) -> Delivery:
        """The delivery as far as the ledger knows it."""
        return Delivery(
            source=self.source,
            identity=self.identity,
            kind=self.kind,
            via=self.via,  # type: ignore[arg-type]  # it was one when it was written
            received_at=self.received_at,
            body=b"",
            body_sha256=self.body_sha256,
            seq=self.stream_seq,
        )


@dataclass(slots=True)
class Outcome:
    """What trying parked deliveries came to so far, or would come to: how many by status and reason."""

    ends: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    events: int = 0
    """Published, or to be published."""
    position: int = 0
    """The sequence up to which it is done: from there it can be taken up again."""

    def count(self, status: str) -> int:
        """How many ended as `status`."""
        return sum(count for (each, _), count in self.ends.items() if each == status)

    @property
    def total(self) -> int:
        """How many there were."""
        return self.ends.total()


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a source were parked for a reason."""

    source: str
    reason: str | None
    count: int


async def shares(connection: AsyncConnection, selection: Selection) -> list[Share]:
    """The deliveries of a selection by source and reason, the most first. Its ref is not looked at."""
    return [Share(*row) for row in await connection.execute(_COUNTS, selection.values)]


async def portions(
    connection: AsyncConnection,
    selection: Selection,
    after: int = 0,
    *,
    newest_first: bool = False,
) -> AsyncIterator[list[Parked]]:
    """The deliveries of a selection, PORTION_COUNT at a time; between, the connection has no transaction open."""
    beyond = SEQUENCE_MAX if newest_first else after
    while True:
        values = {**selection.values, "beyond": beyond, "count": PORTION_COUNT}
        found = await connection.execute(_NEWEST if newest_first else _OLDEST, values)
        rows = [Parked(*row) for row in found]
        await connection.rollback()
        if not rows:
            return
        yield rows
        beyond = rows[-1].stream_seq


async def today(
    sources: Mapping[str, Source],
    read_log: ReadLog,
    rows: Sequence[Parked],
    exclusions: Sequence[Exclusion] = (),
) -> list[Understood]:
    """What today's code makes of `rows`, read from the log. Writes nothing."""
    large = asyncio.Semaphore(streams.LARGE_BODIES_AT_ONCE)

    async def read(row: Parked) -> Understood:
        async with large if (row.body_bytes or 0) > streams.INLINE_BODY_BYTES_MAX else nullcontext():
            try:
                delivery = await read_log(row.stream_seq)
            except LogTrimmed as error:
                return parked(row.without_body, NOT_IN_THE_LOG, str(error))
            except UnreadableDelivery as error:
                return parked(row.without_body, "unreadable", str(error))
            if (delivery.name, delivery.body_sha256) != (row.without_body.name, row.body_sha256):
                other = f"at sequence {row.stream_seq} stands another delivery, {delivery.name}"
                return parked(row.without_body, NOT_IN_THE_LOG, other)
            return believed(understand(sources, delivery), exclusions)

    return list(await asyncio.gather(*map(read, rows)))


async def look(
    work: Work, selection: Selection, *, newest_first: bool = False, count_max: int | None = None
) -> Outcome:
    """What a retry of a selection would come to, of `count_max` deliveries where that is given. Writes nothing."""
    writer, outcome, done = work.writer(SCHEMA), Outcome(), 0
    async with work.engine.connect() as connection:
        tell = _telling(work, "reading", await shares(connection, selection))
        exclusions = await writer.known_exclusions(connection)
        async for rows in portions(connection, selection, newest_first=newest_first):
            some = rows if count_max is None else rows[: count_max - done]
            for understood in await today(work.sources, writer.read_log, some, exclusions):
                if selection.takes(understood):
                    outcome.ends[understood.status, understood.reason] += 1
                    outcome.events += len(understood.statements)
            done += len(some)
            tell(done)
            if done == count_max:
                break
    return outcome


async def retry(work: Work, selection: Selection, outcome: Outcome) -> None:
    """Fold the deliveries of a selection that today's code understands, and publish their events.

    The others stay parked, with today's reason. `outcome` is brought up to date with every portion, and is where it
    goes on from. Raises RetryRunning, BrokerAway, and DBAPIError for an outage of the database.
    """
    writer, done = work.writer(SCHEMA), 0
    async with work.engine.connect() as connection, alone(connection):
        tell = _telling(work, "retrying", await shares(connection, selection))
        async for rows in portions(connection, selection, outcome.position):
            exclusions = await writer.known_exclusions(connection)
            await connection.rollback()
            read = await today(work.sources, writer.read_log, rows, exclusions)
            tried = [understood for understood in read if selection.takes(understood)]
            cut_short = frozenset(row.stream_seq for row in rows if row.refs)
            await _retry(writer, tried, _publishing(work, cut_short, outcome))
            sequences = [understood.delivery.seq for understood in tried]
            for end in await connection.execute(_ENDS, {"sequences": sequences}):
                outcome.ends[end.status, end.reason] += end.n
            await connection.rollback()
            outcome.position = rows[-1].stream_seq
            done += len(rows)
            tell(done)


@asynccontextmanager
async def alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """While the block runs, nobody but the projectors publishes: no other retry, no replay, and nobody erases.

    Of two retries, neither could tell whose events were not published; and what was read before it was erased must
    not be published after. Between statements, the connection has no transaction open. Raises RetryRunning.
    """
    taken = (await connection.execute(_TRY_LOCK, {"key": postgres.RETRY_LOCK})).scalar_one()
    await connection.rollback()
    if not taken:
        raise RetryRunning(
            "another retry of parked deliveries, a replay that publishes or a redaction runs: wait for it, or stop it"
        )
    try:
        yield
    finally:
        await connection.rollback()
        await connection.execute(_UNLOCK, {"key": postgres.RETRY_LOCK})


async def _retry(writer: Writer, tried: Sequence[Understood], publish: Publish) -> None:
    stay = [understood for understood in tried if understood.status == "parked"]
    stay += await _written(writer, [each for each in tried if each.status != "parked"], publish)
    if stay:
        await writer.keep_parked(stay)


async def _written(writer: Writer, batch: Sequence[Understood], publish: Publish) -> list[Understood]:
    """Fold a batch; those of it that cannot be written, parked."""
    if not batch:
        return []
    try:
        await writer.retry(batch, publish)
    except CANNOT_BE_WRITTEN as error:
        if postgres.is_outage(error):
            raise
        if len(batch) == 1:
            return [refused(batch[0], error)]
        half = len(batch) // 2
        return [
            *await _written(writer, batch[:half], publish),
            *await _written(writer, batch[half:], publish),
        ]
    return []


def _publishing(work: Work, cut_short: frozenset[int], outcome: Outcome) -> Publish:
    async def publish(folded: Folded) -> None:
        """Events that nobody has heard of yet. Where a retry was cut short, nobody knows: all of them once more."""
        told = list(drift.told(folded.deliveries))
        perhaps = messages(each for each in told if each.delivery.seq in cut_short)
        wanted = folded.new | {message.headers["ce-id"] for message in perhaps}
        events = [each for each in messages(told) if each.headers["ce-id"] in wanted]
        await bus.publish_all(work.nc, streams.EVENTS, events)
        outcome.events += len(events)
        if folded.found:
            outcome.events += await drift.drain(work.engine, work.nc)

    return publish


async def discard(work: Work, selection: Selection, why: str, actor: str) -> int:
    """Say of each delivery of a selection, in the log, that it is not to be folded; how many that were.

    Their rows in the ledger say so at once. Raises BrokerAway and CannotDiscard.
    """
    writer, done = work.writer(SCHEMA), 0
    last = (await work.nc.jetstream().stream_info(streams.DELIVERIES)).state.last_seq
    words = Reading(work.nc, streams.DELIVERIES, last, subjects=(_WORD,))
    try:
        async with work.engine.connect() as connection:
            tell = _telling(work, "discarding", await shares(connection, selection))
            exclusions = await writer.known_exclusions(connection)
            async for rows in portions(connection, selection):
                chosen = rows
                if selection.ref is not None:
                    read = await today(work.sources, writer.read_log, rows, exclusions)
                    chosen = [row for row, each in zip(rows, read, strict=True) if selection.takes(each)]
                if chosen:
                    said = [discarding(row, why, actor, datetime.now(UTC)) for row in chosen]
                    await _store(work, said)
                    await _fold_words(work, writer, words)
                done += len(chosen)
                tell(done)
    finally:
        await words.close()
    return done


_WORD = f"{wire.SUBJECT_ROOT}.{own.SOURCE}.{DeliveryDiscarded.type}"


def discarding(row: Parked, why: str, actor: str, now: datetime) -> Delivery:
    """The delivery that discards `row`: one identity for each body, so that at most one of them counts."""
    try:
        event = DeliveryDiscarded(
            delivery_source=row.source,
            delivery_identity=row.identity,
            body_sha256=row.body_sha256,
            seq=row.stream_seq,
            why=why,
            actor=actor,
            occurred_at=now,
        )
    except ValidationError:
        raise CannotDiscard(
            f"sequence {row.stream_seq} has a name that no delivery has: it cannot be discarded"
        ) from None
    hashed = hashlib.sha256(row.identity.encode()).hexdigest()[:IDENTITY_HASH_CHARS]
    body = row.body_sha256[: wire.MESSAGE_ID_HASH_CHARS]
    return own.delivery_of(event, "cli", now, f"discard:{row.source}:{hashed}:{body}")


async def _store(work: Work, said: Sequence[Delivery]) -> None:
    stored = [Message(each.subject, each.body, wire.to_headers(each)) for each in said]
    await bus.publish_all(work.nc, streams.DELIVERIES, stored)


async def _fold_words(work: Work, writer: Writer, words: Reading) -> None:
    """Fold what was just said, as the projector does, too: whoever asks next is to see it."""
    js = work.nc.jetstream()
    last = (await js.stream_info(streams.DELIVERIES)).state.last_seq
    async for found in words.upto(last):
        batch = []
        for message in found:
            seq = bus.sequence_of(message)
            delivery = await bus.delivery_of(js, message.subject, message.headers, message.data, seq)
            batch.append(understand(work.sources, delivery))
        await writer.fold(batch)


def _telling(work: Work, phase: str, found: Sequence[Share]) -> Callable[[int], None]:
    """What tells how far something is, given how many deliveries are done."""
    started, total = monotonic(), sum(each.count for each in found)

    def tell(done: int) -> None:
        seconds = monotonic() - started
        rate = done / seconds if seconds else 0.0
        work.tell(Progress(phase, done, total, rate, max(0, total - done) / rate if rate else None))

    return tell
