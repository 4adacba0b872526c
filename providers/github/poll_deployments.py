"""Polls of deployments and their statuses.

https://docs.github.com/en/rest/deployments/deployments#list-deployments
https://docs.github.com/en/rest/deployments/statuses#list-deployment-statuses
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple
from zlib import crc32

from providers.github.answers import (
    PER_PAGE,
    VANISHED,
    WINDOW,
    SeenDeployment,
    SeenStatus,
    listed,
    show,
)
from providers.paging import by_link, each_page
from providers.polling import Ask, Keep, Look, Reply, Step, Steps

PAGES_MAX = 10
SUCCESS = "success"
LASTING = ("error", "failure", "inactive", SUCCESS)
"""A success lasts until the next one in its environment, which makes it inactive."""
READ_MAX = 100
"""Deployments whose statuses are read in one poll, the newest first; the turn of the others comes with the next."""
KEPT_MAX = 1_000


class Mark(NamedTuple):
    """A deployment as it was when its statuses were last read."""

    updated_s: int
    """Its `updated_at`, which each status moves, in seconds since 1970."""
    state: str
    """Its last status."""
    environment: int
    """A checksum of its name: names are long, and memory is small."""


def deployments(look: Look) -> Steps:
    """The newest deployments, and the statuses of all that may have a new one."""
    kept: Mapping[str, Any] = {} if look.since else look.state.get("deployments", {})
    marks = {number: Mark(*mark) for number, mark in kept.items()}
    seen, new = yield from _newest(look)
    changed = {
        number
        for number, each in seen.items()
        if (marks[number].updated_s != _updated_s(each) if number in marks else number in new)
    }
    busy = {_environment(seen[number]) for number in changed}
    since_s = int((look.started_at - WINDOW).timestamp())
    open_ones = {n for n, mark in marks.items() if mark.state not in LASTING and mark.updated_s >= since_s}
    live = {n for n, mark in marks.items() if mark.state == SUCCESS}
    superseded = {n for n in live if marks[n].environment in busy}
    due = sorted(changed | open_ones | superseded, key=int, reverse=True)
    for number in due if look.since else due[:READ_MAX]:
        state = yield from _statuses(look, number)
        if number in seen:
            marks[number] = Mark(_updated_s(seen[number]), state, _environment(seen[number]))
        else:
            marks[number] = marks[number]._replace(state=state)
    left = sorted(marks.keys() & (seen.keys() | open_ones | live), key=int, reverse=True)[:KEPT_MAX]
    yield Keep({"deployments": {number: list(marks[number]) for number in left}})


def _newest(look: Look) -> Generator[Step, Any, tuple[dict[str, SeenDeployment], set[str]]]:
    """Show deployments, the newest first: all by id, and which of them count though nothing is known of them.

    Those of the first page do, however old they are: what runs today may have been deployed long ago.
    """
    start = look.since or look.started_at - WINDOW
    seen: dict[str, SeenDeployment] = {}
    new: set[str] = set()
    page = 0

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal page
        page += 1
        found = listed(SeenDeployment, reply.body)
        yield show("deployments", f"{look.scope}/deployments", reply)
        seen.update((str(each.id), each) for each in found)
        new.update(str(each.id) for each in found if page == 1 or each.created_at >= start)
        return page < PAGES_MAX and bool(found) and found[-1].created_at >= start

    first = Ask(path=f"/{look.scope}/deployments", params={"per_page": PER_PAGE})
    yield from each_page(first, by_link, read)
    return seen, new


def _statuses(look: Look, number: str) -> Generator[Step, Any, str]:
    """Show the statuses of a deployment; the state of the last one, empty where there is none."""
    path = f"/{look.scope}/deployments/{number}/statuses"
    last: SeenStatus | None = None
    vanished = False

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal last, vanished
        if vanished := reply.status in VANISHED:
            return False
        last = max([*listed(SeenStatus, reply.body), *([last] if last else [])], key=_id, default=None)
        yield show("deployment_statuses", path[1:], reply)
        return True

    yield from each_page(Ask(path=path, params={"per_page": PER_PAGE}, also=VANISHED), by_link, read)
    if vanished:
        return LASTING[0]
    return last.state if last else ""


def _id(status: SeenStatus) -> int:
    return status.id


def _updated_s(seen: SeenDeployment) -> int:
    return int(seen.updated_at.timestamp())


def _environment(seen: SeenDeployment) -> int:
    return crc32(seen.environment.encode())
