"""The projector's loop: fetch, understand, write, publish, acknowledge.

Acknowledged only after the commit and the publishing, so a crash anywhere repeats work and loses none; the
merge, the ledger and the events' ids make the repetition harmless. An outage of Postgres or NATS is waited
for with the batch in hand. Only data that Postgres refuses is bisected, down to the delivery to park.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import delivery as wire
from contracts.delivery import UnreadableDelivery
from providers.port import Source
from providers.registry import sources
from runtime import bus, lag, postgres, process, ssot, streams
from runtime.audit import broker as audited_broker
from runtime.audit import postgres as audited_postgres
from runtime.audit.finding import tell
from runtime.bus import BrokerAway, Message
from runtime.pull import ConsumerGone, Pull
from runtime.settings import Settings
from services.projector import drift, fingerprint, retry
from services.projector.publish import messages, parked_messages
from services.projector.retry import Outcome, Selection
from services.projector.sql import Sql
from services.projector.traces import Traces, traced
from services.projector.understand import Understood, understand, unreadable
from services.projector.work import Work
from services.projector.write import CANNOT_BE_WRITTEN, Folded, Writer, refused

T = TypeVar("T")

PROJECTED = Counter(
    "odooops_projector_deliveries_total", "Deliveries by what the ledger says of them", ["source", "status"]
)
PUBLISHED = Counter("odooops_projector_events_total", "Events published", ["type"])
PARKED = Counter("odooops_projector_parked_total", "Deliveries parked, by the reason", ["source", "reason"])
OUTAGES = Counter("odooops_projector_outages_total", "Waits for a server that was away", ["server"])
BATCH_SECONDS = Histogram(
    "odooops_projector_batch_seconds",
    "From fetched to acknowledged",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
BATCHED = Histogram(
    "odooops_projector_batch_deliveries",
    "Deliveries that were fetched together",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
)
WAITING = Gauge(
    "odooops_waiting_deliveries", "Deliveries that wait for an operator; NaN: not known", ["status"]
)
ROW_SECONDS = Histogram(
    "odooops_projector_delivery_seconds",
    "From received to committed",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 300, 3600),
)
DRIFT = Counter(
    "odooops_drift_total", "Things that a poll found to be other than a table said", ["source", "cause"]
)
OUTAGE_WAIT_S_MIN = 0.1
READ_AT_ONCE = 10
"""Deliveries that are understood before others get their turn: another batch's transaction is held up meanwhile."""
OUTBOX_EVERY_S = 5.0
LOOKS_AT_ONCE = 2
"""Connections to the database by which it is asked how things are, beside those that work."""
PROJECT, OUTBOX = "project", "outbox"
"""Stages, as the figures of lag call them."""
LOOKED_AT_MAX = 10_000
"""Parked deliveries, the newest, that are read once more when other code starts."""

SET_APART = ("parked", "conflict")
"""What waits for an operator, by its state in the ledger: the index deliveries_set_aside holds these and no others."""
_WAITING = text(
    "SELECT status, count(*) AS deliveries FROM ops.deliveries WHERE status IN ('parked', 'conflict') GROUP BY status"
)
_OUTBOX = text("SELECT count(*), min(made_at) FROM projector.outbox")

_BROKER_ERRORS = (nats.errors.Error, APIError, OSError)
_DATABASE_AWAY = (DBAPIError, PoolTimeout, OSError, TimeoutError)


async def main(settings: Settings, log: Any, stopping: asyncio.Event, *, unpark: bool = False) -> None:
    """Run until `stopping`; with `unpark`, first retry what is parked, beside the work."""
    declared = sources(ssot.load(settings.odooops_ssot_dir))
    leaving = False

    async def lost(reason: str) -> None:
        if not leaving:
            log.warning("connection lost", server="broker", reason=reason)

    def given_up() -> None:
        if not leaving:
            process.lost("the broker's client has given up")

    connecting = asyncio.create_task(
        bus.connect(settings.nats_for("projector"), "projector", on_lost=lost, on_closed=given_up)
    )
    if not await process.before_stop(connecting, stopping):
        return
    nc = connecting.result()
    for source, cause in product(declared, ("missed", "gone")):
        DRIFT.labels(source, cause)  # at 0, or the first that is found would be no increase
    engine = postgres.make_engine(settings.database_for("projector"), "projector")
    projector = Projector(nc, engine, declared, log, stopping)
    try:
        async with (
            process.serve_ops(settings, projector.problems, projector.measure),
            asyncio.TaskGroup() as group,
        ):
            changed = await projector.begin()
            log.info("running", workers=streams.PROJECTOR_WORKERS)
            for _ in range(streams.PROJECTOR_WORKERS):
                group.create_task(projector.work())
            group.create_task(projector.keep_draining())
            group.create_task(projector.audit())
            if changed or unpark:
                group.create_task(projector.look_at_parked(unpark=unpark))
        await projector.pull.close()
    finally:
        leaving = True
        await nc.close()
        await postgres.close_engine(engine)


