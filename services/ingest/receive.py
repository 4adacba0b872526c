"""One webhook request: read, verified, stored, answered. Accepting needs the broker and nothing else.

The only place that turns what went wrong into an HTTP answer. A refused body is still read, up to a limit,
because a sender that is cut off while writing never sees the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge, Histogram
from starlette.types import Message, Receive, Scope, Send

from contracts.delivery import Delivery, body_sha256
from providers.port import Answer, Provider, Receipt, Refused, Secret, Stored, answer
from runtime import bus, streams

REQUESTS = Counter("odooops_ingest_requests_total", "Requests by answer", ["source", "status", "reason"])
SECONDS = Histogram(
    "odooops_ingest_request_seconds",
    "From first byte to answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 10),
)
IN_FLIGHT = Gauge("odooops_ingest_body_bytes", "Bytes of bodies held in memory")

UNKNOWN = "unknown"


class SenderLeft(Exception):
    """the sender closed the connection before its body was complete"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A source that is open: its provider and the secrets that may have signed."""

    provider: Provider
    secrets: Sequence[Secret]


class Receiver:
    """The ASGI application behind POST /webhooks/{source}."""

    def __init__(
        self, js: JetStreamContext, endpoints: Mapping[str, Endpoint], closed: Mapping[str, str], log: Any
    ) -> None:
        self.js = js
        self.endpoints = endpoints
        self.closed = closed
        """Sources that are configured and not open, with the reason."""
        self.log = log
        self.body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever happens, the answer is JSON."""
        source: str = scope["path_params"]["source"]
        with SECONDS.time():
            body = _Body(receive, self)
            outcome: Stored | Refused
            try:
                async with asyncio.timeout(streams.BODY_READ_S_MAX + streams.ACCEPT_S_MAX):
                    outcome = await self._take(source, scope, body)
            except Refused as refused:
                outcome = refused
            except SenderLeft:
                REQUESTS.labels(self._label(source), "0", "sender_left").inc()
                return
            except TimeoutError:
                outcome = Refused(503, "too_busy", "the delivery could not be taken in time, send it again")
            finally:
                body.release()
            if isinstance(outcome, Refused) and not await body.drain():
                REQUESTS.labels(self._label(source), "0", "sender_left").inc()
                return
            await self._answer(source, outcome, send)

    async def _take(self, source: str, scope: Scope, body: _Body) -> Stored:
        endpoint = self._endpoint(source)
        if scope["method"] != "POST":
            raise Refused(405, "method_not_allowed", f"{scope['method']} is not taken here, use POST")
        received_at = datetime.now(UTC)
        headers = _headers(scope)
        body.expect(headers.get("content-length"))
        verification = endpoint.provider.verify(headers, endpoint.secrets)
        raw = await body.read(verification.update)
        receipt: Receipt = verification.finish(raw)
        delivery = Delivery(
            source=source,
            identity=receipt.identity,
            kind=receipt.kind,
            via="webhook",
            received_at=received_at,
            body=raw,
            body_sha256=body_sha256(raw),
            verified_by=receipt.verified_by,
            headers={name: headers[name] for name in endpoint.provider.headers if name in headers},
        )
        try:
            seq, duplicate = await bus.store_delivery(self.js, delivery)
        except bus.BrokerAway:
            raise Refused(503, "broker_away", "the log did not acknowledge in time, send it again") from None
        except bus.LogFull as error:
            self.log.error("the log is full", reason=str(error))
            raise Refused(503, "log_full", "the log takes no more deliveries, send it again later") from None
        return Stored(delivery=delivery, seq=seq, duplicate=duplicate)

    def _endpoint(self, source: str) -> Endpoint:
        endpoint = self.endpoints.get(source)
        if endpoint is not None:
            return endpoint
        if source in self.closed:
            raise Refused(404, "source_closed", self.closed[source])
        known = ", ".join(sorted(self.endpoints)) or "none"
        raise Refused(404, "unknown_source", f"no such source, known sources: {known}")

    async def _answer(self, source: str, outcome: Stored | Refused, send: Send) -> None:
        shape = self.endpoints[source].provider.answer if source in self.endpoints else answer
        shaped = shape(outcome)
        reason = (
            outcome.reason if isinstance(outcome, Refused) else "duplicate" if outcome.duplicate else "stored"
        )
        REQUESTS.labels(self._label(source), str(shaped.status), reason).inc()
        if shaped.status >= 400:
            self.log.info("refused", source=self._label(source), status=shaped.status, reason=reason)
        for message in _messages(shaped):
            await send(message)

    def _label(self, source: str) -> str:
        """`source` where it is ours: strangers may not make up metric labels."""
        return source if source in self.endpoints or source in self.closed else UNKNOWN


class _Body:
    """The body of one request: counted against its own limit and against the memory of all."""

    def __init__(self, receive: Receive, receiver: Receiver) -> None:
        self.receive = receive
        self.receiver = receiver
        self.reserved = 0
        self.seen = 0
        self.complete = False

    def expect(self, content_length: str | None) -> None:
        """Refuse at once what announces itself as too large."""
        if content_length is None:
            return
        if not content_length.isdigit():
            raise Refused(400, "bad_content_length", "Content-Length is not a number")
        if int(content_length) > streams.BODY_BYTES_MAX:
            raise _too_large()
        self._reserve(int(content_length))

    async def read(self, update: Any) -> bytes:
        """The whole body; each chunk is given to `update` as it comes."""
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(streams.BODY_READ_S_MAX):
                while not self.complete:
                    chunk = await self._next()
                    if self.seen > streams.BODY_BYTES_MAX:
                        raise _too_large()
                    self._reserve(self.seen)
                    update(chunk)
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(
                408, "body_too_slow", f"the body did not arrive within {streams.BODY_READ_S_MAX:.0f} s"
            ) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def drain(self) -> bool:
        """Read on and throw away, up to a limit, so that the sender gets to the answer; False where it left."""
        try:
            async with asyncio.timeout(streams.BODY_READ_S_MAX):
                while not self.complete and self.seen <= streams.DRAIN_BYTES_MAX:
                    await self._next()
        except SenderLeft:
            return False
        except TimeoutError:
            return True
        return True

    def release(self) -> None:
        """Give the memory back."""
        self.receiver.body_bytes -= self.reserved
        IN_FLIGHT.set(self.receiver.body_bytes)
        self.reserved = 0

    async def _next(self) -> bytes:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise SenderLeft
        chunk: bytes = message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self.seen += len(chunk)
        return chunk

    def _reserve(self, total: int) -> None:
        more = total - self.reserved
        if more <= 0:
            return
        if self.receiver.body_bytes + more > streams.BODIES_IN_FLIGHT_BYTES_MAX:
            raise Refused(503, "too_many_bytes", "too many large bodies at once, send it again")
        self.receiver.body_bytes += more
        self.reserved += more
        IN_FLIGHT.set(self.receiver.body_bytes)


def _too_large() -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than {streams.BODY_BYTES_MAX} bytes")


def _headers(scope: Scope) -> dict[str, str]:
    """Header text by lower-cased name. A header sent twice is joined, so that neither copy passes for the only one."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _messages(shaped: Answer) -> tuple[Message, Message]:
    body = orjson.dumps(shaped.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **shaped.headers}
    if shaped.status == 503:
        headers.setdefault("retry-after", str(streams.RETRY_AFTER_S))
    if shaped.status == 405:
        headers.setdefault("allow", "POST")
    return (
        {
            "type": "http.response.start",
            "status": shaped.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        },
        {"type": "http.response.body", "body": body},
    )
