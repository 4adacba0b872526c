"""The history of actions, which goes back to the account's first day: it is read as far as it is not known."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime
from typing import Any

from providers.digitalocean.listings import FOLLOWING, PAGED, content, show, things
from providers.digitalocean.normalize import has_ended
from providers.digitalocean.payloads import Action, Observed
from providers.paging import each_page
from providers.polling import Ask, Keep, Look, Reply, Step, Steps, Warn, ask
from providers.port import Item

ACTIONS = "actions"
FIRST_PAGES = 5
"""Pages that are read of an account that was never read."""
OPEN_MAX = 200
"""Actions in progress that the next poll asks for one by one."""


def actions(look: Look) -> Steps:
    """Read again those that were in progress, then the pages, newest first, to one that has no news.

    Kept: the newest id and the ids of those in progress.
    """
    read_to: int = look.state.get("newest", 0)
    newest, pages = read_to, 0
    shown: set[str] = set()
    in_progress: set[int] = set()

    for action_id in look.state.get("open", ()):
        reply = yield from ask(Ask(path=f"/v2/actions/{action_id}", also=frozenset({404})))
        if reply.status != 404:
            found = _read(look, reply)
            in_progress |= _open(found.values())
            yield from show(found, reply, shown)

    def page(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal newest, pages
        pages += 1
        found = _read(look, reply)
        newest = max(newest, *(action.id for action in found.values()), 0)
        news = {item: action for item, action in found.items() if _is_news(action, read_to, look.since)}
        in_progress.update(_open(action for item, action in news.items() if item.ref not in shown))
        yield from show(news, reply, shown)
        bounded = read_to == 0 and look.since is None
        return bool(news) and not (bounded and pages == FIRST_PAGES)

    yield from each_page(Ask(path="/v2/actions", params=PAGED), FOLLOWING, page)
    followed = sorted(in_progress)[-OPEN_MAX:]
    if len(followed) < len(in_progress):
        yield Warn("many_open", f"{len(in_progress)} actions are in progress, {OPEN_MAX} are followed")
    yield Keep({"newest": newest, "open": followed})


def _read(look: Look, reply: Reply) -> dict[Item, Action]:
    return {item: content(Observed[Action], item) for item in things(ACTIONS, look.scope, reply)}


def _is_news(action: Action, read_to: int, since: datetime | None) -> bool:
    if since is None:
        return action.id > read_to
    return action.started_at is None or action.started_at >= since


def _open(found: Iterable[Action]) -> set[int]:
    return {action.id for action in found if not has_ended(action.status, action.completed_at)}
