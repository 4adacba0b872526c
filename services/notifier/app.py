"""The notifier's wiring: settings in, a FastStream subscriber on the durable consumer of EVENTS out.

An event that cannot be decoded is logged with its id and acknowledged: it is still in EVENTS. Any other is
acknowledged once its row in `notify.messages` is final, and asked for again after a delay until then.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError, NotFoundError
from opentelemetry.trace import SpanKind
from prometheus_client import Counter
from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.envelope import TRACEPARENT, Event
from contracts.registry import UnknownEvent, decode
from runtime import bus, lag, process, streams, tracing
from runtime.audit import broker as audit
from runtime.audit.finding import tell
from runtime.http import HttpClient
from runtime.permissions import inbox_prefix
from runtime.postgres import close_engine, is_outage, make_engine
from runtime.settings import BadSettings, Settings
from services.notifier import memory
from services.notifier.dry_run import DryRun
from services.notifier.notify import Destination, Notifier, is_old
from services.notifier.slack import Bot, Webhook

USER = "notifier"
FETCH_WAIT_S = 5.0
HANDLE_S_MAX = 45.0
"""Shorter than the broker's wait for an acknowledgement, so that nobody else gets an event in hand."""
RETRY_S = 5.0
GRACE_S_MAX = 4.0
"""How long a stop waits for the message in hand; a message cut off is looked for at the next start."""
DRAIN_S_MAX = 3
STOP_S_MAX = 6.0
"""For the broker; the database's connections are closed after it, and all of it is to take 10 s at most."""
PROBLEMS_NAMED_MAX = 5
NOTIFY = "notify"
"""The stage, as the figures of lag call it."""

UNREADABLE = Counter("odooops_notifier_unreadable_events_total", "Events acknowledged unsaid: see the log")
FETCH_ERRORS = Counter("odooops_notifier_fetch_errors_total", "Pulls that the broker or its client refused")

_CHANNEL_ID = re.compile("[CDG][A-Z0-9]{2,20}")
_TOKEN = re.compile(r"[\x21-\x7e]+")


def destination_of(settings: Settings, http: HttpClient) -> Destination:
    """Where the settings say that messages go: a bot's channel, else a webhook, else nowhere (a dry run)."""
    token, webhook = _secret(settings.slack_bot_token), _secret(settings.slack_webhook_url)
    if token:
        if not _TOKEN.fullmatch(token):
            raise BadSettings("SLACK_BOT_TOKEN holds a space or a character that no token has")
        if not _CHANNEL_ID.fullmatch(settings.slack_channel or ""):
            raise BadSettings(
                "SLACK_CHANNEL must be the channel's id, like C0123ABCD: no history is found by a name"
            )
        _require_address("SLACK_API_URL", settings.slack_api_url)
        return Bot(http, settings.slack_api_url, token, cast(str, settings.slack_channel))
    if webhook:
        _require_address("SLACK_WEBHOOK_URL", webhook)
        return Webhook(http, webhook)
    return DryRun()


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value().strip() if value is not None else ""


