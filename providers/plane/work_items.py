"""Work items and their comments. A webhook shows the item as it is when it is sent, which may be after its change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import SETTLED_S
from contracts.version import moment
from contracts.work_items import (
    WorkItemClosed,
    WorkItemCommented,
    WorkItemDeleted,
    WorkItemEvent,
    WorkItemObserved,
    WorkItemOpened,
    WorkItemReopened,
    WorkItemStatus,
    WorkItemUpdated,
)
from providers.plane.change import CLOSED, CREATED, DELETED, OBSERVED, OPENED, OTHER, Change
from providers.plane.options import PlaneOptions
from providers.plane.payloads import (
    Account,
    Comment,
    CommentPayload,
    Item,
    ItemCommentPayload,
    ItemPayload,
    ItemWithComment,
    Named,
    ObservedItem,
    State,
)
from providers.port import Ignored, Source, Unintelligible

STATUSES: Mapping[str, WorkItemStatus] = {
    "backlog": "open",
    "unstarted": "open",
    "triage": "open",
    "started": "in_progress",
    "completed": "done",
    "cancelled": "cancelled",
}
"""The normalised state by the group of a state: its name is the team's own word."""

ENDED = ("done", "cancelled")
RANKS: Mapping[type[WorkItemEvent], int] = {WorkItemOpened: OPENED, WorkItemClosed: CLOSED}
STATE_FIELDS = ("state", "state_id")
TYPE_FIELDS = ("type", "type_id")
SHARED_GROUP = frozenset(("name", "priority", "updated_at", "completed_at", "archived_at"))
NOT_FOUND = "not_found"
SETTLED = timedelta(seconds=SETTLED_S)

E = TypeVar("E", bound=WorkItemEvent)


def item_ref(item: str) -> str:
    """The ref of a work item."""
    return f"plane:{item}"


def work_item(payload: ItemPayload, change: Change) -> list[Event]:
    """Something happened to a work item."""
    item = payload.data or Item()
    if change.verb == DELETED or item.deleted_at:
        return [_departure(item, change)]
    event = _type(item, change)
    return [
        _sight(
            event,
            item,
            change.delivery,
            change.options,
            uuid=_item_id(item.id or payload.entity_id),
            at=item.updated_at or change.delivery.received_at,
            rank=RANKS.get(event, OTHER),
            actor=payload.actor or _doer(item, change),
            fact=change.fact,
            change=change.verb,
            detail=change.detail,
        )
    ]


def issue_comment(payload: CommentPayload, change: Change) -> list[Event]:
    """A comment, as v1 shows it."""
    comment = payload.data or Comment()
    return [_commented(comment, comment.issue, comment.project, change)]


def item_comment(payload: ItemCommentPayload, change: Change) -> list[Event]:
    """A comment inside its item, as v2 shows it; of a deleted one, its record is all that is left."""
    item, former = payload.data or ItemWithComment(), payload.previous_attributes
    comment = item.comment or Comment(
        id=former.id if former else None, issue_id=former.issue_id if former else None
    )
    return [_commented(comment, comment.issue_id or item.id, item.project_id, change)]


def observed(payload: ObservedItem, delivery: Delivery, source: Source) -> list[Event]:
    """A work item that a poll saw, or did not find where it was."""
    item = payload.item
    fetched_at = delivery.received_at
    if item.deleted:
        return [_absence(item, delivery, source.options)]
    at = item.updated_at or fetched_at
    return [
        _sight(
            WorkItemObserved,
            item,
            delivery,
            source.options,
            uuid=_item_id(item.id),
            at=at,
            # One that was fetched at once may have missed another change of the same time.
            rank=OBSERVED if fetched_at - at >= SETTLED or item.updated_at is None else OTHER,
            actor=None,
            change="observed",
            scope=payload.scope,
        )
    ]


def _departure(item: Item, change: Change) -> WorkItemDeleted:
    """A work item is gone. Plane gives no time for it, but where the record itself is shown as deleted. Else it was
    gone when we heard of it, and not before its last change by Plane's clock, which may be ahead of ours."""
    payload, received_at = change.payload, change.delivery.received_at
    former = payload.previous_attributes
    changed_at = former.updated_at if former and former.updated_at else received_at
    at = item.deleted_at or max(received_at, changed_at)
    left = item.model_copy(
        update={
            "project_id": _project(item) or (former.project_id if former else None),
            "sequence_id": item.sequence_id or (former.sequence_id if former else None),
            "created_at": item.created_at or (former.created_at if former else None),
        }
    )
    return _sight(
        WorkItemDeleted,
        left,
        change.delivery,
        change.options,
        uuid=_item_id(item.id or payload.entity_id),
        at=at,
        rank=CLOSED,
        actor=payload.actor,
        fact=change.fact,
        change=change.verb,
        deleted_at=at,
    )


def _absence(item: Item, delivery: Delivery, options: PlaneOptions) -> WorkItemDeleted:
    """A work item that a poll asked for and that is not there: when it went is not known, so it is when we asked."""
    at = delivery.received_at
    return _sight(
        WorkItemDeleted,
        item,
        delivery,
        options,
        uuid=_item_id(item.id),
        at=at,
        rank=CLOSED,
        actor=None,
        fact=NOT_FOUND,
        change=DELETED,
        deleted_at=at,
    )


