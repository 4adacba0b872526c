"""What a delivery means, and what became of it. Pure: the same delivery, the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from contracts.envelope import Event
from contracts.observation import is_observed
from contracts.record import record
from contracts.text import clean
from contracts.version import from_micros, micros, version
from providers.port import Ignored, Source, Unintelligible
from read_models.deliveries import EXCLUDED_RANK, RANKS, SECRET_EXCLUDED, DeliveryRow, Status
from read_models.port import Statement
from read_models.registry import FOLDS
from runtime.streams import EVENT_BYTES_MAX, FUTURE_S_MAX, REF_BYTES_MAX

REFS_PER_DELIVERY_MAX = 1_000
ERROR_CHARS_MAX = 500
REFOLD_IMPOSSIBLE = "refold_impossible"
"""An earlier body came late, and the log no longer holds what its rows would have to be made of anew."""
MICROSECONDS = 1_000_000


@record
class Understood:
    """A delivery, what it states, and how it ended: `reason` is a slug, `error` a sentence."""

    delivery: Delivery
    """Without its body, once that was understood: a batch of large ones must not stay in memory."""
    body_bytes: int
    status: Status
    reason: str | None = None
    error: str | None = None
    statements: tuple[Statement[Event], ...] = ()
    rows: tuple[tuple[str, Any], ...] = ()
    """Partial rows, each with its model's name."""
    refs: tuple[str, ...] = ()


def understand(sources: Mapping[str, Source], delivery: Delivery) -> Understood:
    """What `delivery` states.

    Never raises for what a sender wrote: a mistake of ours parks one delivery and does not stop the log.
    """
    source = sources.get(delivery.source)
    if source is None:
        return parked(delivery, "unknown_source", f"there is no ssot/providers/{delivery.source}.yaml")
    try:
        return _folded(delivery, tuple(source.provider.normalize(delivery, source)))
    except Ignored as ignored:
        return _without_body(delivery, status="ignored", reason=ignored.reason)
    except Unintelligible as error:
        return parked(delivery, error.reason, str(error))
    except Exception as error:  # noqa: BLE001  # see above; values stay out of the sentence
        return parked(delivery, "not_understood", f"{type(error).__name__} while it was being understood")


def _folded(delivery: Delivery, events: tuple[Event, ...]) -> Understood:
    if not events:
        return _without_body(delivery, status="ignored", reason="no_events")
    latest_at = micros(delivery.received_at) + FUTURE_S_MAX * MICROSECONDS
    for event in events:
        if event.moment[1] > latest_at or micros(event.occurred_at) > latest_at:
            return parked(delivery, "future_time", f"{event.type} lies more than 1 h after its receipt")
    return _stated(delivery, events)


def _stated(delivery: Delivery, events: tuple[Event, ...]) -> Understood:
    statements = []
    rows: list[tuple[str, Any]] = []
    refs: set[str] = set()
    for n, event in enumerate(events):
        if len(event.ref.encode()) > REF_BYTES_MAX:
            return parked(delivery, "ref_too_long", f"a ref of {event.type} has over {REF_BYTES_MAX} bytes")
        data = event.model_dump_json().encode()
        if len(data) > EVENT_BYTES_MAX:
            return parked(
                delivery, "event_too_large", f"{event.type} has over {EVENT_BYTES_MAX} bytes as JSON"
            )
        if (_FIRST_YEAR in data or _LAST_YEAR in data) and _beyond_the_calendar(event):
            return parked(delivery, "impossible_time", f"a time of {event.type} is in no year that UTC has")
        statement = Statement(
            event=event,
            version=version(event.moment, delivery.seq, n),
            delivery=delivery.name,
            received_at=delivery.received_at,
            observed=is_observed(delivery.kind),
            data=data,
        )
        statements.append(statement)
        refs.add(event.ref)
        for model, fold in FOLDS.get(type(event), ()):
            folded = fold(statement)
            for row in folded if isinstance(folded, list) else (folded,):
                if row is not None:
                    rows.append((model.name, row))
                    if model.ref_column is not None:
                        refs.add(getattr(row, model.ref_column))
    if len(refs) > REFS_PER_DELIVERY_MAX:
        return parked(
            delivery, "too_many_refs", f"it names {len(refs)} things, at most {REFS_PER_DELIVERY_MAX}"
        )
    return _without_body(
        delivery,
        status="projected",
        statements=tuple(statements),
        rows=tuple(rows),
        refs=tuple(sorted(refs)),
    )


