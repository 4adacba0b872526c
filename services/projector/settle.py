"""Which delivery of an identity counts, given what the ledger knows. Pure.

The message of an identity that stands first in the log is folded; later messages with its body are copies,
those with another body are conflicts. If an earlier one turns up late, its refs are refolded. One that an operator
has set aside keeps its place, and folds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from read_models.deliveries import RANKS, SECRET_EXCLUDED, SET_ASIDE, DeliveryRow
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, copy_row, in_conflict, ledger_row

Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger holds of one body of an identity."""

    body_sha256: str
    stream_seq: int
    status: str
    refs: tuple[str, ...]
    reason: str | None = None

    @property
    def set_aside(self) -> bool:
        """Whether an operator has set aside this very body. A leaked secret says nothing of the body."""
        return self.status in SET_ASIDE and self.reason != SECRET_EXCLUDED


@dataclass(slots=True)
class Settled:
    """What a batch comes to."""

    ledger: list[DeliveryRow] = field(default_factory=list)
    fold: list[Understood] = field(default_factory=list)
    refold: set[str] = field(default_factory=set)


def identity_of(understood: Understood) -> Identity:
    """What at most one body may be folded for."""
    return (understood.delivery.source, understood.delivery.identity)


def settle(
    batch: Iterable[Understood], known: Mapping[Identity, Sequence[Known]], tried_at: datetime | None
) -> Settled:
    """Decide for every delivery of `batch`; `known` is the ledger's rows of the same identities."""
    settled = Settled()
    groups: dict[Identity, list[Understood]] = {}
    for understood in batch:
        groups.setdefault(identity_of(understood), []).append(understood)
    for identity, group in groups.items():
        # One that could not take its place does not count as the first: the later body stands.
        stuck = [each for each in group if each.reason == REFOLD_IMPOSSIBLE]
        settled.ledger += [ledger_row(each, tried_at) for each in stuck]
        settled.fold += stuck
        group = [each for each in group if each.reason != REFOLD_IMPOSSIBLE]
        if not group:
            continue
        group.sort(key=lambda each: each.delivery.seq)
        _settle_identity(identity, group, known.get(identity, ()), tried_at, settled)
    return settled


def _settle_identity(
    identity: Identity,
    group: Sequence[Understood],
    known: Sequence[Known],
    tried_at: datetime | None,
    settled: Settled,
) -> None:
    first = group[0].delivery
    first_seq, first_body = min(
        [(first.seq, first.body_sha256), *((row.stream_seq, row.body_sha256) for row in known)]
    )
    aside = any(row.body_sha256 == first_body and row.set_aside for row in known)
    for understood in group:
        delivery = understood.delivery
        if delivery.seq == first_seq and not aside:
            settled.ledger.append(ledger_row(understood, tried_at))
            settled.fold.append(understood)
        elif delivery.body_sha256 == first_body:
            settled.ledger.append(copy_row(understood, tried_at))
        else:
            settled.ledger.append(ledger_row(in_conflict(understood, first_seq), tried_at))
    if known and first.seq < min(row.stream_seq for row in known):
        settled.refold.update(group[0].refs)
        for row in known:
            settled.refold.update(row.refs)
            if row.body_sha256 != first_body:
                settled.ledger.append(_demoted(identity, row, first_seq))


def _demoted(identity: Identity, row: Known, first_seq: int) -> DeliveryRow:
    source, name = identity
    return DeliveryRow(
        source=source,
        identity=name,
        body_sha256=row.body_sha256,
        version=(-row.stream_seq, RANKS["conflict"]),
        status="conflict",
        reason="another_body_came_first",
        refs=[],
        event_count=0,
        last_error=f"the delivery at sequence {first_seq} has the same identity and another body",
    )
