"""Traces: what became of one request, from the door over its row to Slack, sent by OTLP where an endpoint is set.

Ingest decides by the standard sampler what is traced. A message that carries a `traceparent` was, and who takes it up
goes on with that trace; one that carries none makes no span. Without an endpoint, `on()` is all that is ever asked.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.util.re import parse_env_headers

from contracts.delivery import Delivery
from runtime import streams
from runtime.settings import Settings
from runtime.version import VERSION

STOP_S_MAX = 1.0
"""For the last spans of a process, or what is left of the time in which it has to end."""
SAID_EVERY_S = 60.0
"""A collector that is away is told of each few seconds by the library that sends."""
REASON_CHARS_MAX = 300
SCOPE = "odooops"

Attributes = Mapping[str, str | int]

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_tracer: Tracer | None = None
_stop: Any = None


def start(service: str, settings: Settings, log: Any) -> None:
    """Send the spans of this process from now on, if the settings name an endpoint.

    Deliveries matter more than spans: what is missing or wrong is said, and the process goes on without.
    """
    global _tracer, _stop
    base, whole = settings.otel_exporter_otlp_endpoint, settings.otel_exporter_otlp_traces_endpoint
    if settings.otel_sdk_disabled or settings.otel_traces_exporter == "none" or not (whole or base):
        return
    _listen(log)
    given = settings.otel_exporter_otlp_headers
    about = {"service.namespace": SCOPE, "service.name": f"{SCOPE}-{service}", "service.version": VERSION}
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        endpoint = _endpoint(whole or f"{(base or '').rstrip('/')}/v1/traces")
        headers = parse_env_headers(given.get_secret_value(), liberal=True) if given else None
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, headers=headers)))
    except ImportError:
        log.error("no traces are sent: their libraries are missing", hint="install odooops[otel]")
        return
    except Exception as error:  # noqa: BLE001  # whatever its libraries say of their variables
        log.error("no traces are sent: one of OpenTelemetry's variables is wrong", reason=str(error))
        return
    _tracer, _stop = provider.get_tracer(SCOPE, VERSION), provider.shutdown
    log.info("traces are sent", to=urlsplit(endpoint).netloc.rpartition("@")[2])


def _endpoint(url: str) -> str:
    """`url` where spans can be sent to it; raises ValueError."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("the endpoint is no http or https address, like http://collector:4318")
    return url


class _Seldom(logging.Handler):
    """What OpenTelemetry's libraries say, in lines of ours: the same place in their code once in SAID_EVERY_S."""

    def __init__(self, log: Any) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._again_at: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now, place = time.monotonic(), (record.name, record.lineno)
        if now < self._again_at.get(place, now):
            return
        self._again_at[place] = now + SAID_EVERY_S
        # Where headers cannot be read it quotes them, and they hold the collector's token.
        quotes = record.name == "opentelemetry.util.re"
        reason = (
            "OTEL_EXPORTER_OTLP_HEADERS is not like name=value,name=value" if quotes else record.getMessage()
        )
        self._log.warning("trouble with traces", reason=reason[:REASON_CHARS_MAX])


def _listen(log: Any) -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers, theirs.propagate = [_Seldom(log)], False


def stop(left_s: float = STOP_S_MAX) -> None:
    """Send what is left, for a moment, and for no longer than `left_s`."""
    global _tracer, _stop
    if _stop is None:
        return
    # Its own limit is 30 s, and a thread that is no daemon would hold up the end all the same.
    last = threading.Thread(target=_stop, daemon=True)
    last.start()
    last.join(max(0.0, min(STOP_S_MAX, left_s)))
    _tracer = _stop = None


def on() -> bool:
    """Whether spans are made at all."""
    return _tracer is not None


def begin(
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    *,
    parent: str | None = None,
    links: Sequence[SpanContext] = (),
) -> Span:
    """A span that is the caller's to end: below `parent`, a traceparent, or the first of a trace."""
    if _tracer is None:
        return INVALID_SPAN
    above = read(parent)
    return _tracer.start_span(
        name,
        context=trace.set_span_in_context(NonRecordingSpan(above) if above else INVALID_SPAN),
        kind=kind,
        attributes=attributes,
        links=[Link(each) for each in links],
    )


@contextmanager
def following(parent: str | None, name: str, kind: SpanKind, attributes: Attributes) -> Iterator[Span]:
    """A span below `parent` while the block runs; none where that was not traced."""
    if _tracer is None or parent is None or read(parent) is None:
        yield INVALID_SPAN
        return
    with within(begin(name, kind, attributes, parent=parent)) as span:
        yield span


@contextmanager
def below(name: str, kind: SpanKind, attributes: Attributes) -> Iterator[Span]:
    """A span below the one that the block is in; none where that is not traced."""
    if _tracer is None or not trace.get_current_span().is_recording():
        yield INVALID_SPAN
        return
    with within(_tracer.start_span(name, kind=kind, attributes=attributes)) as span:
        yield span


@contextmanager
def within(span: Span) -> Iterator[Span]:
    """`span` is what the block is in; ended with it. Of an error only its type is told: its words may quote bodies."""
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span
    except Exception as error:
        failed(span, type(error).__name__)
        raise
    finally:
        span.end()


def publishing(delivery: Delivery, *, parent: str | None = None) -> Span:
    """The span of storing `delivery`, the caller's to end; without `parent` the first of its trace."""
    about: Attributes = {
        "messaging.system": "nats",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": streams.DELIVERIES,
        "messaging.message.id": delivery.message_id,
        "messaging.message.body.size": len(delivery.body),
        "odooops.source": delivery.source,
    }
    return begin(f"publish {streams.DELIVERIES}", SpanKind.PRODUCER, about, parent=parent)


def failed(span: Span, error: str) -> None:
    """Mark a span as failed, by a word."""
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))


def here() -> str | None:
    """The traceparent of the span that the caller is in; None where it is not traced."""
    return None if _tracer is None else traceparent(trace.get_current_span())


def traceparent(span: Span) -> str | None:
    """What a message carries so that its reader goes on with the trace; None where there is none to go on with."""
    found = span.get_span_context()
    if not (found.is_valid and found.trace_flags.sampled):
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-01"


def read(traceparent: str | None) -> SpanContext | None:
    """The span that a traceparent names; None where it names none, or one that is not sampled."""
    matched = _TRACEPARENT.fullmatch(traceparent or "")
    if matched is None:
        return None
    trace_id, span_id, flags = (int(digits, 16) for digits in matched.groups())
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return found if found.is_valid and found.trace_flags.sampled else None