_FIRST_YEAR, _LAST_YEAR = b'"0001-', b'"9999-'
"""How a time begins in JSON that its zone may push out of the calendar: Postgres takes it, and no client reads it."""


def _beyond_the_calendar(event: Event) -> bool:
    """Whether a time of `event` is before the year 1 or after 9999 in UTC."""
    times = [value for value in vars(event).values() if isinstance(value, datetime)]
    return any(from_micros(micros(time)) != time for time in times)


def parked(delivery: Delivery, reason: str, error: str) -> Understood:
    """`delivery` set aside: visible, retryable, and in nobody's way."""
    return _without_body(delivery, status="parked", reason=reason, error=clean(error)[:ERROR_CHARS_MAX])


def unreadable(
    subject: str,
    headers: Mapping[str, str],
    body: bytes,
    stored_at: datetime,
    seq: int,
    error: UnreadableDelivery,
) -> Understood:
    """A message that cannot be read as a delivery, parked: by its own headers, where only its body is amiss."""
    try:
        named = wire.from_message(subject, headers, body, seq)
    except UnreadableDelivery:
        tokens = [clean(token)[: wire.TOKEN_CHARS_MAX] for token in subject.split(".")]
        named = Delivery(
            source=tokens[1] if len(tokens) > 1 else "unknown",
            identity=f"seq-{seq}",
            kind=".".join(tokens[2:]) or "unknown",
            via="webhook",
            received_at=stored_at,
            body=body,
            body_sha256=wire.body_sha256(body),
            seq=seq,
        )
    return parked(named, "unreadable", str(error))


def _without_body(delivery: Delivery, **ended: Any) -> Understood:
    return Understood(delivery=replace(delivery, body=b""), body_bytes=len(delivery.body), **ended)


def in_conflict(understood: Understood, first_seq: int) -> Understood:
    """The same delivery, where another body of its identity came first: it folds nothing and publishes nothing."""
    return replace(
        understood,
        status="conflict",
        reason="another_body_came_first",
        error=f"the delivery at sequence {first_seq} has the same identity and another body",
        statements=(),
        rows=(),
        refs=(),
    )


def copy_row(understood: Understood, tried_at: datetime | None) -> DeliveryRow:
    """The ledger's row of a message that repeats an earlier one: where it stands, and no verdict.

    Without `tried_at` it does not count as a try.
    """
    return DeliveryRow(**_standing(understood, tried_at))


def ledger_row(understood: Understood, tried_at: datetime | None) -> DeliveryRow:
    """The ledger's row of `understood`: where it stands, and what became of it."""
    rank = EXCLUDED_RANK if understood.reason == SECRET_EXCLUDED else (RANKS[understood.status],)
    return DeliveryRow(
        **_standing(understood, tried_at),
        version=(-understood.delivery.seq, *rank),
        status=understood.status,
        reason=understood.reason,
        refs=list(understood.refs),
        event_count=len(understood.statements),
        last_error=understood.error,
    )


def _standing(understood: Understood, tried_at: datetime | None) -> dict[str, Any]:
    """The columns of the ledger that say where a message stands."""
    delivery = understood.delivery
    return {
        "source": delivery.source,
        "identity": delivery.identity,
        "body_sha256": delivery.body_sha256,
        "received_at": delivery.received_at,
        "stream_seq": delivery.seq,
        "last_seq": delivery.seq,
        "first_version": (-delivery.seq,),
        "kind": delivery.kind,
        "via": delivery.via,
        "verified_by": delivery.verified_by,
        "body_bytes": understood.body_bytes,
        "attempts": 0 if tried_at is None else 1,
        "first_tried_at": tried_at,
    }