def _require_address(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not _TOKEN.fullmatch(url):
        raise BadSettings(f"{name} is no http or https address")


class Subscriber:
    """The subscription to EVENTS and what becomes of each message."""

    def __init__(
        self, url: str, notifier: Notifier, log: structlog.stdlib.BoundLogger, on_lost: Callable[[str], None]
    ) -> None:
        self._notifier = notifier
        self._log = log
        self._on_lost = on_lost
        self._client: Client | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False
        self._reported: str | None = None
        self._taken = lag.Taken(streams.NOTIFIER_MAX_ACK_PENDING)
        self._broker = NatsBroker(
            bus.servers(url),
            name=f"odooops-{USER}",
            inbox_prefix=inbox_prefix(USER),
            max_reconnect_attempts=-1,
            reconnect_time_wait=streams.RECONNECT_WAIT_S,  # type: ignore[arg-type]  # annotated int, slept as float
            connect_timeout=int(streams.CONNECT_S_MAX),
            ping_interval=10,
            max_outstanding_pings=2,
            drain_timeout=DRAIN_S_MAX,
            error_cb=self._report,
            disconnected_cb=self._report,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
            graceful_timeout=GRACE_S_MAX,
            # Its two lines per message say less than ours; the handler logs its own errors.
            logger=None,
            # The handler takes the raw message: a body that is no JSON must reach it too.
            apply_types=False,
        )
        self._subscription = self._broker.subscriber(
            config=ConsumerConfig(filter_subjects=list(streams.NOTIFIED_SUBJECTS)),
            durable=streams.NOTIFIER,
            stream=JStream(streams.EVENTS, declare=False),
            pull_sub=PullSub(batch_size=1, timeout=FETCH_WAIT_S),
            inbox_prefix=f"{inbox_prefix(USER)}.".encode(),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
            no_reply=True,
        )
        self._subscription(self.handle)

    async def start(self) -> None:
        """Connect and begin to pull; waits for broker and consumer as long as it takes."""
        self._client = await self._broker.connect()
        self._watching = asyncio.create_task(bus.leave_the_silent(self._client, USER, self._report))
        said: dict[str, str] = {}
        while problem := await self._consumer_problem():
            if problem != said:
                self._log.warning("waiting for the consumer", problem=problem)
                said = problem
            await asyncio.sleep(RETRY_S)
        await self._broker.start()
        subscription = self._subscription.subscription
        assert isinstance(subscription, JetStreamContext.PullSubscription)
        _guard(subscription)
        found = await audit.told(self._client, (streams.EVENTS, streams.NOTIFIER), servers=False)
        tell(self._log, found)

    async def stop(self) -> None:
        """Let the message in hand finish for a moment, then leave."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._broker.stop()
        except (TimeoutError, nats.errors.Error, ExceptionGroup) as error:
            self._log.warning("left without a farewell to the broker", error=type(error).__name__)

    async def problems(self) -> dict[str, str]:
        """What is wrong with the broker or the consumer. A deleted consumer shows nowhere else."""
        if self._client is None or not self._client.is_connected:
            return {"broker": "not connected"}
        return await self._consumer_problem()

    async def measure(self) -> None:
        """How far the notifier is behind. It may not read EVENTS at will: the age is that of what it has taken."""
        lag.unknown(NOTIFY)
        if self._client is not None:
            waiting = await lag.waiting(self._client.jetstream(), streams.EVENTS, streams.NOTIFIER)
            if waiting is not None:
                count, floor = waiting
                lag.told(NOTIFY, count, self._taken.oldest_at(floor))

    async def handle(self, message: Msg) -> None:
        """Decode, tell, and acknowledge or ask for it again: an exception here would do neither."""
        headers = message.headers or {}
        self._taken.take(message.metadata.sequence.stream, message.metadata.timestamp)
        kind = headers.get("ce-type", "")
        about = {
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": streams.EVENTS,
            "messaging.consumer.group.name": streams.NOTIFIER,
            "messaging.message.id": headers.get("ce-id", ""),
            "odooops.event": kind,
        }
        with tracing.following(headers.get(TRACEPARENT), f"process {kind}", SpanKind.CONSUMER, about):
            await self._handle(message, headers)

    async def _handle(self, message: Msg, headers: Mapping[str, str]) -> None:
        told = {"event_id": headers.get("ce-id"), "type": headers.get("ce-type"), "subject": message.subject}
        try:
            event = decode(headers.get("ce-type", ""), message.data)
        except (UnknownEvent, ValidationError) as error:
            self._give_up("an event cannot be decoded", _why(error), told)
            again_s = None
        else:
            again_s = await self._tell(event, told)
        try:
            if again_s is None:
                await message.ack()
                self._taken.acknowledge(message.metadata.sequence.stream)
            else:
                await message.nak(delay=again_s)
        except nats.errors.Error as error:
            # The broker gives it out again, and the table then knows what became of it.
            self._log.warning("not acknowledged", error=type(error).__name__, **told)

    async def _tell(self, event: Event, told: dict[str, str | None]) -> float | None:
        try:
            async with asyncio.timeout(HANDLE_S_MAX):
                return await self._notifier.tell(event)
        except asyncio.CancelledError:
            self._log.warning("cut off by the stop, it comes again", **told)
            raise
        except Exception as error:  # noqa: BLE001  # FastStream would hide it, and nobody would ask again
            if is_outage(error):
                self._log.warning("will try again", error=type(error).__name__, **told)
                return RETRY_S
            self._log.exception("an event could not be handled", **told)
            if is_old(event):
                # Repeating a mistake of ours for ever would block the events behind it.
                self._give_up("an event is given up", type(error).__name__, told)
                return None
            return RETRY_S

    def _give_up(self, what: str, reason: str, told: dict[str, str | None]) -> None:
        UNREADABLE.inc()
        self._log.error(f"{what}; it is acknowledged and still in {streams.EVENTS}", reason=reason, **told)

    async def _consumer_problem(self) -> dict[str, str]:
        assert self._client is not None
        try:
            asking = self._client.jetstream().consumer_info(streams.EVENTS, streams.NOTIFIER)
            await process.within(process.LOOK_S_MAX, asking)
        except NotFoundError:
            gone = f"{streams.NOTIFIER} on {streams.EVENTS} is not there: provision the streams"
            return {"consumer": gone}
        except (nats.errors.Error, APIError, OSError, TimeoutError) as error:
            return {"broker": f"does not answer: {type(error).__name__}"}
        return {}

    async def _report(self, error: Exception | None = None) -> None:
        """Log a problem with the broker once: the client tells of it at each of its attempts."""
        problem = str(error) if error else "disconnected"
        if not self._stopping and problem != self._reported:
            self._log.warning("broker", problem=problem)
            self._reported = problem

    async def _reconnected(self) -> None:
        self._log.info("connected to the broker again")
        self._reported = None

    async def _closed(self) -> None:
        if not self._stopping:
            self._on_lost("the connection to the broker was closed for good")


def _why(error: UnknownEvent | ValidationError) -> str:
    """What does not fit, without the values: whoever needs them finds the event in EVENTS."""
    if isinstance(error, UnknownEvent):
        return str(error)
    problems = error.errors(include_url=False, include_input=False)[:PROBLEMS_NAMED_MAX]
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in problems)


async def _undecoded(message: Any) -> Msg:
    """FastStream's decoder parses JSON and fails before the handler does; ours hands the message over."""
    return cast(Msg, message.raw_message)


def _guard(subscription: JetStreamContext.PullSubscription) -> None:
    """Make a refused pull take time: FastStream repeats it at once and for ever, which stops the event loop.

    Refused is a pull on a closed connection or a deleted consumer; an empty one (a timeout) is neither.
    """
    fetch = subscription.fetch

    async def guarded(*args: Any, **options: Any) -> list[Msg]:
        try:
            return await fetch(*args, **options)
        except TimeoutError:
            raise
        except Exception:
            FETCH_ERRORS.inc()
            await asyncio.sleep(streams.RECONNECT_WAIT_S)
            raise

    subscription.fetch = guarded  # type: ignore[method-assign]  # on this one object only


async def main(settings: Settings, log: structlog.stdlib.BoundLogger, stopping: asyncio.Event) -> None:
    """Run until `stopping`."""
    engine = make_engine(settings.database_for(USER), USER)
    try:
        async with HttpClient() as http:
            destination = destination_of(settings, http)
            log.info("messages go to", destination=destination.name)
            notifier = Notifier(engine, destination, log)
            subscriber = Subscriber(settings.nats_for(USER), notifier, log, process.lost)

            async def ready() -> dict[str, str]:
                of_broker, of_database = await asyncio.gather(
                    subscriber.problems(), _database_problem(engine)
                )
                problems = of_broker | of_database
                if notifier.slack_problem is not None:
                    problems["slack"] = notifier.slack_problem
                return problems

            async with process.serve_ops(settings, ready, subscriber.measure):
                await _run(subscriber, stopping)
    finally:
        await close_engine(engine)


async def _database_problem(engine: AsyncEngine) -> dict[str, str]:
    try:
        await process.within(process.LOOK_S_MAX, memory.require_readable(engine))
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return {"postgres": type(error).__name__}
    return {}


async def _run(subscriber: Subscriber, stopping: asyncio.Event) -> None:
    """Start, wait for the end, stop; a stop does not wait for a start that waits for the broker."""
    starting = asyncio.create_task(subscriber.start())
    ended = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await ended
    finally:
        starting.cancel()
        ended.cancel()
        await subscriber.stop()
