"""The spans of the door: one for each request to a source, and one for each time that a delivery is stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.delivery import Delivery
from runtime import tracing
from runtime.bus import Ack, Store
from services.ingest.receive import Endpoint

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
TRACEPARENT = b"traceparent"


def traced_app(app: ASGIApp, endpoints: Iterable[Endpoint]) -> ASGIApp:
    """`app` with a span for each request to one of `endpoints`; `app` itself where nothing is traced.

    What else is asked for is nobody's: strangers make no spans. A sender's own traceparent is linked to and not
    followed, or it would decide what is traced here.
    """
    if not tracing.on():
        return app
    sources = {str(each.source.file.endpoint): each.source.name for each in endpoints}

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path not in sources:
            await app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        said = next((value for name, value in scope["headers"] if name.lower() == TRACEPARENT), b"")
        theirs = tracing.read(said.decode("latin-1"))
        span = tracing.begin(
            f"{'HTTP' if method == '_OTHER' else method} {path}",
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": path,
                "url.path": path,
                "url.scheme": scope.get("scheme", "http"),
                "odooops.source": sources[path],
            },
            links=[theirs] if theirs else (),
        )
        if not span.is_recording():  # not sampled: nothing is below it
            await app(scope, receive, send)
            return

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    tracing.failed(span, str(status))
            await send(message)

        with tracing.within(span):
            await app(scope, receive, send_on)

    return traced


def traced_store(store: Store) -> Store:
    """`store` with a span for each delivery that is traced, at once or from the spool."""
    if not tracing.on():
        return store

    async def traced(delivery: Delivery, wait_s: float) -> Ack:
        if tracing.read(delivery.trace) is None:
            return await store(delivery, wait_s)
        at_the_door = tracing.here() is not None
        span = tracing.publishing(delivery, parent=delivery.trace)
        try:
            seq, duplicate = await store(delivery, wait_s)
        except Exception as error:
            if at_the_door:
                tracing.failed(span, type(error).__name__)
                span.end()
            raise  # the spool tries again and again: a span that is not ended is not sent
        span.set_attributes({"odooops.seq": seq, "odooops.duplicate": duplicate})
        span.end()
        return seq, duplicate

    return traced
