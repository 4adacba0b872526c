"""Polls of Vercel's API: deployments, and which of them each target of a project serves.

https://vercel.com/docs/rest-api/deployments/list-deployments
https://vercel.com/docs/rest-api/projects/find-a-project-by-id-or-name
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from contracts.version import from_micros, micros
from providers.paging import by_cursor, each_page
from providers.polling import Ask, Keep, Look, Polling, Reply, Scope, Step, Steps, ask, rate_limit, shown
from providers.port import Source

DEPLOYMENTS = "deployments"
TARGETS = "targets"
PAGE_COUNT = 100
"""Things on a page: the most that there may be."""
WINDOW = timedelta(days=3)
"""Deployments that are younger are read each time."""
OPEN = timedelta(days=30)
"""So long is one waited for that has not ended."""
ENDED = frozenset(("READY", "ERROR", "CANCELED", "DELETED"))
"""States that a poll need not see again; of what follows READY, the list tells nothing."""
MICROS = 1_000


def scopes(source: Source) -> list[Scope]:
    """One scope for each project that is named; where none is, one for all of the account."""
    options = source.options
    if options.projects:
        return [_scope(f"projects/{project}", project) for project in sorted(set(options.projects))]
    return [_scope(f"teams/{options.team_id}" if options.team_id else "account", None)]


def _scope(name: str, project: str | None) -> Scope:
    return Scope(
        name=name, parts={DEPLOYMENTS: partial(deployments, project), TARGETS: partial(targets, project)}
    )


def deployments(project: str | None, look: Look) -> Steps:
    """The deployments of the last days, those since the last poll, and from the oldest one on that had not ended.

    The API filters by the time of creation alone, so one that is building has to be seen again until it is not.
    """
    waiting: list[int] = []

    def handle(reply: Reply) -> Generator[Step, Any, bool]:
        yield shown(look, DEPLOYMENTS, reply)
        listed = reply.json()[DEPLOYMENTS]
        waiting.extend(created for each in listed if not _ended(each) and (created := _created(each)))
        return bool(listed)

    params = {**_team(look), "limit": str(PAGE_COUNT), "since": str(_millis(_since(look)))}
    if project is not None:
        params["projectId"] = project
    yield from each_page(Ask(path="/v6/deployments", params=params), by_cursor("until", _next), handle)
    yield Keep({"again_from": min(waiting, default=_millis(look.started_at))})


def targets(project: str | None, look: Look) -> Steps:
    """What each target serves now: no webhook tells of it without a doubt."""
    if project is not None:
        reply = yield from ask(Ask(path=f"/v9/projects/{project}", params=_team(look)))
        yield shown(look, "project", reply)
        return

    def handle(reply: Reply) -> Generator[Step, Any, bool]:
        step = shown(look, "projects", reply)
        yield step
        return bool(step.items)

    first = Ask(path="/v9/projects", params={**_team(look), "limit": str(PAGE_COUNT)})
    yield from each_page(first, by_cursor("until", _next), handle)


def _team(look: Look) -> dict[str, str]:
    team = look.source.options.team_id
    return {} if team is None else {"teamId": team}


def _since(look: Look) -> datetime:
    """From when on deployments are read: `since` leaves out what was made in that very millisecond."""
    if look.since is not None:
        return look.since
    recent, oldest = look.started_at - WINDOW, look.started_at - OPEN
    again = look.state.get("again_from")
    return recent if again is None else max(oldest, min(recent, from_micros((again - 1) * MICROS)))


def _ended(listed: dict[str, Any]) -> bool:
    return (listed.get("readyState") or listed.get("state")) in ENDED


def _created(listed: dict[str, Any]) -> int | None:
    created = listed.get("created") or listed.get("createdAt")
    return created if isinstance(created, int) else None


def _next(reply: Reply) -> str | None:
    """The time before which the next page begins; null on the last one."""
    paging = reply.json().get("pagination") or {}
    return str(paging["next"]) if paging.get("next") else None


def _millis(at: datetime) -> int:
    return micros(at) // MICROS


POLLING = Polling(scopes=scopes, allowance=rate_limit())