def _commented(comment: Comment, item: str | None, project: str | None, change: Change) -> WorkItemCommented:
    """A comment was written, edited or deleted. Nothing of its item is shown but the id."""
    if item is None or comment.id is None:
        raise Ignored("comment_of_unknown_item")
    received_at = change.delivery.received_at
    at = comment.updated_at or comment.edited_at or comment.created_at or received_at
    return _sight(
        WorkItemCommented,
        Item(project_id=project or comment.project_id),
        change.delivery,
        change.options,
        uuid=item,
        at=at,
        rank=OTHER,
        actor=change.payload.actor or comment.actor_id,
        fact=change.payload.event_id or f"{change.verb}:{comment.id}",
        change=change.verb,
        comment_id=comment.id,
    )


def _type(item: Item, change: Change) -> type[WorkItemEvent]:
    """What a change amounts to. Where the format does not tell what was before, it is an update."""
    if change.verb == CREATED:
        return WorkItemOpened
    if "completed_at" in change.former:
        was, is_now = change.former_value("completed_at") is not None, item.completed_at is not None
        if was != is_now:
            return WorkItemClosed if is_now else WorkItemReopened
    activity = change.activity
    # The snapshot may be newer than the change: it is the end only where both name one state.
    if activity and activity.field in STATE_FIELDS and activity.new_value == _state_id(item):
        return WorkItemClosed if _status(item) in ENDED else WorkItemUpdated
    return WorkItemUpdated


def _sight(
    event: type[E],
    item: Item,
    delivery: Delivery,
    options: PlaneOptions,
    *,
    uuid: str,
    at: datetime,
    rank: int,
    **more: Any,
) -> E:
    """An event about the work item `uuid`, of which `item` is what was shown."""
    project = _project(item)
    stated = _is_stated(item)
    names = _names(item) if stated else None
    return event(
        source=delivery.source,
        ref=item_ref(uuid),
        moment=moment(at, rank),
        occurred_at=at,
        system="plane",
        kind="task",
        external_id=uuid,
        project=project or "",
        number=item.sequence_id,
        url=options.item_url(project, uuid),
        author=_id(item.created_by) or item.created_by_id,
        created_at=item.created_at,
        stated=stated,
        named=names is not None,
        **(_shared_group(item) if stated else {}),
        **(names or {}),
        **_type_group(item),
        **more,
    )


def _is_stated(item: Item) -> bool:
    """Whether the shared group is shown in full."""
    shown = item.model_fields_set
    return item.name is not None and SHARED_GROUP <= shown and not shown.isdisjoint(STATE_FIELDS)


def _shared_group(item: Item) -> dict[str, Any]:
    return {
        "title": item.name,
        "state_id": _state_id(item),
        "updated_at": item.updated_at,
        "priority": item.priority,
        "closed_at": item.completed_at,
        "archived_at": item.archived_at,
    }


def _type_group(item: Item) -> dict[str, Any]:
    shown = not item.model_fields_set.isdisjoint(TYPE_FIELDS)
    return {"item_type_stated": shown, "item_type": _word(item.type) or item.type_id}


def _names(item: Item) -> dict[str, Any] | None:
    """State, labels and assignees by name; None where one of them is shown by its id only, or not at all."""
    state = item.state if isinstance(item.state, State) else None
    nameless = state.name is None if state else _state_id(item) is not None
    labels, people = _labels(item), _people(item)
    if nameless or labels is None or people is None:
        return None
    return {
        "status": _status(item),
        "provider_status": state.name if state else None,
        "labels": labels,
        "assignee": people[0] if people else None,
        "assignees": people,
    }


def _status(item: Item) -> WorkItemStatus | None:
    """The normalised state; None for a group that we do not know, unless it is one that completes."""
    group = item.state.group if isinstance(item.state, State) else None
    return STATUSES.get(group or "") or ("done" if item.completed_at else None)


def _labels(item: Item) -> list[str] | None:
    """The labels' names, in an order of their own since Plane promises none; None where only ids are shown."""
    if item.labels is None:
        return [] if item.label_ids == [] else None
    names = [each.name for each in item.labels if isinstance(each, Named) and each.name]
    return sorted(names) if len(names) == len(item.labels) else None


def _people(item: Item) -> list[str] | None:
    """The same of assignees."""
    if item.assignees is None:
        return [] if item.assignee_ids == [] else None
    names = [each.display_name for each in item.assignees if isinstance(each, Account) and each.display_name]
    return sorted(names) if len(names) == len(item.assignees) else None


def _state_id(item: Item) -> str | None:
    return item.state.id if isinstance(item.state, State) else item.state or item.state_id


def _project(item: Item) -> str | None:
    return _id(item.project) or item.project_id


def _doer(item: Item, change: Change) -> str | None:
    """Who did it, in v2: the payload names nobody but in the record."""
    return item.updated_by_id or (item.created_by_id if change.verb == CREATED else None)


def _id(shown: Named | Account | str | None) -> str | None:
    return shown.id if isinstance(shown, Named | Account) else shown


def _word(shown: Named | str | None) -> str | None:
    return shown.name or shown.id if isinstance(shown, Named) else shown


def _item_id(shown: str | None) -> str:
    if not shown:
        raise Unintelligible("shape_mismatch", "The body does not say which work item it is about.")
    return shown
