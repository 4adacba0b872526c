"""Polls of our own webhook: whether it would tell us everything, and what it could not deliver.

https://docs.github.com/en/rest/repos/webhooks
https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from contracts.health import HealthcheckCompleted
from contracts.ssot import ProviderFile
from contracts.webhooks import WebhookFailing, WebhookMended
from providers.github.answers import PER_PAGE, WINDOW, LastResponse, SeenDelivery, SeenHook, listed
from providers.paging import by_link, each_page
from providers.polling import Ask, Keep, Look, Reply, Say, Step, Steps, Warn, ask

FORBIDDEN = frozenset((403, 404))
"""How GitHub answers a token that may not read webhooks."""
DELIVERED = "OK"
PING = "ping"
UNASKED = frozenset((PING, "installation"))
"""Events that come without being ticked, or to an app alone."""
IN_FLIGHT = timedelta(seconds=60)
"""An attempt may be under way still: GitHub gives up after 10 seconds, and lists it later."""
ATTEMPTS_MAX = 5
REDELIVERIES_MAX = 50
"""In one poll. GitHub wants requests that change something to be few."""
REFUSED = frozenset((400, 404, 422))
"""How GitHub answers where a delivery cannot be had again: it is too old, or its hook is gone."""


def redelivery(look: Look) -> Steps:
    """Ask for deliveries again that nobody ever answered with 2xx: GitHub itself never tries again."""
    hook = (yield from _ours(look))[0]
    if hook is None:
        return
    path = f"/{look.scope}/hooks/{hook.id}/deliveries"
    start = max(look.started_at - WINDOW, look.since or look.started_at - WINDOW)
    attempts: list[SeenDelivery] = []

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        found = listed(SeenDelivery, reply.body)
        attempts.extend(each for each in found if each.delivered_at >= start)
        return bool(found) and found[-1].delivered_at >= start
        yield  # nothing of it is shown

    yield from each_page(Ask(path=path, params={"per_page": PER_PAGE}), by_link, read)
    failed = failed_deliveries(attempts, look.started_at)
    again = [tries[-1] for tries in failed if len(tries) < ATTEMPTS_MAX]
    for last in again[:REDELIVERIES_MAX]:
        yield from ask(Ask(path=f"{path}/{last.id}/attempts", method="POST", also=REFUSED))
    if given_up := len(failed) - len(again):
        yield Warn(
            "deliveries_failed",
            f"{given_up} deliveries to {look.scope}'s webhook failed {ATTEMPTS_MAX} times and are not asked for again: "
            "the webhook's page of recent deliveries shows why",
        )


def failed_deliveries(attempts: Iterable[SeenDelivery], now: datetime) -> list[list[SeenDelivery]]:
    """The attempts at each delivery that none of them brought, oldest first, unless one may be under way."""
    by_guid: dict[str, list[SeenDelivery]] = {}
    for attempt in sorted(attempts, key=lambda each: (each.delivered_at, each.id)):
        by_guid.setdefault(attempt.guid, []).append(attempt)
    return [
        tries
        for tries in by_guid.values()
        if tries[-1].event != PING
        and not any(map(_is_delivered, tries))
        and tries[-1].delivered_at <= now - IN_FLIGHT
    ]


def hook(look: Look) -> Steps:
    """Whether our webhook would tell us everything. What is wrong with it is said once, and so is that it is over."""
    ours, reply = yield from _ours(look)
    at = reply.fetched_at
    said = {"source": look.source.name, "occurred_at": at}
    checked = {**said, "check_name": "webhook", "target": look.scope}
    if reply.status in FORBIDDEN:
        sentence = (
            f"the token may not read the webhooks of {look.scope}: give it the repository permission "
            '"Webhooks: read and write", or set repository_webhooks: false where none is to be looked after'
        )
        yield Warn("webhooks_not_readable", sentence)
        yield Say(HealthcheckCompleted(**checked, status="unknown", detail=sentence))
        return
    refused = ours is not None and _is_refused(ours.last_response)
    problem = problem_of(ours, look.source.file)
    if problem is None and refused and look.state.get("refused"):
        problem = "its last deliveries were not answered with 2xx: its page of recent deliveries shows why"
    status = "failing" if problem else "degraded" if refused else "ok"
    yield Say(HealthcheckCompleted(**checked, status=status, detail=problem))
    ref = f"{look.source.name}:hook/{ours.id if ours else look.scope}"
    before, failing = look.state.get("ref"), look.state.get("problem")
    if failing and (problem is None or ref != before):
        yield Say(WebhookMended(**said, ref=before, scope=look.scope))
    if problem and (problem, ref) != (failing, before):
        yield Say(WebhookFailing(**said, ref=ref, scope=look.scope, problem=problem))
    yield Keep({"ref": ref, "problem": problem, "refused": refused})


def problem_of(hook: SeenHook | None, file: ProviderFile) -> str | None:
    """What is wrong with a webhook of ours as it is set, and what to do about it."""
    if hook is None:
        return (
            f"no webhook posts to {file.endpoint}: make one in the repository's settings, "
            f"with the content type application/json and the events of ssot/providers/{file.name}.yaml"
        )
    if not hook.active:
        return "it is switched off: tick Active in its settings"
    if hook.config.content_type != "json":
        return "it does not send JSON: choose the content type application/json in its settings"
    missing = set(file.events) - UNASKED - set(hook.events)
    if missing and "*" not in hook.events:
        return f"it does not send {', '.join(sorted(missing))}: tick what is missing in its settings"
    return None


def _ours(look: Look) -> Generator[Step, Any, tuple[SeenHook | None, Reply]]:
    """The repository's webhook that posts to us, and the answer that shows it; of several the one that is best."""
    path = f"/{look.scope}/hooks"
    found: list[SeenHook] = []
    reply = None

    def read(page: Reply) -> Generator[Step, Any, bool]:
        nonlocal reply
        reply = page
        if page.status not in FORBIDDEN:
            found.extend(listed(SeenHook, page.body))
        return True
        yield  # nothing of it is shown

    yield from each_page(Ask(path=path, params={"per_page": PER_PAGE}, also=FORBIDDEN), by_link, read)
    assert reply is not None  # a listing has a first page
    mine = [each for each in found if _posts_to(each, look.source.file.endpoint)]
    mine.sort(key=lambda each: (problem_of(each, look.source.file) is not None, each.id))
    return (mine[0] if mine else None), reply


def _posts_to(hook: SeenHook, endpoint: str | None) -> bool:
    """Whether a webhook's address ends in our endpoint: before it may stand whatever a proxy needs."""
    try:
        path = urlsplit(hook.config.url or "").path
    except ValueError:
        return False
    return endpoint is not None and path.rstrip("/").endswith(endpoint)


def _is_delivered(attempt: SeenDelivery) -> bool:
    return attempt.status == DELIVERED or _is_success(attempt.status_code)


def _is_refused(last: LastResponse | None) -> bool:
    return last is not None and last.code is not None and not _is_success(last.code)


def _is_success(code: int | None) -> bool:
    return code is not None and 200 <= code < 300
