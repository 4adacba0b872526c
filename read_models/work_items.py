"""ops.work_items: one row per issue, pull request or task. Nothing removes a row: see `deleted_at`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

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
    LATEST,
    VERSION,
    ReadModel,
    Statement,
    latest,
    on,
)

OF_PULL_REQUEST = latest("pull_request_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """An item. Two groups: what every full sight states, and what only a pull request's payload states."""

    work_item_ref: Annotated[str, KEY]
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
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    labels: Annotated[list[str] | None, LATEST] = None
    assignee: Annotated[str | None, LATEST] = None
    assignees: Annotated[list[str] | None, LATEST] = None
    milestone: Annotated[str | None, LATEST] = None
    updated_at: Annotated[datetime | None, LATEST] = None
    closed_at: Annotated[datetime | None, LATEST] = None
    merged_at: Annotated[datetime | None, LATEST] = None
    pull_request_version: Annotated[Version, VERSION] = ()
    draft: Annotated[bool | None, OF_PULL_REQUEST] = None
    head_ref: Annotated[str | None, OF_PULL_REQUEST] = None
    head_sha: Annotated[str | None, OF_PULL_REQUEST] = None
    base_ref: Annotated[str | None, OF_PULL_REQUEST] = None
    last_event_at: Annotated[datetime | None, GREATEST] = None
    """The newest provider time at which the item was spoken of."""
    deleted_at: Annotated[datetime | None, GREATEST] = None
    """Counts only while nothing newer was stated: the view work_items_now says so."""
    moved_to: Annotated[str | None, FACT] = None


def _sight(statement: Statement[WorkItemEvent]) -> WorkItem:
    event = statement.event
    stated: dict[str, Any] = {}
    if event.stated:
        stated = {
            "version": statement.version,
            "title": event.title,
            "status": event.status,
            "provider_status": event.provider_status,
            "labels": event.labels,
            "assignee": event.assignee,
            "assignees": event.assignees,
            "milestone": event.milestone,
            "updated_at": event.updated_at,
            "closed_at": event.closed_at,
            "merged_at": event.merged_at,
        }
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
    return WorkItem(
        work_item_ref=event.ref,
        system=event.system,
        kind=event.kind,
        external_id=event.external_id,
        project_ref=event.project,
        project_id=event.project_id,
        number=event.number,
        url=event.url,
        author=event.author,
        created_at=event.created_at,
        last_event_at=from_micros(event.moment[1]),
        **stated,
    )


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
    ),
    ref_column="work_item_ref",
)
