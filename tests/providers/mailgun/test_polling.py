"""Polls of the Events API: only what is old enough is read, all of it, and what was told before is no drift."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from providers.mailgun import PROVIDER
from providers.mailgun.options import MailgunOptions
from providers.mailgun.polling import FIRST, OVERLAP, POLLING, TRUSTED_AGE
from providers.polling import Ask, Part, Reply
from read_models import mail_events
from tests.providers.drifting import drift
from tests.providers.driving import NOW, source_of
from tests.providers.mailgun.deliveries import DOMAIN, observed, read, webhook
from tests.providers.polled import Polled, look, polled, reply

SOURCE = source_of(PROVIDER, options={"domains": ["MG.example.com", "mail.example.net"]})
SCOPE = f"{DOMAIN}/events"
API = "https://api.mailgun.net"
END = NOW - TRUSTED_AGE
EVENT: dict[str, Any] = read("event-data/delivered")


def part() -> Part:
    [scope] = [each for each in POLLING.scopes(SOURCE) if each.name == SCOPE]
    return scope.parts["events"]


def event(n: int, minutes_ago: float = 60) -> dict[str, Any]:
    return EVENT | {"id": f"event-{n}", "timestamp": (NOW - timedelta(minutes=minutes_ago)).timestamp()}


def serving(*pages: Sequence[dict[str, Any]]) -> Any:
    """Mailgun's answers: each page names the next one by its whole address, and after the last is an empty one."""

    def answer(asked: Ask) -> Reply:
        n = int(asked.path.rpartition("/")[2]) if asked.path.startswith(API) else 0
        items = pages[n] if n < len(pages) else []
        return reply({"items": items, "paging": {"next": f"{API}/v3/{DOMAIN}/events/{n + 1}"}})

    return answer


def poll(*pages: Sequence[dict[str, Any]], **told: Any) -> Polled:
    return polled(part(), look(SOURCE, SCOPE, **told), serving(*pages))


def seconds(asked: Ask, name: str) -> int:
    return int(asked.params[name])


def test_each_domain_that_is_named_is_a_scope_and_none_is_nothing() -> None:
    assert ["mail.example.net/events", SCOPE] == [scope.name for scope in POLLING.scopes(SOURCE)]
    assert [] == POLLING.scopes(source_of(PROVIDER))
    with pytest.raises(ValidationError):
        MailgunOptions(domains=["mg.example.com/../routes"])


def test_pages_are_followed_until_an_empty_one_and_each_event_is_shown() -> None:
    seen = poll([event(1), event(2)], [event(3)])

    assert [f"/v3/{DOMAIN}/events", f"{API}/v3/{DOMAIN}/events/1", f"{API}/v3/{DOMAIN}/events/2"] == [
        asked.path for asked in seen.asks
    ]
    assert ["yes", "300"] == [seen.asks[0].params[name] for name in ("ascending", "limit")]
    assert ["event-1", "event-2", "event-3"] == [ref.rpartition("/")[2] for ref in seen.refs]
    assert not seen.failed and not seen.listings


def test_only_what_is_older_than_half_an_hour_is_asked_for() -> None:
    assert int(END.timestamp()) == seconds(poll().asks[0], "end")


def test_the_first_poll_looks_back_a_day_and_a_later_one_to_a_while_before_the_last() -> None:
    first = poll([event(1)])
    later = poll(started_at=NOW + timedelta(minutes=15), state=first.keeps[-1])

    assert int((NOW - FIRST).timestamp()) == seconds(first.asks[0], "begin")
    assert int((END - OVERLAP).timestamp()) == seconds(later.asks[0], "begin")


def test_what_an_operator_wants_again_is_read_from_then_on() -> None:
    since = NOW - timedelta(days=20)
    assert int(since.timestamp()) == seconds(poll(since=since, state={"until": 1}).asks[0], "begin")


def test_nothing_is_asked_for_where_nothing_is_old_enough() -> None:
    assert [] == poll(since=NOW - timedelta(minutes=5)).asks


def test_a_reading_that_breaks_off_goes_on_where_it_was() -> None:
    def answer(asked: Ask) -> Reply:
        return (
            reply(status=500) if asked.path.startswith(API) else serving([event(1, minutes_ago=300)])(asked)
        )

    seen = polled(part(), look(SOURCE, SCOPE), answer)

    assert 500 == seen.failed[0].status
    assert [{"until": (NOW - timedelta(minutes=300)).timestamp()}] == seen.keeps


def test_a_reading_that_breaks_off_at_once_is_not_set_back() -> None:
    until = (NOW - timedelta(hours=3)).timestamp()

    assert until == poll([event(1, minutes_ago=230)], state={"until": until}).keeps[0]["until"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"items": [{"event": "delivered"}]}'])
def test_an_answer_of_another_shape_fails_and_keeps_nothing(body: bytes) -> None:
    seen = polled(part(), look(SOURCE, SCOPE), lambda asked: reply(body))

    assert seen.failed and not seen.keeps and not seen.shows


def test_an_address_that_names_itself_as_the_next_ends() -> None:
    page = {"items": [event(1)], "paging": {"next": f"{API}/v3/{DOMAIN}/events/1"}}

    assert seen_reason(page) in {"endless_pages", "repeated_page"}


def seen_reason(page: dict[str, Any]) -> str:
    return polled(part(), look(SOURCE, SCOPE), lambda asked: reply(page)).failed[0].reason


@pytest.mark.parametrize(
    "name", ["accepted", "clicked", "delivered", "failed.permanent", "opened", "unsubscribed"]
)
def test_an_event_that_a_webhook_told_of_is_no_drift(name: str) -> None:
    told = read(f"event-data/{name}") | {"domain": {"name": DOMAIN}}
    shuffled = json.dumps(dict(reversed(told.items())))

    assert {} == drift(
        mail_events.READ_MODEL,
        {"mailgun": SOURCE},
        [webhook(told)],
        observed(shuffled, received_at=NOW + timedelta(hours=1)),
    )
