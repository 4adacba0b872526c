"""What our own deliveries mean: the event that they hold."""

from __future__ import annotations

from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.registry import UnknownEvent, decode
from providers.port import Source, Unintelligible, problems_of


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The event that a delivery of ours states; its kind is the event's type."""
    try:
        return [decode(delivery.kind, delivery.body)]
    except UnknownEvent as error:
        raise Unintelligible("unknown_event", str(error)) from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no {delivery.kind}: {problems_of(error)}.") from None
