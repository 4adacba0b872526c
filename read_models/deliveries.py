"""ops.deliveries: the ledger, one row per (source, identity, body) and what became of it.

The projector states what it made of a delivery; operators say, by events, what is to become of one. The message that
stands first in the log decides, hence versions with a negated sequence. At one sequence `status` is ranked, so that a
delivery only ever gets further: a parked one may be projected by better code, a projected one may turn out to be in
conflict with an earlier body, an operator has the last word.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from contracts.ledger import DeliveryDiscarded, DeliveryRedacted
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    EARLIEST,
    FACT,
    FIRST_TRIED,
    GREATEST,
    KEY,
    LATEST,
    NOTE,
    TALLY,
    VERSION,
    Index,
    ReadModel,
    Statement,
    latest,
)

OF_THE_FIRST = latest("first_version")

Status = Literal["parked", "ignored", "projected", "conflict", "discarded", "redacted"]
RANKS: dict[Status, int] = {
    "parked": 1,
    "ignored": 2,
    "projected": 3,
    "conflict": 4,
    "discarded": 5,
    "redacted": 6,
}
SET_ASIDE: frozenset[str] = frozenset(("discarded", "redacted"))
"""By an operator's will: nothing of it is folded, whatever code may make of it."""
SECRET_EXCLUDED = "secret_excluded"  # noqa: S105  # a reason
"""Discarded, because the secret that vouched for it had leaked: said of the message, not of its body."""
EXCLUDED_RANK = (RANKS["projected"], 1)
"""Of those: further than projected, less than a conflict, which the message that stands first makes of others."""


@record
class DeliveryRow:
    """One delivery. `stream_seq` is where its body first stands in DELIVERIES, `last_seq` where it last does."""

    source: Annotated[str, KEY]
    identity: Annotated[str, KEY]
    body_sha256: Annotated[str, KEY]
    first_version: Annotated[Version, VERSION] = ()
    kind: Annotated[str | None, OF_THE_FIRST] = None
    via: Annotated[str | None, OF_THE_FIRST] = None
    verified_by: Annotated[str | None, OF_THE_FIRST] = None
    """Name of the secret that vouched for it, never its value."""
    body_bytes: Annotated[int | None, FACT] = None
    received_at: Annotated[datetime | None, OF_THE_FIRST] = None
    stream_seq: Annotated[int | None, EARLIEST] = None
    last_seq: Annotated[int | None, GREATEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    reason: Annotated[str | None, LATEST] = None
    refs: Annotated[list[str] | None, LATEST] = None
    """Every ref that it said something about: what `refold` reads it for."""
    event_count: Annotated[int | None, LATEST] = None
    attempts: Annotated[int, TALLY] = 0
    first_tried_at: Annotated[datetime | None, FIRST_TRIED] = None
    last_error: Annotated[str | None, NOTE] = None


def _discarded(statement: Statement[DeliveryDiscarded]) -> DeliveryRow:
    event = statement.event
    return DeliveryRow(
        source=event.delivery_source,
        identity=event.delivery_identity,
        body_sha256=event.body_sha256,
        stream_seq=event.seq,
        last_seq=event.seq,
        version=(-event.seq, RANKS["discarded"]),
        status="discarded",
        reason="by_an_operator",
        refs=[],
        event_count=0,
        last_error=event.why,
    )


def _redacted(statement: Statement[DeliveryRedacted]) -> DeliveryRow:
    event = statement.event
    return DeliveryRow(
        source=event.delivery_source,
        identity=event.delivery_identity,
        body_sha256=event.body_sha256,
        first_version=(-event.seq,),
        kind=event.kind,
        via=event.via,
        verified_by=event.verified_by,
        body_bytes=event.body_bytes,
        received_at=event.received_at,
        stream_seq=event.seq,
        last_seq=event.last_seq,
        version=(-event.seq, RANKS["redacted"]),
        status="redacted",
        reason="by_an_operator",
        refs=event.refs,
        event_count=0,
        last_error=event.why,
    )


READ_MODEL = ReadModel(
    name="deliveries",
    row=DeliveryRow,
    folds={DeliveryDiscarded: _discarded, DeliveryRedacted: _redacted},
    ref_column=None,
    indexes=(
        Index("deliveries_refs", ("refs",), "gin"),
        Index("deliveries_stream_seq", ("stream_seq",)),
        Index("deliveries_set_aside", ("status", "source"), where="status IN ('parked', 'conflict')"),
    ),
)
