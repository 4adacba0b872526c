"""Issues, pull requests and their comments as sights of work items. Both share one space of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import SETTLED_S
from contracts.version import INT64_MAX, micros, moment
from contracts.work_items import (
    WorkItemClosed,
    WorkItemCommented,
    WorkItemDeleted,
    WorkItemEvent,
    WorkItemKind,
    WorkItemObserved,
    WorkItemOpened,
    WorkItemReopened,
    WorkItemStatus,
    WorkItemUpdated,
)
from providers.github.payloads import (
    CommentItem,
    Home,
    Issue,
    IssueCommentPayload,
    IssueItem,
    IssuePayload,
    ItemPayload,
    PullRequest,
    PullRequestItem,
    PullRequestPayload,
    Transfer,
)
from providers.port import Source, Unintelligible

OPENED, OTHER, CLOSED, MERGED, SETTLED = 0, 1, 2, 3, 4
ACTION_RANKS: Mapping[str, int] = {
    "opened": OPENED,
    "closed": CLOSED,
    "transferred": CLOSED,
    "deleted": CLOSED,
}
"""Which of two actions in one second is later in an item's life.

A merge is a `closed` that ranks higher; highest is an observation that has seen the whole second.
"""

EVENTS: Mapping[str, type[WorkItemEvent]] = {
    "opened": WorkItemOpened,
    "closed": WorkItemClosed,
    "reopened": WorkItemReopened,
}
"""Every other action is an update, so that an action which GitHub adds is one too."""

GIVEN_UP = ("not_planned", "duplicate")
"""Why an issue may be closed without being done."""

KINDS: Mapping[str, WorkItemKind] = {"issues": "issue", "pull": "pull_request"}
"""What the page of a comment is called, by what it is about."""
COMMENTED_PAGE = re.compile(r"/(issues|pull)/[0-9]+(?:#|$)")
COMMENTED_ADDRESS = re.compile(r"/issues/([0-9]{1,19})/*$")

SHARED_GROUP = frozenset(("title", "state", "labels", "assignees", "milestone", "updated_at", "closed_at"))
MERGE_KEYS = frozenset(("merged", "merged_at"))

E = TypeVar("E", bound=WorkItemEvent)


def issue(payload: IssuePayload, delivery: Delivery, source: Source) -> list[Event]:
    """Something happened to an issue, or to the issue side of a pull request."""
    if payload.action == "deleted":
        return [_departure(payload, delivery, moved_to=None)]
    if payload.action == "transferred":
        arrival = _arrival(payload, delivery)
        departure = _departure(payload, delivery, moved_to=arrival.ref if arrival else None)
        return [departure, arrival] if arrival else [departure]
    return [_change(payload.issue, payload, delivery, _about(payload), _origin(payload.changes))]


def pull_request(payload: PullRequestPayload, delivery: Delivery, source: Source) -> list[Event]:
    """Something happened to a pull request."""
    about = _about(payload)
    if about is None and payload.requested_reviewer:
        about = payload.requested_reviewer.login
    elif about is None and payload.requested_team:
        about = payload.requested_team.name
    return [_change(payload.pull_request, payload, delivery, about or payload.after)]


def issue_comment(payload: IssueCommentPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A comment was written, edited or deleted; the body shows the item too, as of its own updated_at."""
    comment = payload.comment
    at = comment.updated_at or comment.created_at
    return [
        _sight(
            WorkItemCommented,
            payload.issue,
            payload.repository,
            delivery,
            rank=OTHER,
            fact=comment_fact(payload.action, comment.id, at),
            actor=payload.actor,
            change=payload.action,
            occurred_at=at,
            comment_id=comment.id,
            comment_url=comment.html_url,
        )
    ]


