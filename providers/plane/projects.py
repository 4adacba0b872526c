"""Projects: what holds the work items. One that is deleted takes them along, and nobody tells of each."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.envelope import Event
from contracts.version import moment
from contracts.work_items import ProjectChanged
from providers.plane.change import CLOSED, CREATED, DELETED, OPENED, OTHER, Change
from providers.plane.payloads import Project, ProjectPayload
from providers.port import Unintelligible

RANKS: Mapping[str, int] = {CREATED: OPENED, DELETED: CLOSED}


def project(payload: ProjectPayload, change: Change) -> list[Event]:
    """A project was created, changed, archived or deleted."""
    shown = payload.data or Project()
    name = shown.id or payload.entity_id
    if not name:
        raise Unintelligible("shape_mismatch", "The body does not say which project it is about.")
    received_at = change.delivery.received_at
    at = received_at if change.verb == DELETED else shown.updated_at or received_at
    return [
        ProjectChanged(
            source=change.delivery.source,
            ref=f"plane:project/{name}",
            moment=moment(at, RANKS.get(change.verb, OTHER)),
            fact=change.fact,
            occurred_at=at,
            actor=payload.actor or shown.updated_by_id,
            change=change.verb,
            detail=change.detail,
            project=name,
            name=shown.name,
            identifier=shown.identifier,
            archived=shown.archived_at is not None if "archived_at" in shown.model_fields_set else None,
        )
    ]
