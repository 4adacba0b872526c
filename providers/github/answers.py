"""What the parts of a poll share: what they read of GitHub's answers themselves, and how times are written.

An answer's items mean what providers/github/observed.py says; here is only what decides what to ask next.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from contracts.text import NotJson, decode
from providers.github.observed import items
from providers.github.payloads import Identified, Numbered, RunId, Upstream
from providers.polling import Failed, Reply, Show
from providers.port import Unintelligible, problems_of

PER_PAGE = "100"
"""The largest page."""
UNCHANGED = frozenset((304,))
"""How GitHub answers where the page is the one whose ETag was shown. It costs nothing of the allowance."""
VANISHED = frozenset((301, 404, 410))
"""How GitHub answers for a thing that was transferred, never was, or was deleted."""
WINDOW = timedelta(days=3)
"""How far back is read what has no filter by change. Webhooks may be asked for again for as long."""


class SeenItem(Numbered):
    updated_at: AwareDatetime


class SeenRun(RunId):
    status: str | None = None
    conclusion: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class SeenDeployment(Identified):
    environment: str
    created_at: AwareDatetime
    updated_at: AwareDatetime


class SeenStatus(Identified):
    state: str


class HookConfig(Upstream):
    url: str | None = None
    content_type: str | None = None


class LastResponse(Upstream):
    code: int | None = None


class SeenHook(Identified):
    active: bool = False
    events: list[str] = Field(default=[], fail_fast=True)
    config: HookConfig = HookConfig()
    last_response: LastResponse | None = None


class SeenDelivery(Identified):
    """One attempt at a delivery. All attempts at one have its `guid`."""

    guid: str
    delivered_at: AwareDatetime
    event: str
    status: str | None = None
    status_code: int | None = None


M = TypeVar("M", bound=Upstream)


def listed(model: type[M], page: bytes, field: str | None = None) -> list[M]:
    """What a page lists, in `field` or by itself; raises Failed."""
    try:
        shown = decode(page)
    except (NotJson, RecursionError):
        raise Failed("not_json", "a page of GitHub's is not JSON") from None
    if field is not None:
        shown = shown.get(field) if isinstance(shown, dict) else None
    if not isinstance(shown, list):
        raise Failed("not_a_page", f"a page of GitHub's has no list{f' in {field}' if field else ''}")
    try:
        return [model.model_validate(each) for each in shown]
    except ValidationError as error:
        raise Failed("shape_mismatch", f"a page of GitHub's is none: {problems_of(error)}") from None


def show(kind: str, scope: str, reply: Reply, page: bytes | None = None) -> Show:
    """The items of an answer, or of the `page` that was made of it; raises Failed."""
    try:
        found = items(kind, scope, reply.body if page is None else page)
    except Unintelligible as error:
        raise Failed(error.reason, str(error)) from None
    return Show(items=found, fetched_at=reply.fetched_at, listing=scope if kind == "issues" else None)


def written(at: datetime) -> str:
    """A time as GitHub writes it, whole seconds of UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kept_time(kept: object) -> datetime | None:
    """A time that was kept as text; None where there was none."""
    return datetime.fromisoformat(kept) if isinstance(kept, str) else None
