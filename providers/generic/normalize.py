"""What a delivery of a sender without code means: that it said something, as far as SSOT says where to look."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.external import KIND_CHARS_MAX, TITLE_CHARS_MAX, ExternalReceived, cut, stable_name
from contracts.pointer import find, text_at
from contracts.text import NotJson, document
from contracts.times import instant
from contracts.version import moment
from providers.generic.options import Options
from providers.port import Source, Unintelligible


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The one event. A body that is no JSON has a kind and a time of receipt, and that is all."""
    options: Options = source.options
    value = _document(delivery, options)
    at = _time(value, options, delivery)
    word = text_at(value, options.kind.pointer) if options.kind and options.kind.pointer else None
    thing = text_at(value, options.ref) if options.ref else None
    name = f"{delivery.kind}/{delivery.identity}" if thing is None else stable_name(thing)
    return [
        ExternalReceived(
            source=delivery.source,
            ref=f"{delivery.source}:{name}",
            moment=moment(at, 0),
            fact=delivery.identity,
            occurred_at=at,
            env=source.environments.of(source=delivery.source),
            kind=cut(word, KIND_CHARS_MAX) or delivery.kind,
            external_id=delivery.identity if options.identity else None,
            title=cut(text_at(value, options.title), TITLE_CHARS_MAX) if options.title else None,
        )
    ]


def _document(delivery: Delivery, options: Options) -> Any:
    """The decoded body, where anything is looked for in it and it is JSON."""
    if not (options.time or options.ref or options.title or (options.kind and options.kind.pointer)):
        return None
    try:
        return document(delivery.body)
    except NotJson:
        return None


def _time(value: Any, options: Options, delivery: Delivery) -> datetime:
    """The sender's time, else that of receipt. One in another unit than SSOT says is not guessed at: it parks."""
    found = None if options.time is None else find(value, options.time.pointer)
    if options.time is None or found is None:
        return delivery.received_at
    at = instant(found, options.time.unit)
    if at is None:
        raise Unintelligible(
            "unreadable_time",
            f"What stands at {options.time.pointer} is no time in the unit {options.time.unit}: "
            f"mend options.time in ssot/providers/{delivery.source}.yaml, or ask the sender.",
        )
    return at
