"""What the two formats of Plane's webhooks say of a change, as one: what was done, to which field, and its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from contracts.delivery import Delivery
from providers.plane.options import PlaneOptions
from providers.plane.payloads import Activity, Payload
from providers.port import Source, Unintelligible

OPENED, OTHER, CLOSED, OBSERVED = 0, 1, 2, 4
"""Which of two statements of one time is later in a thing's life."""

CREATED, UPDATED, DELETED = "created", "updated", "deleted"
VERBS: Mapping[str, str] = {"create": CREATED, "update": UPDATED, "delete": DELETED}
"""Older servers, and the documentation, name the action where newer ones tell of it."""

UNREMARKABLE = frozenset(("updated_at", "updated_by_id", "last_activity_at"))
"""Fields that change with every other field."""

DETAIL_FIELDS_MAX = 5
DETAIL_CHARS_MAX = 200
DIGEST_CHARS = 16


@dataclass(frozen=True)
class Change:
    """A delivery and its parsed body; the format tells itself by the kind, which is dotted in v2."""

    delivery: Delivery
    source: Source
    payload: Payload

    @property
    def options(self) -> PlaneOptions:
        """The workspace, as SSOT describes it."""
        options: PlaneOptions = self.source.options
        return options

    @cached_property
    def verb(self) -> str:
        """What was done, in one spelling: `created`, `updated`, `archived`; raises Unintelligible."""
        _, dotted, last = self.delivery.kind.rpartition(".")
        verb = last if dotted else self.payload.action
        if not verb:
            raise Unintelligible("shape_mismatch", "The body has no action.")
        return VERBS.get(verb, verb)

    @property
    def activity(self) -> Activity | None:
        """The one changed field that a webhook of v1 is about."""
        activity = self.payload.activity
        return activity if activity and activity.field else None

    @property
    def former(self) -> frozenset[str]:
        """The names of the fields that changed, in v2."""
        previous = self.payload.previous_attributes
        return frozenset(previous.model_fields_set) if previous else frozenset()

    @property
    def detail(self) -> str | None:
        """The names of the fields that changed."""
        if self.activity:
            return str(self.activity.field)[:DETAIL_CHARS_MAX]
        if self.verb != UPDATED:
            return None
        changed = sorted(self.former - UNREMARKABLE)[:DETAIL_FIELDS_MAX]
        return ", ".join(changed)[:DETAIL_CHARS_MAX] or None

    @property
    def fact(self) -> str:
        """The provider's id of the event; in v1, what was done to which field and from what to what.

        One change of two fields comes as two webhooks with one snapshot, hence with one moment.
        """
        if self.payload.event_id:
            return self.payload.event_id
        if self.activity is None:
            return self.verb
        values = json.dumps([self.activity.old_value, self.activity.new_value], sort_keys=True)
        digest = hashlib.sha256(values.encode()).hexdigest()[:DIGEST_CHARS]
        return f"{self.verb}:{self.activity.field}:{digest}"

    def former_value(self, name: str) -> Any:
        """What a field was before, in v2; None where that is not told."""
        return getattr(self.payload.previous_attributes, name, None)
