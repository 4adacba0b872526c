"""The spans of a batch: one of its own, and one below the request of each delivery that was traced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from opentelemetry.trace import Span, SpanKind

from contracts.envelope import TRACEPARENT, header_value
from runtime import streams, tracing
from runtime.bus import Message
from services.projector.understand import Understood


@dataclass(frozen=True, slots=True)
class Traces:
    """The spans of the deliveries of a batch that were traced, by what events call their delivery."""

    spans: Mapping[str, Span]

    def note(self, what: str) -> None:
        """Something happened to the whole batch."""
        for span in self.spans.values():
            span.add_event(what)

    def carried(self, events: list[Message]) -> list[Message]:
        """`events`, each with the traceparent by which its reader goes on."""
        return [self._carried(event) for event in events] if self.spans else events

    def _carried(self, event: Message) -> Message:
        span = self.spans.get(event.headers["ce-delivery"])
        said = tracing.traceparent(span) if span else None
        return replace(event, headers={**event.headers, TRACEPARENT: said}) if said else event


NONE = Traces({})


@contextmanager
def traced(batch: Sequence[Understood]) -> Iterator[Traces]:
    """Spans while a batch is written and its events are published; none where no delivery of it was traced."""
    followed = [each for each in batch if each.delivery.trace] if tracing.on() else []
    if not followed:
        yield NONE
        return
    requests = [found for each in followed if (found := tracing.read(each.delivery.trace))]
    about = {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.destination.name": streams.DELIVERIES,
        "messaging.consumer.group.name": streams.PROJECTOR,
    }
    name = f"process {streams.DELIVERIES}"
    size = {"messaging.batch.message_count": len(batch)}
    whole = tracing.begin(name, SpanKind.CONSUMER, {**about, **size}, links=requests)
    spans = {
        header_value(each.delivery.name): tracing.begin(
            name,
            SpanKind.CONSUMER,
            {**about, **_ended(each)},
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


def _ended(understood: Understood) -> dict[str, str | int]:
    """What a delivery came to: no words of its sender."""
    delivery = understood.delivery
    return {
        "messaging.message.id": delivery.message_id,
        "odooops.source": delivery.source,
        "odooops.seq": delivery.seq,
        "odooops.status": understood.status,
        "odooops.reason": understood.reason or "",
        "odooops.tables": ",".join(sorted({name for name, _ in understood.rows})),
    }
