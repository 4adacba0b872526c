"""Polls of Plane's API: the work items of each project, and the workspace's webhooks.

What the API promises and what it does not: contracts/upstream/plane.md
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.times import instant
from providers.paging import by_cursor, each_page
from providers.plane.answers import answer, workspace
from providers.plane.hooks import webhooks
from providers.plane.normalize import WORK_ITEM
from providers.plane.payloads import Entry, History, ListPage
from providers.plane.poll import WORK_ITEMS, absent
from providers.plane.work_items import item_ref
from providers.polling import (
    Ask,
    Failed,
    Keep,
    Known,
    Listed,
    Look,
    Part,
    Polling,
    Reply,
    Scope,
    Show,
    Step,
    Steps,
    Warn,
    ask,
    rate_limit,
    shown,
)
from providers.port import Source

PAGE_COUNT = 100
EXPAND = "state,labels,assignees"
"""Without, an item shows ids where people expect names."""
NEWEST_FIRST, OLDEST_FIRST = "-updated_at", "created_at"
OVERLAP = timedelta(minutes=5)
"""Read again, for changes that were stored later than their own time says."""
WHOLE_EVERY = timedelta(days=1)
READINGS_COUNT = 2
"""How often a list is read that changes meanwhile."""
PROJECTS_COUNT_MAX = 150
ASKED_COUNT = 50
"""Work items of one project that one run asks for by their ids."""
REMEMBERED_COUNT_MAX = 800
"""Work items of all projects that were asked for before all were: with 150 projects they fill the 64 KB of what is
kept."""
OF_THE_KEY = frozenset((401, 429))
"""Answers that the next project would get, too."""
NOT_FOUND = frozenset((404,))
REQUESTS_COUNT_A_MINUTE = 60
ARCHIVED_FIELD, RESTORED = "archived_at", "restore"

Kept = Mapping[str, Any]
"""Of one project: `changed_at`, the newest change seen; `whole_at`, when it was last listed as a whole; `asked`, the
work items that were asked for while a whole listing waits for the others."""


def scopes(source: Source) -> list[Scope]:
    """One scope, the workspace: where its projects are not named, only its API knows them."""
    parts: dict[str, Part] = {WORK_ITEMS: work_items}
    if source.file.endpoint is not None:
        parts["webhooks"] = webhooks
    return [Scope(name=f"workspaces/{source.options.workspace}", parts=parts)]


def work_items(look: Look) -> Steps:
    """The work items of each project. One that cannot be read does not hold up the others."""
    kept: dict[str, Kept] = dict(look.state.get("projects", {}))
    projects = sorted(set(look.source.options.projects)) or (yield from _projects(look, kept))
    if len(projects) > PROJECTS_COUNT_MAX:
        yield Warn(
            "too_many_projects", f"{PROJECTS_COUNT_MAX} of {len(projects)} projects are read: name those"
        )
    for project in projects[:PROJECTS_COUNT_MAX]:
        room = REMEMBERED_COUNT_MAX - sum(len(each.get("asked", ())) for each in kept.values())
        try:
            kept[project] = yield from _project(Place(look, project), kept.get(project, {}), room)
        except Failed as failure:
            if failure.status is None or failure.status in OF_THE_KEY:
                raise
            yield Warn(failure.reason, f"project {project}: {failure}")
        yield Keep({"projects": {name: kept[name] for name in projects if name in kept}})


@dataclass(frozen=True, slots=True)
class Place:
    """A project, as requests and listings call it."""

    look: Look
    project: str

    @property
    def path(self) -> str:
        return f"{workspace(self.look)}/projects/{self.project}/"

    @property
    def listing(self) -> str:
        return f"projects/{self.project}/work-items"

    def item(self, ref: str) -> str:
        """The path of a work item."""
        return f"{self.path}work-items/{_id(ref)}/"


@dataclass(slots=True)
class Reading:
    """What one reading of a list showed."""

    began_at: datetime
    entries: list[Entry] = field(default_factory=list)
    totals: set[int | None] = field(default_factory=set)

    @property
    def steady(self) -> bool:
        """Whether nothing came or went between its pages, as far as they tell."""
        return len(self.totals) == 1

    @property
    def whole(self) -> bool:
        """Whether each work item was shown, and once."""
        return self.totals == {len(self.entries)} and len(self.refs) == len(self.entries)

    @property
    def refs(self) -> frozenset[str]:
        return frozenset(item_ref(entry.id) for entry in self.entries)

    @property
    def newest(self) -> Kept:
        """What to keep of it."""
        times = [entry.updated_at for entry in self.entries if entry.updated_at]
        return {"changed_at": max(times).isoformat()} if times else {}


def _projects(look: Look, before: Collection[str]) -> Generator[Step, Any, list[str]]:
    """The projects whose work items whoever the key belongs to may read; `before` are those that were read last."""
    found: set[str] = set()

    def handle(reply: Reply) -> Generator[Step, Any, bool]:
        entries = answer(ListPage, reply).results
        found.update(entry.id for entry in entries if entry.archived_at is None and entry.is_member)
        return True
        yield  # a generator that has no step of its own

    first = Ask(path=f"{workspace(look)}/projects/", params={"per_page": str(PAGE_COUNT)})
    yield from each_page(first, by_cursor("cursor", _next_cursor), handle)
    for project in sorted(set(before) - found):
        yield Warn("project_left", f"project {project} is archived or gone: its work items stay as last seen")
    return sorted(found)


def _project(place: Place, kept: Kept, room: int) -> Generator[Step, Any, Kept]:
    """What to keep of a project that was read: by its newest changes, and once a day as a whole."""
    look = place.look
    if look.since is not None:
        yield from _list(place, NEWEST_FIRST, look.since)
        return kept
    whole_at = instant(kept.get("whole_at"), "iso")
    if whole_at is None or look.started_at - whole_at >= WHOLE_EVERY:
        return (yield from _whole(place, kept, room))
    known = instant(kept.get("changed_at"), "iso")
    seen = yield from _list(place, NEWEST_FIRST, known and known - OVERLAP)
    # Where the list became shorter between two pages, one item was on neither: it is read again.
    return {**kept, **seen.newest} if seen.steady else kept


def _whole(place: Place, kept: Kept, room: int) -> Generator[Step, Any, Kept]:
    """A list read from end to end, in an order that no change disturbs, and all that it misses asked for by its id.

    What it misses may be archived, or have been on no page: only the answer to its own name may say that it is gone.
    Each is asked for once, when it leaves the list; only then is the listing complete, and the next one's measure.
    """
    for _ in range(READINGS_COUNT):
        seen = yield from _list(place, OLDEST_FIRST)
        if seen.whole:
            break
    else:
        yield Warn("listing_changed", f"project {place.project} changed twice while its work items were read")
        return kept
    known: frozenset[str] = yield Known(place.listing)
    waiting = sorted(known - seen.refs - set(kept.get("asked", ())))
    asked = waiting[: max(0, min(ASKED_COUNT, room))]
    if asked and (yield from _is_archived_project(place)):
        yield Warn(
            "project_archived", f"project {place.project} is archived: take it out of options.projects"
        )
        return kept
    yield from _ask_for(place, asked)
    if len(asked) < len(waiting):
        left = len(waiting) - len(asked)
        yield Warn(
            "many_missing",
            f"project {place.project}: {left} work items that left its list are not asked for yet",
        )
        return {**kept, **seen.newest, "asked": [*kept.get("asked", ()), *asked]}
    yield Listed(scope=place.listing, shown={WORK_ITEM: sorted(seen.refs)}, began_at=seen.began_at)
    return {**seen.newest, "whole_at": place.look.started_at.isoformat()}


def _ask_for(place: Place, refs: Collection[str]) -> Generator[Step, Any, None]:
    """Show what became of work items that left the list: what they are now, or that they are not there any more."""
    archived = 0
    for ref in refs:
        sought = Ask(path=place.item(ref), params={"expand": EXPAND}, also=NOT_FOUND)
        reply = yield from ask(sought)
        if reply.status not in NOT_FOUND:
            yield shown(place.look, WORK_ITEM, reply, place.listing)
        elif (yield from _is_archived(place, ref)):
            archived += 1
        else:
            item = absent(place.listing, place.project, _id(ref))
            yield Show(items=[item], fetched_at=reply.fetched_at)
    if archived:
        yield Warn(
            "archived",
            f"project {place.project}: {archived} work items were archived, where nothing shows them",
        )


def _is_archived_project(place: Place) -> Generator[Step, Any, bool]:
    """Whether nothing in a project is shown, and nothing is found."""
    return answer(Entry, (yield from ask(Ask(path=place.path)))).archived_at is not None


def _is_archived(place: Place, ref: str) -> Generator[Step, Any, bool]:
    """Whether a work item that is not found was archived: the community edition shows its history all the same."""
    params = {"per_page": str(PAGE_COUNT), "order_by": "-created_at"}
    reply = yield from ask(Ask(path=f"{place.item(ref)}activities/", params=params, also=NOT_FOUND))
    if reply.status in NOT_FOUND:
        return False
    archivings = [each for each in answer(History, reply).results if each.field == ARCHIVED_FIELD]
    newest = max(archivings, key=lambda each: each.created_at, default=None)
    return newest is not None and newest.new_value != RESTORED


def _list(place: Place, order: str, since: datetime | None = None) -> Generator[Step, Any, Reading]:
    """Show the work items of a project: all, or, newest first, those that were changed since then."""
    seen = Reading(began_at=place.look.started_at)

    def handle(reply: Reply) -> Generator[Step, Any, bool]:
        page = answer(ListPage, reply)
        if not seen.totals:
            seen.began_at = reply.asked_at
        seen.totals.add(page.total_results)
        seen.entries += page.results
        yield shown(place.look, WORK_ITEMS, reply, place.listing)
        return since is None or all(
            each.updated_at is None or each.updated_at >= since for each in page.results
        )

    params = {"per_page": str(PAGE_COUNT), "order_by": order, "expand": EXPAND}
    first = Ask(path=f"{place.path}work-items/", params=params)
    yield from each_page(first, by_cursor("cursor", _next_cursor), handle)
    return seen


def _next_cursor(reply: Reply) -> str | None:
    page = answer(ListPage, reply)
    return page.next_cursor if page.next_page_results else None


def _id(ref: str) -> str:
    return ref.removeprefix(item_ref(""))


POLLING = Polling(scopes=scopes, allowance=rate_limit(of=REQUESTS_COUNT_A_MINUTE))
