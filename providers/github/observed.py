"""What GitHub's API shows: pages cut into items, and what an item means.

An item means what the webhook of the same fact means, with the same id where the type is the same. Fixed parts of
addresses: https://docs.github.com/en/rest
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import observed_body, observed_kind
from contracts.text import NotJson, decode, parse
from contracts.work_items import WorkItemObserved
from providers.github import builds, checks, deployments, payloads, work_items
from providers.github.payloads import Addressed, Home
from providers.port import Item, Source, Unintelligible, problems_of

L = TypeVar("L", bound=Addressed)

SECRET = "temp_clone_token"  # noqa: S105  # the name of a field
"""A repository that we may read is shown with a token that clones it: it is never stored."""

EMBEDDED: Mapping[str, tuple[str, ...]] = {
    "app": ("id", "slug", "name"),
    "head_repository": ("id", "full_name"),
    "milestone": ("id", "number", "title"),
    "repo": ("id", "full_name"),
    "repository": ("id", "full_name"),
}
"""Things of their own that items show in full, and what is kept of them.

Their stars and counts change all the time: each change would make a new delivery of every item that shows them.
"""

_ADDRESS = re.compile(r"^https?://[^/]+/(?:api/v3/)?repos/([^/]+/[^/]+)(?:/|$)")
_SCOPE = re.compile(r"^repos/([^/]+/[^/]+)(?:/|$)")


@dataclass(frozen=True, slots=True)
class Kind(Generic[L]):
    """One kind of item: the shape of its delivery, and what such an item means."""

    payload: type[payloads.Observed[L]]
    events: Callable[[L, Home, Delivery, Source], list[Event]]


@dataclass(frozen=True, slots=True)
class Listing(Generic[L]):
    """One kind of page: the kind of its items, the field that lists them, and what gives an item its ref."""

    kind: str
    listed: type[L]
    ref: Callable[[L, Home], str]
    field: str | None = None


KINDS: Mapping[str, Kind[Any]] = {
    observed_kind("issue"): Kind(payloads.Observed[payloads.IssueItem], work_items.observed_issue),
    observed_kind("pull_request"): Kind(
        payloads.Observed[payloads.PullRequestItem], work_items.observed_pull_request
    ),
    observed_kind("comment"): Kind(payloads.Observed[payloads.CommentItem], work_items.observed_comment),
    observed_kind("run"): Kind(payloads.Observed[payloads.RunItem], builds.observed_run),
    observed_kind("job"): Kind(payloads.Observed[payloads.JobItem], builds.observed_job),
    observed_kind("check_run"): Kind(payloads.Observed[payloads.CheckRunItem], checks.observed_check_run),
    observed_kind("check_suite"): Kind(
        payloads.Observed[payloads.CheckSuiteItem], checks.observed_check_suite
    ),
    observed_kind("deployment"): Kind(
        payloads.Observed[payloads.DeploymentItem], deployments.observed_deployment
    ),
    observed_kind("deployment_status"): Kind(
        payloads.Observed[payloads.DeploymentStatusItem], deployments.observed_deployment_status
    ),
}
"""What a poll brings, by the kind of its deliveries."""


def _numbered(seen: payloads.ListedNumber, home: Home) -> str:
    return work_items.item_ref(home, seen.number)


def _attempt(seen: payloads.ListedRun, home: Home) -> str:
    return builds.build_ref(seen)


def _identified(kind: str) -> Callable[[payloads.ListedId, Home], str]:
    return lambda seen, home: f"github:{kind}/{seen.id}"


LISTINGS: Mapping[str, Listing[Any]] = {
    "issues": Listing("issue", payloads.ListedNumber, _numbered),
    "pulls": Listing("pull_request", payloads.ListedNumber, _numbered),
    "comments": Listing("comment", payloads.ListedId, _identified("comment")),
    "runs": Listing("run", payloads.ListedRun, _attempt, "workflow_runs"),
    "jobs": Listing("job", payloads.ListedId, _identified("job"), "jobs"),
    "check_runs": Listing("check_run", payloads.ListedId, _identified("check_run"), "check_runs"),
    "check_suites": Listing("check_suite", payloads.ListedId, _identified("check_suite"), "check_suites"),
    "deployments": Listing("deployment", payloads.ListedId, _identified("deployment")),
    "deployment_statuses": Listing("deployment_status", payloads.ListedId, _identified("deployment_status")),
}
"""What is listed, by the name that a poll asks with."""

ITEMLESS = frozenset(("hook", "hook_deliveries", "hook_delivery", "rate_limit"))
"""Answers about our own hooks and allowances: they say how to poll, not what happened. Nothing of them is stored."""


def normalize_observed(delivery: Delivery, source: Source) -> list[Event]:
    """The events of an item that a poll fetched. Raises Unintelligible."""
    kind = KINDS[delivery.kind]
    try:
        seen = parse(kind.payload, delivery.body)
    except NotJson as error:
        raise Unintelligible(
            "not_json", f"The body of this {delivery.kind} cannot be read: {error}."
        ) from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no {delivery.kind}: {problems_of(error)}.") from None
    item = seen.item
    events = kind.events(item, home_of(item, seen.scope), delivery, source)
    return [_found_in(seen.scope, event) for event in events]


def items(kind: str, scope: str, page: bytes) -> list[Item]:
    """The items of one page of `kind` (LISTINGS), found in `scope`: `repos/<org>/<repo>/…`. Raises Unintelligible."""
    listing = LISTINGS.get(kind)
    if listing is None:
        if kind in ITEMLESS:
            return []
        raise Unintelligible("no_such_kind", f"GitHub lists no {kind!r}; known: {', '.join(LISTINGS)}.")
    try:
        shown = decode(page)
        return [_item(listing, scope, each) for each in _listed(listing, shown)]
    except NotJson as error:
        raise Unintelligible("not_json", f"The page of {kind} cannot be read: {error}.") from None
    except RecursionError:
        raise Unintelligible("not_json", f"The page of {kind} cannot be read: it is too deep.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no page of {kind}: {problems_of(error)}.") from None


def with_repository(item: Item, number: int) -> Item:
    """An item that says the id of its repository, `number`, as webhooks do, unless it says one already."""
    found = decode(item.body)
    shown, scope = found["item"], found["scope"]
    if not isinstance(shown, dict) or "repository" in shown:
        return item
    home = home_of(Addressed.model_validate(shown), scope)
    body = observed_body(scope, {**shown, "repository": {"id": number, "full_name": home.full_name}})
    return replace(item, body=body)


def home_of(item: Addressed, scope: str) -> Home:
    """The repository of an item: as it says itself, in its own spelling, or else as the scope says."""
    if item.repository:
        return item.repository
    for address in (item.repository_url, item.url):
        if named := _ADDRESS.match(address or ""):
            return Home(full_name=named[1])
    if named := _SCOPE.match(scope):
        return Home(full_name=named[1])
    raise Unintelligible("shape_mismatch", "Neither the item nor its scope names a repository.")


def _found_in(scope: str, event: Event) -> Event:
    """A sight with the scope of it: where an item is missed that is not found again."""
    return event.model_copy(update={"scope": scope}) if isinstance(event, WorkItemObserved) else event


def _listed(listing: Listing[Any], shown: Any) -> list[Any]:
    found = shown
    if listing.field:
        found = shown.get(listing.field) if isinstance(shown, dict) else None
    if not isinstance(found, list):
        where = f"no list in {listing.field}" if listing.field else "no list"
        raise Unintelligible("shape_mismatch", f"This is no page of {listing.kind} items: there is {where}.")
    return found


def _item(listing: Listing[Any], scope: str, shown: Any) -> Item:
    seen = listing.listed.model_validate(shown)
    ref = listing.ref(seen, home_of(seen, scope))
    return Item(ref=ref, kind=listing.kind, body=observed_body(scope, _storable(shown)))


def _storable(value: Any) -> Any:
    """An item without secrets, and without what says nothing about it."""
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _part(each, EMBEDDED[key]) if key in EMBEDDED else _storable(each)
        for key, each in value.items()
        if key != SECRET
    }


def _part(value: Any, kept: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return _storable(value)
    return {key: _storable(value[key]) for key in kept if key in value}
