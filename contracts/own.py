"""What we say ourselves: a gate's result, a job's step, an SSOT entry is a delivery of the source `odooops`.

Its kind is the event's type and its body the event's JSON, so that our own words take the same way as everybody's.
"""

from __future__ import annotations

from datetime import datetime

from contracts.delivery import Delivery, Via, body_sha256
from contracts.envelope import Event

SOURCE = "odooops"


def delivery_of(event: Event, via: Via, said_at: datetime, identity: str | None = None) -> Delivery:
    """The delivery that states `event`. Its identity is the event's id unless another tells two statements apart."""
    body = event.model_dump_json().encode()
    return Delivery(
        source=SOURCE,
        identity=identity or event.id,
        kind=event.type,
        via=via,
        received_at=said_at,
        body=body,
        body_sha256=body_sha256(body),
    )
