"""What a delivery from Plane means: one entry per kind, which verification took from the signed body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import observed_kind
from contracts.text import Model, NotJson, parse
from providers.plane import payloads, projects, work_items
from providers.plane.change import Change
from providers.port import Ignored, Source, Unintelligible, problems_of

P = TypeVar("P", bound=payloads.Payload)

WORK_ITEM = "work_item"
OBSERVED_ITEM = observed_kind(WORK_ITEM)


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """One family of webhooks: the shape of its body, and what such a body means."""

    payload: type[P]
    events: Callable[[P, Change], list[Event]]


KINDS: Mapping[str, Kind[Any]] = {
    "issue": Kind(payloads.ItemPayload, work_items.work_item),
    "issue_comment": Kind(payloads.CommentPayload, work_items.issue_comment),
    "project": Kind(payloads.ProjectPayload, projects.project),
    "workitem.": Kind(payloads.ItemPayload, work_items.work_item),
    "workitem.comment.": Kind(payloads.ItemCommentPayload, work_items.item_comment),
    "project.": Kind(payloads.ProjectPayload, projects.project),
}
"""By the event of v1, or by that of v2 up to its last word, which is what was done."""

NOT_FOLLOWED = frozenset(
    (
        *("cycle", "module", "cycle_issue", "module_issue", "intake_issue", "user"),
        *("cycle.", "module.", "milestone.", "page."),
        *("workitem.link.", "workitem.attachment.", "workitem.relation."),
    )
)
"""What Plane is known to tell of and no table shows. It stays in the log."""


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The events of a delivery; raises Ignored where there are none, Unintelligible to have it parked."""
    if delivery.kind == OBSERVED_ITEM:
        return work_items.observed(_parsed(payloads.ObservedItem, delivery), delivery, source)
    root, dot, _ = delivery.kind.rpartition(".")
    family = root + dot or delivery.kind
    kind = KINDS.get(family)
    if kind is None:
        raise Ignored("not_followed" if family in NOT_FOLLOWED else "no_such_event")
    payload = _parsed(kind.payload, delivery)
    return kind.events(payload, Change(delivery, source, payload))


def _parsed(model: type[Model], delivery: Delivery) -> Model:
    try:
        return parse(model, delivery.body)
    except NotJson as error:
        raise Unintelligible("not_json", f"The body cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible(
            "shape_mismatch", f"This is not a body of {delivery.kind}: {problems_of(error)}."
        ) from None
