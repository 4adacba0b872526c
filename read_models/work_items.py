"""ops.work_items: one row per issue, pull request or task. Nothing removes a row: see `deleted_at`.

A ref begins with its system's name, so GitHub and Plane never speak of one row: a column that only one of them knows
is NULL in the rows of the other and can wipe nothing out.
Read what counts now (status, deleted, archived, gone) from the view ops.work_items_now.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.observation import WORK_ITEM_KINDS
from contracts.polls import ListingCompleted
from contracts.record import record
from contracts.version import Version, from_micros
from contracts.work_items import (
    WorkItemClosed,
    WorkItemCommented,
    WorkItemDeleted,
    WorkItemEvent,
    WorkItemObserved,
    WorkItemOpened,
    WorkItemReopened,
    WorkItemUpdated,
)
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    KNOWN_BETTER,
    LATEST,
    SIGHT,
    VERSION,
    Index,
    ReadModel,
    Statement,
    latest,
    on,
)

NAMED = latest("named_version")
TYPED = latest("item_type_version")
OF_PULL_REQUEST = latest("pull_request_version", apart=True)


@record
class WorkItem:
    """An item. Four groups: what every full sight states, what it states where it shows names and not bare ids, what
    only a pull request's payload states, and the type, which some senders show and some do not know.
    """

    work_item_ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT, SIGHT] = None
    scope: Annotated[str | None, FACT, SIGHT] = None
    """The listing of `source` in which its absence means that it is gone: the least, where several show it.

    Both are NULL where nothing says in which one that would be: then nobody knows whether it is still there.
    """
    system: Annotated[str | None, FACT] = None
    kind: Annotated[str | None, FACT] = None
    external_id: Annotated[str | None, FACT] = None
    project_ref: Annotated[str | None, FACT] = None
    project_id: Annotated[int | None, FACT] = None
    number: Annotated[int | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    author: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, EARLIEST] = None
    version: Annotated[Version, VERSION] = ()
    title: Annotated[str | None, LATEST] = None
    state_id: Annotated[str | None, LATEST] = None
    """The state that the item is in. Where it is not `named_state_id`, `status` is that of an older state."""
    priority: Annotated[str | None, LATEST] = None
    milestone: Annotated[str | None, LATEST] = None
    updated_at: Annotated[datetime | None, LATEST] = None
    closed_at: Annotated[datetime | None, LATEST] = None
    archived_at: Annotated[datetime | None, LATEST] = None
    merged_at: Annotated[datetime | None, LATEST] = None
    named_version: Annotated[Version, VERSION] = ()
    named_state_id: Annotated[str | None, NAMED] = None
    status: Annotated[str | None, NAMED] = None
    provider_status: Annotated[str | None, NAMED] = None
    labels: Annotated[list[str] | None, NAMED] = None
    assignee: Annotated[str | None, NAMED] = None
    assignees: Annotated[list[str] | None, NAMED] = None
    item_type_version: Annotated[Version, VERSION] = ()
    item_type: Annotated[str | None, TYPED] = None
    pull_request_version: Annotated[Version, VERSION] = ()
    draft: Annotated[bool | None, OF_PULL_REQUEST] = None
    head_ref: Annotated[str | None, OF_PULL_REQUEST] = None
    head_sha: Annotated[str | None, OF_PULL_REQUEST] = None
    base_ref: Annotated[str | None, OF_PULL_REQUEST] = None
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """The newest provider time at which the item was spoken of."""
    last_seen_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest complete listing that shows it was begun."""
    deleted_at: Annotated[datetime | None, GREATEST, KNOWN_BETTER] = None
    """Counts only while nothing newer was stated or listed: the view work_items_now says so."""
    moved_to: Annotated[str | None, FACT] = None


def _sight(statement: Statement[WorkItemEvent]) -> WorkItem:
    event = statement.event
    stated: dict[str, Any] = {}
    if event.stated:
        stated = {
            "version": statement.version,
            "title": event.title,
            "state_id": event.state_id,
            "priority": event.priority,
            "milestone": event.milestone,
            "updated_at": event.updated_at,
            "closed_at": event.closed_at,
            "archived_at": event.archived_at,
            "merged_at": event.merged_at,
        }
    if event.stated and event.named is not False:
        stated |= {
            "named_version": statement.version,
            "named_state_id": event.state_id,
            "status": event.status,
            "provider_status": event.provider_status,
            "labels": event.labels,
            "assignee": event.assignee,
            "assignees": event.assignees,
        }
    if event.item_type_stated:
        stated |= {"item_type_version": statement.version, "item_type": event.item_type}
    if event.pull_request_stated:
        stated |= {
            "pull_request_version": statement.version,
            "draft": event.draft,
            "head_ref": event.head_ref,
            "head_sha": event.head_sha,
            "base_ref": event.base_ref,
        }
    if isinstance(event, WorkItemDeleted):
        stated |= {"deleted_at": event.deleted_at, "moved_to": event.moved_to}
    if event.scope is not None:
        stated |= {"source": event.source, "scope": event.scope}
    return WorkItem(
        work_item_ref=event.ref,
        system=event.system,
        kind=event.kind,
        external_id=event.external_id,
        project_ref=event.project or None,
        project_id=event.project_id,
        number=event.number,
        url=event.url,
        author=event.author,
        created_at=event.created_at,
        last_event_at=from_micros(event.moment[1]),
        **stated,
    )


def _listed(statement: Statement[ListingCompleted]) -> list[WorkItem] | None:
    listing = statement.event
    if listing.kind not in WORK_ITEM_KINDS:
        return None
    return [
        WorkItem(
            work_item_ref=ref, source=listing.source, scope=listing.scope, last_seen_at=listing.started_at
        )
        for ref in listing.refs
    ]


READ_MODEL = ReadModel(
    name="work_items",
    row=WorkItem,
    folds=on(
        WorkItemOpened,
        WorkItemUpdated,
        WorkItemClosed,
        WorkItemReopened,
        WorkItemDeleted,
        WorkItemCommented,
        WorkItemObserved,
        fold=_sight,
    )
    | on(ListingCompleted, fold=_listed),
    ref_column="work_item_ref",
    indexes=(Index("work_items_moved_to", ("moved_to",), where="moved_to IS NOT NULL"),),
    presence=("last_seen_at", "last_event_at"),
)
