"""Polls of issues and pull requests: what changed, and once a day all there is.

https://docs.github.com/en/rest/issues/issues#list-repository-issues
https://docs.github.com/en/rest/pulls/pulls#list-pull-requests
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from providers.github.answers import (
    PER_PAGE,
    UNCHANGED,
    VANISHED,
    WINDOW,
    SeenItem,
    kept_time,
    listed,
    show,
    written,
)
from providers.paging import by_link, each_page
from providers.polling import Ask, Keep, Known, Listed, Look, Reply, Step, Steps, Warn, ask

OVERLAP = timedelta(seconds=2)
"""GitHub's times are whole seconds: the last one that was read may have seen more since."""
PAGES_MAX = 1_000
FIRST_PULLS_PAGES_MAX = 50
"""Pages of pull requests that the first poll reads. The list of issues shows older ones, too, but for draft, head and
base."""
MISSING_ASKED_MAX = 100
"""A listing is not believed about a thing that it misses: so many are asked for one by one in a run."""
GONE_KEPT_MAX = 5_000


def issues(look: Look) -> Steps:
    """Issues, pull requests among them, in the order of their last change.

    Whatever changes while they are read moves to the end, and the others move up. So the next page is what changed
    since the last item of this one, and not the next hundred, which would begin too late.
    """
    cursor = kept_time(look.state.get("cursor"))
    since = look.since or (cursor - OVERLAP if cursor else look.started_at - WINDOW)
    first = Ask(
        path=f"/{look.scope}/issues",
        params=_by_change(since),
        also=UNCHANGED,
        etag=look.state.get("etag") if written(since) == look.state.get("since") else None,
    )
    page = 0

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal cursor, page
        if reply.status in UNCHANGED:
            return False
        page += 1
        cursor = max([*_times(reply), cursor or since])
        yield show("issues", f"{look.scope}/issues", reply)
        # That a page has not changed says that nothing is new only where it is the one page.
        alone = page == 1 and by_link(first, reply, page) is None
        etag = reply.headers.get("etag") if alone else None
        yield Keep({"cursor": written(cursor), "since": written(since), "etag": etag})
        return True

    def following(asked: Ask, reply: Reply, page: int) -> Ask | None:
        behind, times = by_link(asked, reply, page), _times(reply)
        if behind is None or not times:
            return None
        newest = max(times) - OVERLAP
        # Where a whole page changed in one moment, only the page behind it leads on.
        return Ask(path=first.path, params=_by_change(newest)) if newest > min(times) else behind

    yield from each_page(first, following, read, PAGES_MAX)


def pulls(look: Look) -> Steps:
    """Pull requests, the last change first, until those that were read before: they have no filter by time."""
    cursor = kept_time(look.state.get("cursor"))
    until = look.since or (cursor and cursor - OVERLAP)
    first = Ask(
        path=f"/{look.scope}/pulls",
        params={"state": "all", "sort": "updated", "direction": "desc", "per_page": PER_PAGE},
        also=UNCHANGED,
        etag=None if look.since else look.state.get("etag"),
    )
    newest, etag, page = cursor, None, 0

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal newest, etag, page
        times = [] if reply.status in UNCHANGED else _times(reply)
        if not times:
            return False
        page += 1
        if page == 1:
            newest, etag = max(times), reply.headers.get("etag")
        yield show("pulls", f"{look.scope}/pulls", reply)
        return min(times) >= until if until else page < FIRST_PULLS_PAGES_MAX

    yield from each_page(first, by_link, read, PAGES_MAX)
    if page and newest:
        yield Keep({"cursor": written(newest), "etag": etag})


def all_issues(look: Look) -> Steps:
    """All issues, in a scope of its own: what was deleted or transferred vanishes from the list without a word.

    They are read in the order of their creation, which no change disturbs. What vanishes meanwhile moves the others
    up, and one may be skipped: so each that is missing is asked for by itself.
    """
    shown: set[str] = set()
    began_at: datetime | None = None

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal began_at
        began_at = began_at or reply.asked_at
        page = show("issues", look.scope, reply)
        shown.update(item.ref for item in page.items)
        yield page
        return True

    params = {"state": "all", "sort": "created", "direction": "asc", "per_page": PER_PAGE}
    yield from each_page(Ask(path=f"/{look.scope}", params=params), by_link, read, PAGES_MAX)
    known: frozenset[str] = yield Known(look.scope)
    gone = set(look.state.get("gone", ()))
    missing = sorted(ref for ref in _of_today(known, shown) - shown if _number(ref) not in gone)
    for ref in missing[:MISSING_ASKED_MAX]:
        if (yield from _is_there(look, ref)):
            shown.add(ref)
        else:
            gone.add(_number(ref))
    if len(missing) > MISSING_ASKED_MAX:
        yield Keep({"gone": sorted(gone)[:GONE_KEPT_MAX]})
        yield Warn(
            "many_missing",
            f"{len(missing)} things are not in {look.scope} any more; {MISSING_ASKED_MAX} of them were asked for one "
            "by one, the others will be by the next runs: until then none counts as gone",
        )
        return
    assert began_at is not None  # a listing has a first page
    yield Listed(scope=look.scope, shown={"issue": sorted(shown)}, began_at=began_at)
    yield Keep({})


def _is_there(look: Look, ref: str) -> Generator[Step, Any, bool]:
    """Whether a thing that a listing missed is there under its ref; then it is shown."""
    reply = yield from ask(Ask(path=f"/{look.scope}/{_number(ref)}", also=VANISHED))
    if reply.status in VANISHED:
        return False
    found = show("issues", look.scope, reply, b"[" + reply.body + b"]")
    if all(item.ref != ref for item in found.items):
        return False
    yield found
    return True


def _of_today(known: frozenset[str], shown: set[str]) -> set[str]:
    """Those with the repository's name of today: nothing is found any more by the name before a rename."""
    homes = {ref.rpartition("#")[0] for ref in shown}
    return {ref for ref in known if not homes or ref.rpartition("#")[0] in homes}


def _number(ref: str) -> str:
    return ref.rpartition("#")[2]


def _by_change(since: datetime) -> dict[str, str]:
    return {
        "state": "all",
        "sort": "updated",
        "direction": "asc",
        "since": written(since),
        "per_page": PER_PAGE,
    }


def _times(reply: Reply) -> list[datetime]:
    return [item.updated_at for item in listed(SeenItem, reply.body)]
