"""The fields of Plane's payloads that we use, of both formats and of its API, and no others.

One thing has several spellings: what v1 calls `state`, `labels`, `assignees`, `project` holds objects or bare ids;
v2 calls it `state_id`, `label_ids` … and holds bare ids. v2 writes null as the text "None", at least in print.
A list gives up at its first wrong item: a body of a million wrong ones must not fill the memory with complaints.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from contracts.version import Int64, from_micros, micros

NULL_TEXT = "None"
DATE_CHARS = 10
_HOURS_ONLY = re.compile(r"[+-]\d\d$")


def _null(value: object) -> object:
    return None if value == NULL_TEXT else value


def _time(value: object) -> object:
    """A time as Plane writes it: `archived_at` is a date, and times of the database have a zone of hours only."""
    if not isinstance(value, str):
        return value
    if value in (NULL_TEXT, ""):
        return None
    if len(value) == DATE_CHARS:
        return f"{value}T00:00:00Z"
    return f"{value}:00" if _HOURS_ONLY.search(value) else value


def _utc(at: datetime | None) -> datetime | None:
    """The same time in UTC, which the API writes in the zone of its user: one fact has one text."""
    return at if at is None or not at.utcoffset() else from_micros(micros(at))


Text = Annotated[str | None, BeforeValidator(_null)]
Number = Annotated[Int64 | None, BeforeValidator(_null)]
Time = Annotated[AwareDatetime | None, BeforeValidator(_time), AfterValidator(_utc)]


class Upstream(BaseModel):
    """Any object that Plane sends."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Account(Upstream):
    """A person. E-mail addresses and names of people are not read."""

    id: Text = None
    display_name: Text = None

    @property
    def name(self) -> str | None:
        return self.display_name or self.id


class State(Upstream):
    """A state of a project; `group` is what all projects share."""

    id: Text = None
    name: Text = None
    group: Text = None


class Named(Upstream):
    """A label, a type or a project."""

    id: Text = None
    name: Text = None


Ids = Annotated[Annotated[list[str], Field(fail_fast=True)] | None, BeforeValidator(_null)]


class Item(Upstream):
    """A work item, whoever shows it."""

    id: Text = None
    name: str | None = None
    """Nobody's null: somebody may call a work item None."""
    state: State | Text = None
    state_id: Text = None
    labels: list[Named | str] | None = Field(default=None, fail_fast=True)
    label_ids: Ids = None
    assignees: list[Account | str] | None = Field(default=None, fail_fast=True)
    assignee_ids: Ids = None
    priority: Text = None
    type: Named | Text = None
    type_id: Text = None
    project: Named | Text = None
    project_id: Text = None
    sequence_id: Number = None
    created_by: Account | Text = None
    created_by_id: Text = None
    updated_by_id: Text = None
    created_at: Time = None
    updated_at: Time = None
    completed_at: Time = None
    archived_at: Time = None
    deleted_at: Time = None


class Activity(Upstream):
    """What changed, in v1. The values may be of any kind and size: they only tell two changes apart."""

    field: Text = None
    old_value: Any = None
    new_value: Any = None
    actor: Account | None = None


class Former(Upstream):
    """What changed, in v2: the old values of what changed, or the whole record of what was deleted."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: Text = None
    issue_id: Text = None
    project_id: Text = None
    sequence_id: Number = None
    created_by_id: Text = None
    created_at: Time = None
    updated_at: Time = None
    completed_at: Time = None


class Payload(Upstream):
    """A whole body of either format."""

    action: str | None = None
    event_id: Text = None
    entity_id: Text = None
    activity: Activity | None = None
    previous_attributes: Former | None = None

    @property
    def actor(self) -> str | None:
        return self.activity.actor.name if self.activity and self.activity.actor else None


class ItemPayload(Payload):
    """Of a deleted item, v1 shows its id alone and v2 nothing."""

    data: Item | None = None


class Comment(Upstream):
    """A comment; its item is `issue` in v1 and `issue_id` in v2."""

    id: Text = None
    issue: Text = None
    issue_id: Text = None
    project: Text = None
    project_id: Text = None
    actor_id: Text = None
    created_at: Time = None
    updated_at: Time = None
    edited_at: Time = None


class CommentPayload(Payload):
    data: Comment | None = None


class ItemWithComment(Upstream):
    """In v2 the item is shown around its comment, by id and name."""

    id: Text = None
    project_id: Text = None
    comment: Comment | None = None


class ItemCommentPayload(Payload):
    data: ItemWithComment | None = None


class Project(Upstream):
    id: Text = None
    name: Text = None
    identifier: Text = None
    archived_at: Time = None
    updated_at: Time = None
    updated_by_id: Text = None


class ProjectPayload(Payload):
    data: Project | None = None


class SoughtItem(Item):
    """A work item that a poll asked for by its id. Of one that is not there this is all: `id`, `project`, `deleted`."""

    deleted: bool = False


class ObservedItem(Upstream):
    """A delivery of a poll: see contracts/observation.py."""

    scope: str
    item: SoughtItem


class Page(Upstream):
    """A page of a list. The items stay as they are: they are stored, not read."""

    results: list[dict[str, Any]]


class Shown(RootModel[dict[str, Any]]):
    """One thing that is stored as it is."""


class Entry(Upstream):
    """A thing in a list, by what a poll goes by."""

    id: str
    updated_at: Time = None
    archived_at: Time = None
    is_member: bool = True
    """Of a project: whether who asks may read its work items. Older servers do not say."""


class ListPage(Upstream):
    """A page of a list, by what a poll goes by. Its cursor is a page number in disguise."""

    results: list[Entry] = Field(fail_fast=True)
    total_results: Number = None
    next_cursor: Text = None
    next_page_results: bool = False


class LoggedChange(Upstream):
    """One entry of a work item's own history."""

    field: Text = None
    new_value: Any = None
    created_at: AwareDatetime


class History(Upstream):
    results: list[LoggedChange] = Field(fail_fast=True)


class Hook(Upstream):
    """A webhook of the workspace. Which events it sends is shown by the first version of the API alone."""

    id: str
    url: str
    is_active: bool
    project: bool = True
    issue: bool = True
    issue_comment: bool = True


class HookList(RootModel[list[Hook]]):
    """The webhooks, as the first version of the API lists them."""


class Hooks(Upstream):
    """The webhooks, as the second version of the API wraps them."""

    data: list[Hook] = Field(fail_fast=True)