class Projector:
    """One process's state: its connections and what its last batch took."""

    def __init__(
        self,
        nc: Client,
        engine: AsyncEngine,
        sources: Mapping[str, Source],
        log: Any,
        stopping: asyncio.Event,
    ) -> None:
        self.nc = nc
        self.js = nc.jetstream()
        self.engine = engine
        self.sources = sources
        self.log = log
        self.stopping = stopping
        self._large_bodies = asyncio.Semaphore(streams.LARGE_BODIES_AT_ONCE)
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self.pull = Pull(nc, streams.DELIVERIES, streams.PROJECTOR, streams.FETCH_COUNT)
        self.writer = Writer(engine, Sql.of(), sources, lambda seq: bus.read_delivery(self.js, seq))

    async def begin(self) -> bool:
        """Write down which code runs; whether the parked deliveries are to be looked at, since it is other code.

        Before anything is folded: what an empty table will hold is all this code's.
        """
        today = fingerprint.fingerprints(self.sources)

        async def write_down() -> bool:
            async with self.engine.begin() as connection:
                await fingerprint.begin(connection, today)
                return await fingerprint.claim(connection, today)

        return bool(await self._patiently("postgres", write_down))

    async def audit(self) -> None:
        """Say once which settings of broker and database could lose deliveries or rows."""
        names = (streams.DELIVERIES, streams.EVENTS, streams.BODIES_STREAM, streams.PROJECTOR)
        of_broker, of_database = await asyncio.gather(
            audited_broker.told(self.nc, names), audited_postgres.told(self.engine)
        )
        tell(self.log, [*of_broker, *of_database])

    async def look_at_parked(self, *, unpark: bool) -> None:
        """Say how many parked deliveries this code understands, and retry them where that is wanted.

        Ends at once when the process is to stop: whatever a retry has done by then is done.
        """
        looking = asyncio.create_task(self._unpark() if unpark else self._count_parked())
        try:
            await process.before_stop(looking, self.stopping)
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        error = None if looking.cancelled() else looking.exception()
        if isinstance(error, retry.RetryRunning):
            self.log.info("the parked deliveries are not retried", why=str(error))
        elif error is not None:
            self.log.error("cannot look at the parked deliveries", error=f"{type(error).__name__}: {error}")

    async def _count_parked(self) -> None:
        found = await self._patiently(
            "postgres",
            lambda: retry.look(self._beside, Selection(), newest_first=True, count_max=LOOKED_AT_MAX),
        )
        if found is not None and found.total:
            self.log.info(
                "other code than before: parked deliveries looked at",
                **_ends(found),
                hint="odooops parked retry --all" if found.total > found.count("parked") else None,
            )

    async def _unpark(self) -> None:
        outcome = Outcome()

        async def attempt() -> bool:
            await retry.retry(self._beside, Selection(), outcome)
            return True

        if await self._patiently("postgres", attempt):
            self.log.info("parked deliveries retried", **_ends(outcome), events=outcome.events)

    @property
    def _beside(self) -> Work:
        return Work(self.nc, self.engine, self.sources, lambda progress: None)

    async def work(self) -> None:
        """Fetch and handle batches until told to stop; a batch in hand is finished first."""
        while not self.stopping.is_set():
            try:
                messages = await self.pull.fetch(streams.FETCH_WAIT_S)
            except (ConsumerGone, *_BROKER_ERRORS) as error:
                OUTAGES.labels("nats").inc()
                self.log.warning("cannot fetch", error=f"{type(error).__name__}: {error}")
                await self._pause(streams.RECONNECT_WAIT_S)
                continue
            if messages:
                await self.handle(messages)

    async def handle(self, messages: Sequence[Msg]) -> None:
        """Everything that happens to a batch; returns when it is acknowledged or the process is to stop."""
        BATCHED.observe(len(messages))
        with BATCH_SECONDS.time():
            async with _kept_in_progress(messages, self.log):
                understood = await self._read_all(messages)
                if understood is None or not await self.fold(understood):
                    return
            try:
                for message in messages:
                    await message.ack()
            except _BROKER_ERRORS as error:
                self.log.warning("not acknowledged, it will come again", error=type(error).__name__)

    async def fold(self, batch: Sequence[Understood]) -> bool:
        """Write a batch and publish its events; False where the process is to stop before that was done."""
        with traced(batch) as traces:
            return await self._fold(batch, traces)

    async def _fold(self, batch: Sequence[Understood], traces: Traces) -> bool:
        try:
            folded = await self._patiently("postgres", lambda: self.writer.fold(batch))
        except CANNOT_BE_WRITTEN as error:
            return await self._bisect(batch, error)
        if folded is None:
            return False
        traces.committed(folded.deliveries)
        events = traces.carried(messages(drift.told(folded.deliveries)))
        of_parked = traces.carried(parked_messages(folded.deliveries))
        # One duplicate id refuses a whole atomic batch: events that may have been published go apart.
        new = [event for event in events if event.headers["ce-id"] in folded.new]
        known = [event for event in events if event.headers["ce-id"] not in folded.new]
        for part in (new, known, of_parked):
            if await self._patiently("nats", partial(self._publish, part)) is None:
                return False
        traces.published()
        if folded.found:
            await self._drain_now()
        self._count(batch, folded, [*events, *of_parked])
        return True

    async def _drain_now(self) -> None:
        """Publish what is in the outbox if that can be done now. Else it stays there, and nobody waits for it.

        The log may be full: what stands in it is to be folded all the same.
        """
        try:
            await drift.drain(self.engine, self.nc)
        except (BrokerAway, *_BROKER_ERRORS, DBAPIError, PoolTimeout) as error:
            if isinstance(error, DBAPIError) and not postgres.is_outage(error):
                raise
            self.log.warning("what was found is not published yet", error=f"{type(error).__name__}: {error}")

    async def keep_draining(self) -> None:
        """Publish what is left in the outbox: by a projector that died, or could not, or by an operator's command."""
        while not self.stopping.is_set():
            await self._patiently("postgres", lambda: drift.drain(self.engine, self.nc))
            await self._pause(OUTBOX_EVERY_S)

    async def _bisect(self, batch: Sequence[Understood], error: Exception) -> bool:
        """Find the delivery that cannot be written, and park it alone."""
        if len(batch) > 1:
            half = len(batch) // 2
            return await self.fold(batch[:half]) and await self.fold(batch[half:])
        (poison,) = batch
        if poison.status == "parked":
            raise error  # even the ledger's own row is refused: a bug, not data
        found = refused(poison, error)
        self.log.error("parked", delivery=found.delivery.name, seq=found.delivery.seq, reason=found.reason)
        return await self.fold([found])

    async def _publish(self, events: Sequence[Message]) -> bool:
        await bus.publish_all(self.nc, streams.EVENTS, events)
        return True

    async def _read_all(self, messages: Sequence[Msg]) -> list[Understood] | None:
        """What the messages mean; None where the process is to stop before that was known."""
        found: list[Understood] = []
        for message in messages:
            if len(found) % READ_AT_ONCE == 0:
                await asyncio.sleep(0)  # what another batch waits for may have come
            if wire.BODY_OBJECT not in (message.headers or {}):
                found.append(self._read(message, message.data))
            elif (understood := await self._read_large(message)) is not None:
                found.append(understood)
            else:
                return None
        return found

    async def _read_large(self, message: Msg) -> Understood | None:
        """What a message means whose body lies elsewhere; None where the process is to stop before it was fetched."""
        async with self._large_bodies:
            try:
                body = await self._patiently(
                    "nats", lambda: bus.body_of(self.js, message.headers, message.data)
                )
            except UnreadableDelivery as error:
                return _unreadable(message, error)
            return None if body is None else self._read(message, body)

    def _read(self, message: Msg, body: bytes) -> Understood:
        try:
            delivery = wire.from_message(
                message.subject, message.headers or {}, body, bus.sequence_of(message)
            )
        except UnreadableDelivery as error:
            return _unreadable(message, error)
        return understand(self.sources, delivery)

    async def _patiently(self, server: str, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """What `attempt` returns, tried again while `server` is away; None where the process is to stop."""
        wait_s = OUTAGE_WAIT_S_MIN
        while True:
            try:
                return await attempt()
            except UnreadableDelivery:
                raise
            except (BrokerAway, *_BROKER_ERRORS, DBAPIError, PoolTimeout) as error:
                if isinstance(error, DBAPIError) and not postgres.is_outage(error):
                    raise
                away = "nats" if isinstance(error, (BrokerAway, nats.errors.Error, APIError)) else server
                OUTAGES.labels(away).inc()
                self.log.warning("waiting for a server", server=away, error=type(error).__name__)
            if self.stopping.is_set():
                return None
            await self._pause(wait_s)
            wait_s = min(2 * wait_s, streams.OUTAGE_WAIT_S_MAX)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    def _count(self, batch: Sequence[Understood], folded: Folded, events: Sequence[Message]) -> None:
        now = datetime.now(UTC)
        for each in batch:
            ROW_SECONDS.observe((now - each.delivery.received_at).total_seconds())
        for (source, status), count in folded.verdicts.items():
            PROJECTED.labels(source, status).inc(count)
        parked = Tally(
            (each.delivery.source, each.reason) for each in folded.deliveries if each.status == "parked"
        )
        for (source, reason), count in parked.items():
            PARKED.labels(source, reason).inc(count)
        for consequence in folded.found:
            if consequence.drift is not None:
                DRIFT.labels(consequence.source, "gone" if consequence.drift == "gone" else "missed").inc()
        found = [each.message for each in folded.found if "ce-type" in each.message.headers]
        for name, count in Tally(event.headers["ce-type"] for event in (*events, *found)).items():
            PUBLISHED.labels(name).inc(count)

    async def problems(self) -> dict[str, str]:
        """What keeps the projector from working, by part."""
        of_broker, of_database = await asyncio.gather(self._broker_problem(), self._database_problem())
        return of_broker | of_database

    async def _broker_problem(self) -> dict[str, str]:
        if not self.nc.is_connected:
            return {"broker": "not connected"}
        try:
            asking = self.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
            await process.within(process.LOOK_S_MAX, asking)
        except NotFoundError:
            return {"consumer": f"the consumer {streams.PROJECTOR} is gone: provision the streams"}
        except _BROKER_ERRORS as error:
            return {"broker": f"does not answer: {type(error).__name__}"}
        return {}

    async def _database_problem(self) -> dict[str, str]:
        try:
            await self._look(lambda connection: connection.execute(text("SELECT 1")))
        except _DATABASE_AWAY as error:
            return {"postgres": f"does not answer: {type(error).__name__}"}
        return {}

    async def _look(self, see: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `see` finds in the database at once, or one of _DATABASE_AWAY.

        Of a database that hangs no more than LOOKS_AT_ONCE connections are waited for, or the work would get none.
        """

        async def look() -> T:
            async with self._looks, self.engine.connect() as connection:
                return await see(connection)

        return await process.within(process.LOOK_S_MAX, look())

    async def measure(self) -> None:
        """How far the projector is behind, and what waits for an operator."""
        for stage in (PROJECT, OUTBOX):
            lag.unknown(stage)
        for status in SET_APART:
            WAITING.labels(status).set(math.nan)
        await asyncio.gather(self._measure_log(), self._measure_tables())

    async def _measure_log(self) -> None:
        waiting = await lag.waiting(self.js, streams.DELIVERIES, streams.PROJECTOR)
        if waiting is not None:
            count, floor = waiting
            oldest_at = await lag.stored_at(self.js, streams.DELIVERIES, floor) if count else None
            lag.told(PROJECT, count, oldest_at)

    async def _measure_tables(self) -> None:
        async def counted(connection: AsyncConnection) -> tuple[int, datetime | None, dict[str, int]]:
            count, oldest_at = (await connection.execute(_OUTBOX)).one()
            return (
                count,
                oldest_at,
                {row.status: row.deliveries for row in await connection.execute(_WAITING)},
            )

        try:
            count, oldest_at, counts = await self._look(counted)
        except _DATABASE_AWAY:
            return
        lag.told(OUTBOX, count, oldest_at)
        for status in SET_APART:
            WAITING.labels(status).set(counts.get(status, 0))


def _unreadable(message: Msg, error: UnreadableDelivery) -> Understood:
    """A message that cannot be read as a delivery, parked."""
    headers, stored_at = message.headers or {}, message.metadata.timestamp
    return unreadable(message.subject, headers, message.data, stored_at, bus.sequence_of(message), error)


def _ends(outcome: Outcome) -> dict[str, Any]:
    """What became of deliveries, for a line of the log."""
    reasons = {str(reason): count for (status, reason), count in outcome.ends.items() if status == "parked"}
    counts = {status: outcome.count(status) for status in ("projected", "ignored", "parked")}
    return {"deliveries": outcome.total, **counts, "reasons": reasons}


@asynccontextmanager
async def _kept_in_progress(messages: Sequence[Msg], log: Any) -> AsyncIterator[None]:
    """While the block runs, tell the broker now and then that the batch is still being worked on."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(streams.IN_PROGRESS_EVERY_S)
            try:
                for message in messages:
                    await message.in_progress()
            except _BROKER_ERRORS as error:
                log.warning("cannot keep the batch, it may come again", error=type(error).__name__)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
