"""One webhook request: read, verified, stored, answered. Accepting needs the broker and nothing else.

The only place that turns what went wrong into an HTTP answer. Everything on the public port is answered here,
so that the answer is JSON whatever was asked, and a refused body is read before.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import nats.errors
import orjson
from prometheus_client import Counter, Gauge, Histogram
from starlette.types import Receive, Scope, Send

from contracts.delivery import Delivery, MalformedName, body_sha256, require_ascii
from contracts.ssot import ENDPOINT_PATTERN
from providers.port import Answer, Receipt, Refused, Request, Secret, Source, Stored, Verify, answer
from runtime import bus, streams, tracing
from services.ingest.body import Body, Memory, SenderLeft
from services.ingest.limits import Address, Limits, Network, address_of, network_of
from services.ingest.seldom import Seldom
from services.ingest.spool import Spool, SpoolFull

REQUESTS = Counter("odooops_ingest_requests_total", "Requests by answer", ["source", "status", "reason"])
SECONDS = Histogram(
    "odooops_ingest_request_seconds",
    "From first byte to answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 10),
)
IN_FLIGHT = Gauge("odooops_ingest_body_bytes", "Bytes of bodies held in memory")
CLOSED = Gauge("odooops_ingest_closed", "1 where a source takes nothing, for want of a secret", ["source"])

_WATCHED = (
    *(("200", reason) for reason in ("stored", "spooled")),
    *(("503", reason) for reason in ("broker_away", "log_full", "spool_full")),
)
"""Answers that alerts go by: told as 0 from the start, or the first of them would be no increase."""

HEALTH = "/healthz"
WEBHOOKS = "/webhooks/"
UNKNOWN = "unknown"
_ENDPOINT = re.compile(ENDPOINT_PATTERN)
_HEALTHY = Answer(status=200, body={"ok": True})
_ONLY_ASKED = Answer(
    status=405,
    body={"ok": False, "error": "use GET", "code": 405, "reason": "method_not_allowed"},
    headers={"allow": "GET, HEAD"},
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A source that takes requests, and the secrets that may have signed them, as they are now."""

    source: Source
    secrets: Callable[[], Sequence[Secret]]

    @property
    def closed(self) -> str | None:
        """Why nothing is taken; None where it is open."""
        if self.source.file.unsigned or self.secrets():
            return None
        name, wanted = self.source.name, self.source.file.secrets
        first = wanted[0] if wanted else "a secret"
        return f"{name} is closed: it has no secret, set {first} or {first}_FILE"


