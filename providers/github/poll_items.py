"""Polls of issues and pull requests: what changed, and now and then all there is.

https://docs.github.com/en/rest/issues/issues#list-repository-issues
https://docs.github.com/en/rest/pulls/pulls#list-pull-requests
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime, timedelta
from typing import Any

from providers.github.answers import GONE, PER_PAGE, WINDOW, SeenItem, kept_time, listed, show, written
from providers.paging import by_link, each_page
from providers.polling import Ask, Keep, Known, Listed, Look, Reply, Step, Steps, Warn, ask

OVERLAP = timedelta(seconds=2)
"""GitHub's times are whole seconds: the last one that was read may have seen more since."""
WHOLE_EVERY = timedelta(days=1)
PAGES_MAX = 1_000
FIRST_PULLS_PAGES_MAX = 50
"""Older pull requests are known by the list of issues, which shows all but draft, head and base."""
MISSING_ASKED_MAX = 50
"""A whole listing is not believed about a thing that it misses: so many are asked for one by one in one run."""
CONFIRMED_KEPT_MAX = 2_000


def issues(look: Look) -> Steps:
    """Issues and pull requests that changed, in the order of their change.

    Whatever changes while they are read moves to the end. So the next page is what changed since the last item of
    this one, not the next hundred: those would begin one item too late.
    """
    state = look.state
    cursor = kept_time(state.get("cursor"))
    since = look.since or (cursor - OVERLAP if cursor else look.started_at - WINDOW)
    asked_since = since
    same = look.since is None and state.get("since") == written(since)
    first = Ask(
        path=f"/{look.scope}/issues",
        params=_by_change(since),
        also=frozenset((304,)),
        etag=state.get("etag") if same else None,
    )

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal cursor
        if reply.status == 304:
            return False
        changed = _times(reply)
        cursor = max(changed, default=cursor or since)
        yield show("issues", f"{look.scope}/issues", reply)
        alone = asked_since == since and by_link(first, reply, 1) is None
        # An unchanged page says that nothing is new only if it is the only one.
        etag = reply.headers.get("etag") if alone else None
        yield Keep({"cursor": written(cursor), "since": written(since), "etag": etag})
        return True

    def following(asked: Ask, reply: Reply, page: int) -> Ask | None:
        nonlocal asked_since
        behind = by_link(asked, reply, page)
        changed = _times(reply)
        if behind is None or not changed:
            return None
        newest = max(changed) - OVERLAP
        if newest <= min(changed):
            # More than a page in one moment: only the next page leads on.
            return behind
        asked_since = newest
        return Ask(path=first.path, params=_by_change(newest))

    yield from each_page(first, following, read, PAGES_MAX)


def pulls(look: Look) -> Steps:
    """Pull requests that changed, the newest change first: there is no filter by time."""
    cursor = kept_time(look.state.get("cursor"))
    until = look.since or (cursor and cursor - OVERLAP)
    newest = cursor
    etag: str | None = None
    read_pages = 0

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal newest, etag, read_pages
        if reply.status == 304:
            return False
        changed = _times(reply)
        if read_pages == 0:
            etag = reply.headers.get("etag")
            newest = max([*changed, *filter(None, [newest])], default=None)
        read_pages += 1
        yield show("pulls", f"{look.scope}/pulls", reply)
        if until is None:
            return read_pages < FIRST_PULLS_PAGES_MAX
        return bool(changed) and min(changed) >= until

    first = Ask(
        path=f"/{look.scope}/pulls",
        params={"state": "all", "sort": "updated", "direction": "desc", "per_page": PER_PAGE},
        also=frozenset((304,)),
        etag=None if look.since else look.state.get("etag"),
    )
    yield from each_page(first, by_link, read, PAGES_MAX)
    if read_pages and newest:
        yield Keep({"cursor": written(newest), "etag": etag})


def all_issues(look: Look) -> Steps:
    """Once a day everything: what was deleted or transferred vanishes without a word.

    In the order of creation, which no change disturbs. What is removed meanwhile moves the others up, so that one may
    be skipped: what is missing is asked for by itself.
    """
    scope = f"{look.scope}/issues"
    listed_at = kept_time(look.state.get("listed_at"))
    if look.since or (listed_at and look.started_at - listed_at < WHOLE_EVERY):
        return
    shown: set[str] = set()
    began_at: datetime | None = None

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal began_at
        began_at = began_at or reply.asked_at
        page = show("issues", scope, reply)
        shown.update(item.ref for item in page.items)
        yield page
        return True

    first = Ask(
        path=f"/{scope}",
        params={"state": "all", "sort": "created", "direction": "asc", "per_page": PER_PAGE},
    )
    yield from each_page(first, by_link, read, PAGES_MAX)
    known: frozenset[str] = yield Known(scope)
    confirmed = set(look.state.get("gone", ()))
    missing = sorted(_of_today(known - shown, shown) - confirmed)
    for ref in missing[:MISSING_ASKED_MAX]:
        found = yield from _one(look, scope, ref)
        if ref in found:
            shown.add(ref)
        else:
            confirmed.add(ref)
    if len(missing) > MISSING_ASKED_MAX:
        yield Keep({**look.state, "gone": sorted(confirmed)[:CONFIRMED_KEPT_MAX]})
        yield Warn(
            "many_missing",
            f"{len(missing)} issues of {look.scope} are not listed any more; {MISSING_ASKED_MAX} of them were asked for "
            "one by one, the others will be by the next runs: until then none counts as gone",
        )
        return
    assert began_at is not None  # a listing has a first page
    yield Listed(scope=scope, shown={"issue": sorted(shown)}, began_at=began_at)
    yield Keep({"listed_at": look.started_at.isoformat()})


def _one(look: Look, scope: str, ref: str) -> Generator[Step, Any, list[str]]:
    """The refs under which a thing is found that a listing missed: its own, another one's where it moved, none."""
    number = ref.rpartition("#")[2]
    reply = yield from ask(Ask(path=f"/{look.scope}/issues/{number}", also=GONE))
    if reply.status in GONE:
        return []
    found = show("issues", scope, reply, b"[" + reply.body + b"]")
    mine = [item.ref for item in found.items if item.ref == ref]
    if mine:
        yield found
    return mine


def _of_today(missing: Iterable[str], shown: Iterable[str]) -> set[str]:
    """Those that have the repository's name of today: nothing is found by the name before a rename."""
    homes = {ref.rpartition("#")[0] for ref in shown}
    return {ref for ref in missing if not homes or ref.rpartition("#")[0] in homes}


def _by_change(since: datetime) -> dict[str, str]:
    return {
        "state": "all",
        "sort": "updated",
        "direction": "asc",
        "since": written(since),
        "per_page": PER_PAGE,
    }


def _times(reply: Reply) -> list[datetime]:
    return [item.updated_at for item in listed(SeenItem, reply)]
