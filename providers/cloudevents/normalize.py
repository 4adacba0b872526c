"""What a delivery of CloudEvents means: one event for each of them, known by `source` and `id` wherever it comes."""

from __future__ import annotations

from contracts.delivery import Delivery
from contracts.envelope import Env, Event
from contracts.external import KIND_CHARS_MAX, NAME_CHARS_MAX, ExternalReceived, cut
from contracts.version import Moment, moment
from providers.cloudevents.events import BadEvent, CloudEvent, events_of
from providers.port import Ignored, Source, Unintelligible

UNTIMED: Moment = (0, 0, 0)
"""Of an event without a time: the time of receipt would make a new event of each batch that repeats it."""


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The events of a delivery, each once; raises Ignored for an empty batch."""
    try:
        found = events_of(delivery.headers, delivery.body)
    except BadEvent as bad:
        raise Unintelligible(bad.reason, str(bad)) from None
    if not found:
        raise Ignored("empty_batch")
    once: dict[str, CloudEvent] = {}
    for each in found:
        once.setdefault(each.name, each)
    env = source.environments.of(source=delivery.source)
    return [_event(name, each, delivery, env) for name, each in once.items()]


def _event(name: str, told: CloudEvent, delivery: Delivery, env: Env) -> ExternalReceived:
    return ExternalReceived(
        source=delivery.source,
        ref=f"{delivery.source}:{name}",
        moment=UNTIMED if told.time is None else moment(told.time, 0),
        occurred_at=told.time or delivery.received_at,
        env=env,
        kind=told.type[:KIND_CHARS_MAX],
        external_id=cut(told.id, NAME_CHARS_MAX),
        origin=cut(told.source, NAME_CHARS_MAX),
        about=cut(told.subject, NAME_CHARS_MAX),
    )