class Receiver:
    """The ASGI application of the public port: POST to the endpoints, and /healthz."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        log: Any,
        spool: Spool | None = None,
        limits: Limits | None = None,
        proxies: Sequence[Network] = (),
    ) -> None:
        self.store: bus.Store | None = None
        """None until the broker has been reached for the first time."""
        self.spool = spool
        self.memory = Memory()
        self._asked_at = -math.inf
        self._leaving = False
        self._limits = limits or Limits()
        self._proxies = proxies
        self._endpoints = {str(each.source.file.endpoint): each for each in endpoints}
        self._log = log
        self._seldom = Seldom(log)
        IN_FLIGHT.set_function(lambda: self.memory.held)
        for each in self._endpoints.values():
            CLOSED.labels(each.source.name).set_function(partial(_closed, each))
            for status, reason in _WATCHED:
                REQUESTS.labels(each.source.name, status, reason)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path == HEALTH:
            await _send(_HEALTHY if scope["method"] in ("GET", "HEAD") else _ONLY_ASKED, send)
            return
        started = self._asked_at = time.perf_counter()
        endpoint = self._endpoints.get(path)
        request = Request(
            method=scope["method"],
            headers=_headers(scope),
            query=scope["query_string"].decode("latin-1"),
            received_at=datetime.now(UTC),
            receipt_id=str(uuid4()),
        )
        address = self._address(scope, request)
        length = request.headers.get("content-length")
        body = Body(receive, self.memory, length, self._limits.stranger(address))
        try:
            outcome = await self._outcome(endpoint, path, address, request, body)
        finally:
            body.release()
        if isinstance(outcome, Refused):
            if outcome.status == 429:
                await body.drain(streams.LIMITED_DRAIN_BYTES_MAX, streams.LIMITED_DRAIN_S_MAX)
            else:
                await body.drain()
        await self._answer(endpoint, outcome, address, request, send)
        SECONDS.observe(time.perf_counter() - started)

    async def leave(self) -> None:
        """Ask whoever keeps a connection to make a new one, as long as requests come.

        A connection that is closed while a sender writes costs a delivery; one of which the sender knows does not.
        """
        self._leaving = True
        begun = time.perf_counter()
        while (now := time.perf_counter()) - begun < streams.LEAVE_S_MAX:
            quiet_s = now - self._asked_at
            if quiet_s >= streams.LEAVE_QUIET_S:
                return
            await asyncio.sleep(streams.LEAVE_QUIET_S - quiet_s)

    async def _outcome(
        self, endpoint: Endpoint | None, path: str, address: Address | None, request: Request, body: Body
    ) -> Stored | Refused:
        try:
            self._limits.admit(address, time.monotonic())
            if endpoint is None:
                raise self._nothing_at(path)
            return await self._take(endpoint, address, request, body)
        except Refused as refused:
            # Its traceback would hold the body and the connection in a cycle until the garbage is collected.
            return refused.with_traceback(None)
        except SenderLeft:
            return Refused(400, "body_incomplete", "the body ended before it was complete")
        except asyncio.CancelledError:  # only at the process's end, of what outlived the time to stop
            body.abandon()
            return Refused(503, "stopping", "this process is stopping, send it again")
        except Exception as error:  # noqa: BLE001  # a mistake of ours is answered in JSON too, and logged
            told = {"source": _label(endpoint), "error": type(error).__name__}
            self._seldom.error("a request failed", {"exc_info": error}, **told)
            return Refused(500, "internal_error", "something is wrong here, send it again later")

    async def _take(
        self, endpoint: Endpoint, address: Address | None, request: Request, body: Body
    ) -> Stored:
        source, secrets = endpoint.source, endpoint.secrets()
        if (closed := endpoint.closed) is not None:
            raise Refused(404, "source_closed", closed)
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", "only POST is taken here")
        verify: Verify = source.provider.verify  # type: ignore[assignment]  # an endpoint's provider has one
        verification = verify(request, source, secrets)
        raw = await body.read(verification.update)
        receipt: Receipt = verification.finish(raw)
        self._limits.take(source.name, address, time.monotonic())
        delivery = Delivery(
            source=source.name,
            identity=receipt.identity,
            kind=receipt.kind,
            via="webhook",
            received_at=request.received_at,
            body=raw,
            body_sha256=body_sha256(raw),
            verified_by=receipt.verified_by,
            headers=_kept(request.headers, source.provider.headers),
            trace=tracing.here(),
        )
        try:
            ack = await self._store(delivery, source.provider.answer_s_max)
        except Refused:
            self._limits.failed(source.name, address)
            raise
        seq, duplicate = ack or (None, False)
        if duplicate:
            self._limits.repeated(source.name)
        else:
            self._limits.stored(address, signed=receipt.verified_by is not None)
        return Stored(delivery=delivery, seq=seq, duplicate=duplicate)

    async def _store(self, delivery: Delivery, answer_s_max: float | None) -> bus.Ack | None:
        """Where it stands in the log; None where it is in the spool."""
        if self.spool is None:
            return await self._into_log(delivery, answer_s_max)
        if self.spool.asks():
            with suppress(Refused):
                ack = await self._into_log(delivery, answer_s_max)
                self.spool.answered()
                return ack
        try:
            await self.spool.put(delivery)
        except SpoolFull as error:
            self._seldom.error("the spool is full", reason=str(error))
            sentence = "the log takes nothing and the spool is full, send it again"
            raise Refused(503, "spool_full", sentence) from None
        return None

    async def _into_log(self, delivery: Delivery, answer_s_max: float | None) -> bus.Ack:
        try:
            if self.store is None:
                raise bus.BrokerAway("the broker has not been reached yet")
            return await self.store(delivery, answer_s_max or streams.ACCEPT_S_MAX)
        except bus.LogFull as error:
            self._seldom.error("the log is full", reason=str(error))
            raise Refused(503, "log_full", "the log takes no more deliveries, send it again later") from None
        except (bus.BrokerAway, nats.errors.Error, OSError) as error:
            self._seldom.warning("not stored", reason=str(error) or type(error).__name__)
            raise Refused(503, "broker_away", "the log did not acknowledge in time, send it again") from None

    def _nothing_at(self, path: str) -> Refused:
        if not _ENDPOINT.fullmatch(path):
            return Refused(404, "not_found", f"there is nothing here, use POST {WEBHOOKS}{{source}}")
        known = ", ".join(
            sorted(path.removeprefix(WEBHOOKS) for path, each in self._endpoints.items() if not each.closed)
        )
        return Refused(404, "unknown_source", f"no such source, known sources: {known or 'none'}")

    def _address(self, scope: Scope, request: Request) -> Address | None:
        """Whom the request counts against."""
        if not (peer := scope.get("client")):
            return None
        forwarded = request.headers.get("x-forwarded-for")
        return address_of(peer[0], forwarded, self._proxies)

    async def _answer(
        self,
        endpoint: Endpoint | None,
        outcome: Stored | Refused,
        address: Address | None,
        request: Request,
        send: Send,
    ) -> None:
        shaped = _shaped(endpoint, outcome, request)
        label = _label(endpoint)
        if isinstance(outcome, Refused):
            reason = outcome.reason
            network = {} if address is None else {"network": network_of(address)}
            self._seldom.info("refused", network, source=label, status=shaped.status, reason=reason)
        else:
            reason = "spooled" if outcome.seq is None else "duplicate" if outcome.duplicate else "stored"
        REQUESTS.labels(label, str(shaped.status), reason).inc()
        retry_after_s = outcome.retry_after_s if isinstance(outcome, Refused) else None
        await _send(shaped, send, retry_after_s, close=self._leaving)


def _shaped(endpoint: Endpoint | None, outcome: Stored | Refused, request: Request) -> Answer:
    if endpoint is None:
        return answer(outcome, request)
    provider = endpoint.source.provider
    if isinstance(outcome, Refused) and outcome.status == 405 and request.method == "OPTIONS":
        granted = provider.handshake(request, endpoint.source) if provider.handshake else None
        if granted is not None:
            return granted
    return provider.answer(outcome, request)


def _closed(endpoint: Endpoint) -> float:
    return float(endpoint.closed is not None)


def _label(endpoint: Endpoint | None) -> str:
    """The source's name where there is one: strangers may not make up metric labels."""
    return UNKNOWN if endpoint is None else endpoint.source.name


