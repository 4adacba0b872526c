"""What our own deliveries mean: the event that they hold."""

from __future__ import annotations

from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.registry import UnknownEvent, event_type
from contracts.text import NotJson, parse
from providers.port import Source, Unintelligible, problems_of


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The event that a delivery of ours states; its kind is the event's type."""
    try:
        return [parse(event_type(delivery.kind), delivery.body)]
    except UnknownEvent as error:
        raise Unintelligible("unknown_event", str(error)) from None
    except NotJson:
        raise Unintelligible("not_json", f"This {delivery.kind} is not JSON.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no {delivery.kind}: {problems_of(error)}.") from None
