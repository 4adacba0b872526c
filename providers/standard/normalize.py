"""What a delivery by Standard Webhooks means: that its sender said something, of the kind that its body names."""

from __future__ import annotations

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.external import KIND_CHARS_MAX, MESSAGE, ExternalReceived, cut
from contracts.times import instant
from contracts.version import moment
from providers.port import Source
from providers.standard.payload import payload_of


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The one event. Its time is the body's, where that is a time; else the time of receipt."""
    payload = payload_of(delivery.body)
    at = instant(payload.timestamp, "iso") or delivery.received_at
    return [
        ExternalReceived(
            source=delivery.source,
            ref=f"{delivery.source}:{delivery.kind}/{delivery.identity}",
            moment=moment(at, 0),
            occurred_at=at,
            env=source.environments.of(source=delivery.source),
            kind=cut(payload.type, KIND_CHARS_MAX) or MESSAGE,
            external_id=delivery.identity,
        )
    ]
