"""The Events API: one item per event. A scope is the path that was read: `<domain>/events`.

https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/events
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from contracts.observation import observed_body
from contracts.text import NotJson, parse
from providers.mailgun.options import DOMAIN_PATTERN
from providers.mailgun.payloads import EventData, Page
from providers.port import Item, Unintelligible, problems_of

EVENTS = "events"
EVENT = "event"
_DOMAIN = re.compile(DOMAIN_PATTERN)


def items(kind: str, scope: str, page: bytes) -> list[Item]:
    """The events of a page; raises Unintelligible."""
    domain = domain_of(scope)
    if kind != EVENTS or domain is None:
        raise Unintelligible(
            "no_such_listing", "Of Mailgun we read `events`, in a scope like mg.example.com/events."
        )
    try:
        shown = parse(Page, page).items
        return [
            Item(
                ref=ref_of(data, (data.domain.name if data.domain else None) or domain),
                kind=EVENT,
                body=observed_body(scope, item),
            )
            for item in shown
            for data in (EventData.model_validate(item),)
        ]
    except NotJson as error:
        raise Unintelligible("not_json", f"The page cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no page of events: {problems_of(error)}.") from None


def domain_of(scope: str) -> str | None:
    """The domain whose events a scope lists."""
    domain, _, listing = scope.partition("/")
    return domain.lower() if listing == EVENTS and _DOMAIN.fullmatch(domain) else None


def ref_of(data: EventData, domain: str) -> str:
    """The name of an event: its id alone is unique within a day only."""
    return f"mailgun:{domain}/{data.timestamp_text}/{data.id}"
