"""The spans of a batch: one of its own, and one below the request of each delivery that was traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from opentelemetry.trace import Span, SpanKind

from contracts.envelope import TRACEPARENT, header_value
from runtime import streams, tracing
from runtime.bus import Message
from services.projector.understand import Understood


@dataclass(slots=True)
class Traces:
    """The spans of the deliveries of a batch that were traced, by sequence."""

    spans: Mapping[int, Span]
    _by_name: dict[str, Span] = field(default_factory=dict)
    """Those of deliveries that were folded, by what events call their delivery."""

    def committed(self, folded: Iterable[Understood]) -> None:
        """The batch is in the tables; what of it was not folded is a copy, or in conflict with another."""
        if not self.spans:
            return
        for span in self.spans.values():
            span.add_event("committed")
            span.set_attribute("odooops.status", "copy_or_conflict")
        for each in folded:
            if found := self.spans.get(each.delivery.seq):
                found.set_attributes({"odooops.status": each.status, "odooops.reason": each.reason or ""})
                found.set_attribute("odooops.tables", ",".join(sorted({name for name, _ in each.rows})))
                self._by_name[header_value(each.delivery.name)] = found

    def published(self) -> None:
        """The events of the batch are in EVENTS."""
        for span in self.spans.values():
            span.add_event("published")

    def carried(self, events: list[Message]) -> list[Message]:
        """`events`, each with the traceparent by which its reader goes on."""
        return [self._carried(event) for event in events] if self._by_name else events

    def _carried(self, event: Message) -> Message:
        span = self._by_name.get(event.headers["ce-delivery"])
        said = tracing.traceparent(span) if span else None
        return replace(event, headers={**event.headers, TRACEPARENT: said}) if said else event


@contextmanager
def traced(batch: Sequence[Understood]) -> Iterator[Traces]:
    """Spans while a batch is written and its events are published; none where no delivery of it was traced."""
    followed = [each for each in batch if tracing.read(each.delivery.trace)] if tracing.on() else []
    if not followed:
        yield Traces({})
        return
    requests = [found for each in followed if (found := tracing.read(each.delivery.trace))]
    about = {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": streams.DELIVERIES,
        "messaging.consumer.group.name": streams.PROJECTOR,
    }
    name = f"process {streams.DELIVERIES}"
    size = {"messaging.batch.message_count": len(batch)}
    whole = tracing.begin(name, SpanKind.CONSUMER, {**about, **size}, links=requests)
    spans = {
        each.delivery.seq: tracing.begin(
            name,
            SpanKind.CONSUMER,
            {
                **about,
                "messaging.message.id": each.delivery.message_id,
                "odooops.source": each.delivery.source,
                "odooops.seq": each.delivery.seq,
            },
            parent=each.delivery.trace,
            links=[whole.get_span_context()],
        )
        for each in followed
    }
    try:
        with tracing.within(whole):
            yield Traces(spans)
    except Exception as error:
        for span in spans.values():
            tracing.failed(span, type(error).__name__)
        raise
    finally:
        for span in spans.values():
            span.end()