def observed_issue(item: IssueItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """An issue, or the issue side of a pull request, as a poll sees it."""
    return [_observed(item, home, delivery, "issue")]


def observed_pull_request(
    item: PullRequestItem, home: Home, delivery: Delivery, source: Source
) -> list[Event]:
    """A pull request as a poll sees it. What it is to be merged into is in the repository that it belongs to."""
    base = item.base.repo if item.base else None
    return [_observed(item, base or home, delivery, "pull_request")]


def observed_comment(comment: CommentItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """A comment as a poll sees it: of its item it shows where it is and nothing else."""
    address, page = COMMENTED_ADDRESS.search(comment.issue_url), COMMENTED_PAGE.search(comment.html_url)
    if address is None or page is None or (number := int(address[1])) > INT64_MAX:
        raise Unintelligible("shape_mismatch", "The item's issue_url or html_url is no address of a comment.")
    at = comment.updated_at or comment.created_at or delivery.received_at
    change = "created" if comment.updated_at in (None, comment.created_at) else "edited"
    return [
        WorkItemCommented(
            source=delivery.source,
            ref=item_ref(home, number),
            moment=moment(at, OTHER),
            fact=comment_fact(change, comment.id, at),
            occurred_at=at,
            actor=comment.user.login if comment.user else None,
            system="github",
            kind=KINDS[page[1]],
            external_id=f"{home.full_name}#{number}",
            project=home.full_name,
            project_id=home.id,
            number=number,
            url=comment.html_url.partition("#")[0],
            change=change,
            stated=False,
            comment_id=comment.id,
            comment_url=comment.html_url,
        )
    ]


def item_ref(home: Home, number: int) -> str:
    """The ref of an issue or pull request."""
    return f"github:{home.full_name}#{number}"


def comment_fact(change: str, number: int, at: datetime | None) -> str:
    """What tells apart two facts about the comments of one item."""
    return f"{change}:{number}:{micros(at) if at else ''}"


def _observed(
    item: Issue | PullRequest, home: Home, delivery: Delivery, kind: Literal["issue", "pull_request"]
) -> WorkItemObserved:
    """An item as it was at its own time of change. Fetched within that second, it may have missed the rest of it.

    A pull request is listed twice, and either list shows what the other does not: two facts.
    """
    at = item.updated_at or delivery.received_at
    settled = (delivery.received_at - at).total_seconds() >= SETTLED_S
    return _sight(
        WorkItemObserved,
        item,
        home,
        delivery,
        rank=SETTLED if settled else OTHER,
        fact=kind,
        change="observed",
    )


def _change(
    item: Issue | PullRequest,
    payload: IssuePayload | PullRequestPayload,
    delivery: Delivery,
    about: str | None,
    origin: str | None = None,
) -> WorkItemEvent:
    """What an action did to an item that is still there; `about` is what it was about."""
    action = payload.action
    merge = action == "closed" and _is_merged(item)
    return _sight(
        EVENTS.get(action, WorkItemUpdated),
        item,
        payload.repository,
        delivery,
        rank=MERGED if merge else ACTION_RANKS.get(action, OTHER),
        fact=f"{action}:{about}" if about else action,
        actor=payload.actor,
        change=action,
        detail=about or origin,
    )


def _departure(payload: IssuePayload, delivery: Delivery, moved_to: str | None) -> WorkItemDeleted:
    """An issue is gone from its number; GitHub gives no time for it but the issue's last change."""
    return _sight(
        WorkItemDeleted,
        payload.issue,
        payload.repository,
        delivery,
        rank=ACTION_RANKS[payload.action],
        fact=payload.action,
        actor=payload.actor,
        change=payload.action,
        detail=moved_to,
        deleted_at=payload.issue.updated_at or delivery.received_at,
        moved_to=moved_to,
    )


def _arrival(payload: IssuePayload, delivery: Delivery) -> WorkItemOpened | None:
    """The issue at its new place, stated as the new repository's own `opened` states it."""
    moves = payload.changes
    if moves is None or moves.new_issue is None or moves.new_repository is None:
        return None
    return _sight(
        WorkItemOpened,
        moves.new_issue,
        moves.new_repository,
        delivery,
        rank=OPENED,
        fact="opened",
        actor=payload.actor,
        change="opened",
        detail=item_ref(payload.repository, payload.issue.number),
    )


def _origin(moves: Transfer | None) -> str | None:
    """Where an opened issue was transferred from."""
    if moves is None or moves.old_repository is None or moves.old_issue is None:
        return None
    return item_ref(moves.old_repository, moves.old_issue.number)


def _about(payload: ItemPayload) -> str | None:
    """The label, assignee or milestone that an action is about: facts of one second differ by it."""
    if payload.label:
        return payload.label.name
    if payload.assignee:
        return payload.assignee.login
    return payload.milestone.title if payload.milestone else None


def _sight(
    event: type[E],
    item: Issue | PullRequest,
    home: Home,
    delivery: Delivery,
    *,
    rank: int,
    fact: str,
    actor: str | None = None,
    occurred_at: datetime | None = None,
    **more: Any,
) -> E:
    """An event about `item`, which is at home in a repository."""
    at = item.updated_at or delivery.received_at
    return event(
        source=delivery.source,
        ref=item_ref(home, item.number),
        moment=moment(at, rank),
        fact=fact,
        occurred_at=occurred_at or at,
        actor=actor,
        system="github",
        kind="pull_request" if _is_pull_request(item) else "issue",
        # The ids of an issue and of its pull request differ, though they are one item.
        external_id=f"{home.full_name}#{item.number}",
        project=home.full_name,
        project_id=home.id,
        number=item.number,
        url=item.html_url,
        author=item.user.login if item.user else None,
        created_at=item.created_at,
        scope=f"repos/{home.full_name.lower()}/issues",
        stated=(stated := _is_stated(item)),
        **(_shared_group(item) if stated else {}),
        **(_type_group(item) if isinstance(item, Issue) else {}),
        **(_pull_request_group(item) if isinstance(item, PullRequest) else {}),
        **more,
    )


def _is_stated(item: Issue | PullRequest) -> bool:
    """Whether the shared group is shown in full, a closed pull request's merge included."""
    if item.state is None or not SHARED_GROUP.issubset(item.model_fields_set):
        return False
    if item.state != "closed" or not _is_pull_request(item):
        return True
    merge = item if isinstance(item, PullRequest) else item.pull_request
    return merge is not None and not MERGE_KEYS.isdisjoint(merge.model_fields_set)


def _shared_group(item: Issue | PullRequest) -> dict[str, Any]:
    merged = _is_merged(item)
    return {
        "title": item.title,
        "status": _status(item, merged),
        "provider_status": "merged" if merged else item.state,
        "labels": [label.name for label in item.labels or []],
        "assignee": _assignee(item),
        "assignees": [account.login for account in item.assignees or [] if account.login],
        "milestone": item.milestone.title if item.milestone else None,
        "updated_at": item.updated_at,
        "closed_at": item.closed_at,
        "merged_at": _merged_at(item),
    }


def _type_group(item: Issue) -> dict[str, Any]:
    """The type of an issue, which not every server and not every payload shows."""
    return {
        "item_type_stated": "type" in item.model_fields_set,
        "item_type": item.type.name if item.type else None,
    }


def _pull_request_group(item: PullRequest) -> dict[str, Any]:
    return {
        "pull_request_stated": True,
        "draft": item.draft,
        "head_ref": item.head.ref if item.head else None,
        "head_sha": item.head.sha if item.head else None,
        "base_ref": item.base.ref if item.base else None,
    }


def _status(item: Issue | PullRequest, merged: bool) -> WorkItemStatus | None:
    """The normalised state; None for a word that we do not know."""
    if item.state == "open":
        return "open"
    if item.state != "closed":
        return None
    if _is_pull_request(item):
        return "done" if merged else "cancelled"
    return "cancelled" if isinstance(item, Issue) and item.state_reason in GIVEN_UP else "done"


def _assignee(item: Issue | PullRequest) -> str | None:
    """The first assignee, who stands alone in the older of two fields."""
    if "assignee" in item.model_fields_set:
        return item.assignee.login if item.assignee else None
    return item.assignees[0].login if item.assignees else None


def _is_pull_request(item: Issue | PullRequest) -> bool:
    return isinstance(item, PullRequest) or item.pull_request is not None


def _is_merged(item: Issue | PullRequest) -> bool:
    return _merged_at(item) is not None or (isinstance(item, PullRequest) and item.merged is True)


def _merged_at(item: Issue | PullRequest) -> datetime | None:
    if isinstance(item, PullRequest):
        return item.merged_at
    return item.pull_request.merged_at if item.pull_request else None
