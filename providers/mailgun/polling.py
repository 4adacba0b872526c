"""Polls of the Events API: all that happened in a domain until half an hour ago, from where the last poll ended.

https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-polling
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from contracts.text import parse
from contracts.times import instant
from providers.mailgun.payloads import EventData, Page
from providers.mailgun.poll import EVENTS, domain_of
from providers.paging import each_page
from providers.polling import Ask, Keep, Look, Polling, Reply, Scope, Step, Steps, shown
from providers.port import Source

EVENTS_COUNT = 300
"""In a page: the most that there may be."""
TRUSTED_AGE = timedelta(minutes=30)
"""Events arrive late and not in order: what is younger may not be all there yet."""
OVERLAP = timedelta(hours=1)
"""Read again, for what arrived later still. What is known already is not stored again."""
FIRST = timedelta(days=1)
"""How far the first poll looks back: so long are events kept at least."""


def scopes(source: Source) -> list[Scope]:
    """One scope for each domain."""
    return [
        Scope(name=f"{domain}/{EVENTS}", parts={EVENTS: events})
        for domain in sorted(set(source.options.domains))
    ]


def events(look: Look) -> Steps:
    """The events of a domain, oldest first. How far it came is kept page by page: a long way is not gone twice."""
    end = look.started_at - TRUSTED_AGE
    begin = _begin(look)
    if begin >= end:
        return  # the other way round they would come newest first

    came = (begin + OVERLAP).timestamp()

    def handle(reply: Reply) -> Generator[Step, Any, bool]:
        step = shown(look, EVENTS, reply)
        yield step
        if step.items:
            yield Keep({"until": min(max(came, _newest(reply)), end.timestamp())})
        return bool(step.items)

    params = {"begin": _epoch(begin), "end": _epoch(end), "ascending": "yes", "limit": str(EVENTS_COUNT)}
    yield from each_page(Ask(path=f"/v3/{domain_of(look.scope)}/events", params=params), _following, handle)
    yield Keep({"until": end.timestamp()})


def _begin(look: Look) -> datetime:
    if look.since is not None:
        return look.since
    until = instant(look.state.get("until"), "s")
    return look.started_at - FIRST if until is None else until - OVERLAP


def _newest(reply: Reply) -> float:
    return max(EventData.model_validate(item).timestamp for item in parse(Page, reply.body).items)


def _following(asked: Ask, reply: Reply, page: int) -> Ask | None:
    paging = parse(Page, reply.body).paging
    return Ask(path=paging.next) if paging and paging.next else None


def _epoch(at: datetime) -> str:
    return str(int(at.timestamp()))


POLLING = Polling(scopes=scopes)
