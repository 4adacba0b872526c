"""A stand-in for a collector of traces: OTLP over HTTP on loopback, decoded by OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.http_double import HttpDouble

WAIT_S_MAX = 30.0


@dataclass(frozen=True)
class Seen:
    """A span that came. Ids are hex."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    events: tuple[str, ...]
    failed: bool


@dataclass
class OtlpDouble(HttpDouble):
    """The server. Use it as a context manager."""

    hangs: bool = False
    """Takes requests and answers none."""
    spans: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._serve_by(self._handler())

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return self.address

    def wait_for(self, count: int, having: str = "") -> None:
        """Block until `count` spans have come, or `count` with the attribute `having`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(having) >= count, WAIT_S_MAX):
                raise TimeoutError(f"{self._count(having)} of {count} spans {having} within {WAIT_S_MAX} s")

    def _count(self, having: str) -> int:
        return sum(not having or having in span.attributes for span in self.spans)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parent's name
                """Keep quiet."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if double.hangs:
                    double._released.wait(WAIT_S_MAX)
                    self.close_connection = True
                    return
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                found = ExportTraceServiceRequest.FromString(body) if self.path == "/v1/traces" else None
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(404 if found is None else 200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                if found is not None:
                    double._take(found)

        return Handler

    def _take(self, request: ExportTraceServiceRequest) -> None:
        with self._changed:
            for resource in request.resource_spans:
                service = _values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_seen(service, span) for span in scope.spans]
            self._changed.notify_all()


def _seen(service: str, span: Any) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_values(span.attributes),
        events=tuple(event.name for event in span.events),
        failed=span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
