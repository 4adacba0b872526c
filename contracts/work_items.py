"""Work items: issues, pull requests and tasks, whoever tracks them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from contracts.envelope import Event, Level, Short
from contracts.version import Int64

WorkItemKind = Literal["issue", "pull_request", "task"]
WorkItemStatus = Literal["open", "in_progress", "done", "cancelled"]
"""Normalised states. Deleted is no state: it is `deleted_at`."""


class WorkItemEvent(Event):
    """A sight of one work item. `ref` is the item: `github:<org>/<repo>#<n>`.

    `stated` says whether the sender showed the shared group (title to merged_at) in full; where it did not, those
    fields mean nothing and no read model takes them.
    """

    service: ClassVar[str] = "work"

    system: str
    kind: WorkItemKind
    external_id: str
    project: str
    """The provider's name or id of it; empty where the sender did not say: some deletions."""
    project_id: Int64 | None = None
    number: Int64 | None = None
    url: str | None = None
    author: str | None = None
    created_at: AwareDatetime | None = None
    scope: str | None = None
    """The listing that shows it while it is there: `repos/<org>/<repo>/issues`. Null where the sender is not listed."""
    change: str
    """What happened, in the provider's word: `labeled`."""
    detail: str | None = None
    """What the change was about: the label, the assignee, the milestone."""

    stated: bool
    title: str | None = None
    state_id: str | None = None
    """The provider's id of the state, where states are things with ids: shown even where their names are not."""
    named: bool | None = None
    """False where states, labels and assignees were shown by their ids only: then status to assignees mean nothing.

    Null where the system shows no bare ids.
    """
    status: WorkItemStatus | None = None
    provider_status: str | None = None
    labels: list[str] = []
    assignee: str | None = None
    assignees: list[str] = []
    milestone: str | None = None
    updated_at: AwareDatetime | None = None
    priority: str | None = None
    """The provider's word: urgent, high, medium, low, none."""
    item_type_stated: bool = False
    """Whether the sender showed item_type, null included: older servers and some lists do not know it."""
    item_type: str | None = None
    """The provider's or the team's word for what kind of work it is: bug, epic."""
    closed_at: AwareDatetime | None = None
    archived_at: AwareDatetime | None = None
    merged_at: AwareDatetime | None = None

    pull_request_stated: bool = False
    """Whether draft, head and base below were shown."""
    draft: bool | None = None
    head_ref: str | None = None
    head_sha: Short | None = None
    base_ref: str | None = None

    @property
    def correlation(self) -> str | None:
        return self.head_sha if self.pull_request_stated else None

    @property
    def summary(self) -> str:
        what = f"{self.change} {self.detail}" if self.detail else self.change
        title = f" {self.title}" if self.title else ""
        return f"{self.ref.partition(':')[2]}:{title} [{what}]"


class WorkItemOpened(WorkItemEvent):
    """An item was created."""

    type: ClassVar[str] = "work_item.opened"


class WorkItemUpdated(WorkItemEvent):
    """Something about an item changed: `change` and `detail` say what."""

    type: ClassVar[str] = "work_item.updated"


class WorkItemClosed(WorkItemEvent):
    """An item was finished or given up: `status` says which."""

    type: ClassVar[str] = "work_item.closed"


class WorkItemReopened(WorkItemEvent):
    """A closed item is open again."""

    type: ClassVar[str] = "work_item.reopened"


class WorkItemDeleted(WorkItemEvent):
    """An item is gone from where it was; `moved_to` is its new ref where it was transferred."""

    type: ClassVar[str] = "work_item.deleted"

    deleted_at: AwareDatetime
    moved_to: str | None = None


class WorkItemObserved(WorkItemEvent):
    """A poll saw an item, as it was at its own time of change: what led there was not heard."""

    type: ClassVar[str] = "work_item.observed"


class WorkItemCommented(WorkItemEvent):
    """Somebody wrote, edited or deleted a comment: `change` says which. The text stays in the delivery."""

    type: ClassVar[str] = "work_item.commented"

    comment_id: Int64 | str
    comment_url: str | None = None


class ProjectChanged(Event):
    """A project that holds work items was created, changed or deleted: `change` says what. `ref`: `plane:project/<id>`.

    Nobody tells of the items of a deleted project: only a poll finds that they are gone.
    """

    type: ClassVar[str] = "project.changed"
    service: ClassVar[str] = "work"

    change: str
    detail: str | None = None
    """Which field of it changed."""
    project: str
    """The provider's id of it."""
    name: str | None = None
    identifier: str | None = None
    """What the numbers of its items begin with: OPS."""
    archived: bool | None = None

    @property
    def level(self) -> Level:
        return "warn" if self.change == "deleted" else "info"

    @property
    def summary(self) -> str:
        what = f"{self.change} {self.detail}" if self.detail else self.change
        return f"{self.name or self.project}: project {what}"