def _headers(scope: Scope) -> dict[str, str]:
    """Header text by lower-cased name. A header sent twice is joined, so that neither copy passes for the only one."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _kept(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The headers that go into the log with the body."""
    kept = {name: headers[name] for name in names if name in headers}
    for prefix in (name[:-1] for name in names if name.endswith("*")):
        kept.update((name, value) for name, value in headers.items() if name.startswith(prefix))
    for name, value in kept.items():
        if len(value) > streams.HEADER_CHARS_MAX:
            sentence = f"the header {name} is longer than {streams.HEADER_CHARS_MAX} characters"
            raise Refused(400, "header_too_long", sentence)
        try:
            require_ascii(value)
        except MalformedName:
            raise Refused(400, "header_not_ascii", f"the header {name} is not printable ASCII") from None
    if sum(len(name) + len(value) for name, value in kept.items()) > streams.HEADERS_CHARS_MAX:
        sentence = f"the headers to keep have over {streams.HEADERS_CHARS_MAX} characters together"
        raise Refused(431, "headers_too_long", sentence)
    return kept


async def _send(shaped: Answer, send: Send, retry_after_s: int | None = None, *, close: bool = False) -> None:
    body = orjson.dumps(shaped.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **shaped.headers}
    if retry_after_s is None and shaped.status == 503:
        retry_after_s = streams.RETRY_AFTER_S
    if retry_after_s is not None:
        headers.setdefault("retry-after", str(retry_after_s))
    if close:
        headers["connection"] = "close"
    if shaped.status == 405:
        headers.setdefault("allow", "POST")
    await send(
        {
            "type": "http.response.start",
            "status": shaped.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
