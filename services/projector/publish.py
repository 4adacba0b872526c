"""The messages of EVENTS that deliveries come to."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.envelope import Event, to_headers
from contracts.ledger import parked_event
from runtime.bus import Message
from services.projector.understand import Understood


def messages(settled: Iterable[Understood]) -> list[Message]:
    """The events that deliveries state, each id once."""
    events: dict[str, Message] = {}
    for understood in settled:
        for statement in understood.statements:
            message = _message(statement.event, statement.data, statement.delivery)
            events.setdefault(message.headers["ce-id"], message)
    return list(events.values())


def parked_messages(settled: Iterable[Understood]) -> list[Message]:
    """An event for each delivery that was parked: the same id whenever it is parked for the same reason."""
    events: dict[str, Message] = {}
    for understood in settled:
        if understood.status != "parked":
            continue
        delivery = understood.delivery
        event = parked_event(
            source=delivery.source,
            identity=delivery.identity,
            body_sha256=delivery.body_sha256,
            kind=delivery.kind,
            seq=delivery.seq,
            received_at=delivery.received_at,
            reason=understood.reason or "",
            error=understood.error,
        )
        message = _message(event, event.model_dump_json().encode(), delivery.name)
        events.setdefault(message.headers["ce-id"], message)
    return list(events.values())


def _message(event: Event, data: bytes, delivery: str) -> Message:
    return Message(event.subject, data, to_headers(event, delivery))
