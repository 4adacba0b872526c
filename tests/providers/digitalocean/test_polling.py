"""How DigitalOcean is polled: what counts as a whole listing, where actions stop, how health and figures are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.health import HealthcheckCompleted, MetricRecorded
from contracts.polls import listing
from providers.digitalocean.actions import FIRST_PAGES, OPEN_MAX
from providers.digitalocean.listings import PAGE_SIZE
from providers.digitalocean.monitoring import HEALTH, MEASURED_MAX, WINDOW_S
from providers.digitalocean.polling import POLLING
from providers.polling import Allowance, Ask, Look, Part, Reply
from tests.providers.digitalocean.answers import PASSWORD, SOURCE, answer
from tests.providers.driving import NOW
from tests.providers.polled import Polled, look, polled, reply

SCOPES = {scope.name: scope for scope in POLLING.scopes(SOURCE)}
GPU = {"gpu_info": {"count": 1, "model": "h100"}}


def poll(
    scope: str,
    part: str,
    answers: Callable[[Ask], Reply],
    state: Mapping[str, Any] | None = None,
    **more: Any,
) -> Polled:
    told: Look = look(SOURCE, scope, state=state or {}, **more)
    chosen: Part = SCOPES[scope].parts[part]
    return polled(chosen, told, answers)


def page(
    kind: str, things: Sequence[Mapping[str, Any]], total: int | None = None, more: bool = False
) -> Reply:
    """One page of a listing, as DigitalOcean writes it."""
    links = {"pages": {"next": "https://api.digitalocean.com/v2/x?page=9"}} if more else {}
    meta = {} if total is None else {"meta": {"total": total}}
    return reply({kind: things, "links": links, **meta})


def in_turn(*replies: Reply) -> Callable[[Ask], Reply]:
    """These answers, one after the other."""
    left = list(replies)
    return lambda asked: left.pop(0)


def droplet(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": f"d{number}", "status": "active", **more}


def refs(*numbers: int) -> list[str]:
    return [f"digitalocean:droplet/{number}" for number in numbers]


@pytest.mark.parametrize(
    ("scope", "recorded", "asked"),
    [
        ("droplets", "all_droplets.all_droplets", "/v2/droplets"),
        ("gpu_droplets", "all_droplets.gpu_droplets", "/v2/droplets"),
        ("databases", "database_clusters", "/v2/databases"),
        ("firewalls", "list_firewalls_response", "/v2/firewalls"),
    ],
)
def test_a_recorded_listing_is_whole_and_lists_what_it_shows(scope: str, recorded: str, asked: str) -> None:
    done = poll(scope, scope, lambda _: reply(answer(recorded)))

    [listed] = done.listings
    [kind] = listed.shown
    assert done.refs and done.refs == list(listed.shown[kind])
    assert {kind} == {item.kind for show in done.shows for item in show.items}
    assert ([asked], scope, NOW) == ([each.path for each in done.asks], listed.scope, listed.began_at)
    assert not done.warns and listing(SOURCE.name, listed.scope, listed.began_at, listed.shown)


def test_gpu_droplets_are_asked_for_by_their_type_and_only_they() -> None:
    [plain] = poll("droplets", "droplets", lambda _: page("droplets", [], 0)).asks
    [gpu] = poll("gpu_droplets", "gpu_droplets", lambda _: page("droplets", [], 0)).asks

    assert "type" not in plain.params and "gpus" == gpu.params["type"]


def test_a_gpu_droplet_among_ordinary_ones_fails_the_listing() -> None:
    done = poll("droplets", "droplets", lambda _: page("droplets", [droplet(1, **GPU)], 1))

    assert ["another_scope"] == [failure.reason for failure in done.failed] and not done.listings


def test_pages_are_read_by_number_to_the_last() -> None:
    done = poll(
        "droplets",
        "droplets",
        in_turn(page("droplets", [droplet(1)], 2, more=True), page("droplets", [droplet(2)], 2)),
    )

    assert [("1", str(PAGE_SIZE)), ("2", str(PAGE_SIZE))] == [
        (each.params["page"], each.params["per_page"]) for each in done.asks
    ]
    assert [refs(1, 2)] == [listed.shown["droplet"] for listed in done.listings]


def test_an_empty_listing_is_whole_too() -> None:
    [listed] = poll("droplets", "droplets", lambda _: page("droplets", [], 0)).listings
    assert {"droplet": []} == listed.shown


CHANGED = {
    "the total changes": [page("droplets", [droplet(1)], 2, more=True), page("droplets", [droplet(2)], 3)],
    "one is skipped": [page("droplets", [droplet(1)], 3, more=True), page("droplets", [droplet(3)], 3)],
    "one is shown twice": [
        page("droplets", [droplet(1)], 2, more=True),
        page("droplets", [droplet(1), droplet(2)], 2),
    ],
}


@pytest.mark.parametrize("pages", CHANGED.values(), ids=CHANGED)
def test_a_listing_that_changes_each_time_it_is_read_completes_nothing(pages: list[Reply]) -> None:
    done = poll("droplets", "droplets", in_turn(*pages, *pages))

    assert not done.listings and not done.failed
    assert ["listing_changed"] == [warn.reason for warn in done.warns]


@pytest.mark.parametrize("pages", CHANGED.values(), ids=CHANGED)
def test_the_second_reading_of_it_counts_if_it_is_whole_and_each_thing_is_shown_once(
    pages: list[Reply],
) -> None:
    later = Reply(
        status=200,
        body=page("droplets", [droplet(2), droplet(4)], 2).body,
        asked_at=NOW + timedelta(seconds=5),
        fetched_at=NOW + timedelta(seconds=6),
    )
    done = poll("droplets", "droplets", in_turn(*pages, later))

    [listed] = done.listings
    assert (refs(2, 4), later.asked_at) == (listed.shown["droplet"], listed.began_at)
    assert len(done.refs) == len(set(done.refs)) and set(refs(2, 4)) <= set(done.refs)
    assert not done.warns


@pytest.mark.parametrize(
    ("scope", "found"), [("droplets", [droplet(1)]), ("droplets", []), ("firewalls", [])]
)
def test_a_page_that_does_not_say_how_many_there_are_makes_nothing_gone(
    scope: str, found: list[dict[str, Any]]
) -> None:
    done = poll(scope, scope, lambda _: page(scope, found))

    assert [thing["id"] for thing in found] == [int(ref.rpartition("/")[2]) for ref in done.refs]
    assert ["shape_mismatch"] == [failure.reason for failure in done.failed] and not done.listings


def test_a_listing_that_breaks_off_shows_what_it_had_and_completes_nothing() -> None:
    first = page("droplets", [droplet(1)], 2, more=True)
    done = poll("droplets", "droplets", in_turn(first, reply({"id": "server_error"}, 500)))

    assert refs(1) == done.refs and not done.listings
    assert ["http_500"] == [failure.reason for failure in done.failed]


def test_an_error_that_comes_as_an_answer_is_told_by_its_name() -> None:
    done = poll("droplets", "droplets", lambda _: reply(answer("unauthorized")))
    assert ["unauthorized"] == [failure.reason for failure in done.failed]


def action(number: int, status: str = "completed", **more: Any) -> dict[str, Any]:
    done = None if status == "in-progress" else "2026-11-01T10:00:01Z"
    times = {"started_at": "2026-11-01T10:00:00Z", "completed_at": done}
    return {"id": number, "type": "reboot", "status": status, "resource_type": "droplet", **times, **more}


def history(*newest_first: Mapping[str, Any], size: int = 2) -> Callable[[Ask], Reply]:
    """An account's actions, in pages of `size`, and each by its id."""

    def answers(asked: Ask) -> Reply:
        if "page" not in asked.params:
            one = [each for each in newest_first if asked.path == f"/v2/actions/{each['id']}"]
            return reply({"action": one[0]}) if one else reply({"id": "not_found", "message": "?"}, 404)
        at = (int(asked.params["page"]) - 1) * size
        return page("actions", newest_first[at : at + size], len(newest_first), at + size < len(newest_first))

    return answers


def numbers(done: Polled) -> list[int]:
    return [int(ref.rpartition("/")[2]) for ref in done.refs]


def test_actions_are_read_to_those_that_are_known_and_nothing_is_listed() -> None:
    done = poll("actions", "actions", history(*map(action, range(9, 0, -1))), {"newest": 6, "open": []})

    assert [9, 8, 7] == numbers(done)
    assert ["1", "2", "3"] == [each.params["page"] for each in done.asks]
    assert [{"newest": 9, "open": []}] == done.keeps and not done.listings


def test_a_poll_without_news_asks_for_one_page_and_shows_nothing() -> None:
    done = poll("actions", "actions", history(*map(action, range(9, 0, -1))), {"newest": 9, "open": []})
    assert ([], 1, [{"newest": 9, "open": []}]) == (done.refs, len(done.asks), done.keeps)


def test_actions_a_little_out_of_order_are_not_missed() -> None:
    done = poll("actions", "actions", history(*map(action, (9, 5, 8, 4, 3, 2))), {"newest": 5, "open": []})
    assert [9, 8] == numbers(done)


def test_an_action_in_progress_is_asked_for_until_it_has_ended() -> None:
    first = poll("actions", "actions", history(action(2, "in-progress"), action(1)))
    assert [{"newest": 2, "open": [2]}] == first.keeps

    second = poll(
        "actions", "actions", history(action(3), action(2, "in-progress"), action(1)), first.keeps[0]
    )
    assert [2, 3] == numbers(second) and [{"newest": 3, "open": [2]}] == second.keeps

    third = poll("actions", "actions", history(action(3), action(2), action(1)), second.keeps[0])
    assert [2] == numbers(third) and [{"newest": 3, "open": []}] == third.keeps


def test_an_open_action_that_is_unknown_by_now_is_followed_no_more() -> None:
    done = poll("actions", "actions", history(action(3)), {"newest": 3, "open": [2]})
    assert [{"newest": 3, "open": []}] == done.keeps and not done.failed


def test_the_first_poll_reads_a_few_pages_and_the_next_ones_only_news() -> None:
    past = [action(number) for number in range(50, 0, -1)]
    first = poll("actions", "actions", history(*past))
    assert (FIRST_PAGES, 2 * FIRST_PAGES) == (len(first.asks), len(first.refs))

    second = poll("actions", "actions", history(action(51), *past), first.keeps[0])
    assert [51] == numbers(second)


def test_with_since_actions_are_read_again_from_then_on() -> None:
    past = [action(n, started_at=f"2026-10-{n:02}T00:00:00Z") for n in range(30, 0, -1)]
    since = datetime(2026, 10, 15, tzinfo=UTC)
    done = poll("actions", "actions", history(*past), {"newest": 30, "open": []}, since=since)

    assert list(range(30, 14, -1)) == numbers(done)


def test_only_so_many_open_actions_are_followed_and_it_is_said() -> None:
    many = [action(number, "in-progress") for number in range(OPEN_MAX + 1, 0, -1)]
    done = poll("actions", "actions", history(*many, size=PAGE_SIZE * 2))

    assert list(range(2, OPEN_MAX + 2)) == done.keeps[0]["open"]
    assert ["many_open"] == [warn.reason for warn in done.warns]


NOTHING = {"status": "success", "data": {"resultType": "matrix", "result": []}}


def cloud(
    droplets: Sequence[Mapping[str, Any]] = (),
    databases: Sequence[Mapping[str, Any]] = (),
    figures: Mapping[str, Any] | None = None,
) -> Callable[[Ask], Reply]:
    """An account with these droplets and clusters; a metric's answer is its list of series."""

    def answers(asked: Ask) -> Reply:
        if asked.path == "/v2/databases":
            return reply({"databases": databases})
        if asked.path == "/v2/droplets":
            gpu = "type" in asked.params
            found = [each for each in droplets if ("gpu_info" in each) == gpu]
            return page("droplets", found, len(found))
        series = (figures or {}).get(asked.path.rpartition("/")[2], [])
        return reply({"status": "success", "data": {"resultType": "matrix", "result": series}})

    return answers


def health(done: Polled) -> dict[str, str]:
    return {event.target: event.status for event in done.says if isinstance(event, HealthcheckCompleted)}


def figures(done: Polled) -> dict[str, tuple[float, datetime]]:
    said = [event for event in done.says if isinstance(event, MetricRecorded)]
    return {event.metric: (event.value, event.occurred_at) for event in said}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("active", "ok"),
        ("new", "degraded"),
        ("off", "failing"),
        ("archive", "failing"),
        ("on-fire", "unknown"),
    ],
)
def test_the_status_of_a_droplet_says_how_it_is(status: str, word: str) -> None:
    tagged = droplet(1, status=status, tags=["env:stage"])
    done = poll("monitoring", "droplets", cloud([tagged]))

    [event] = [each for each in done.says if isinstance(each, HealthcheckCompleted)]
    assert (word, status, "stage") == (event.status, event.stated_status, event.env)
    assert ("digitalocean", "droplet", *refs(1)) == (event.source, event.check_name, event.target)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("online", "ok"),
        ("creating", "degraded"),
        ("resizing", "degraded"),
        ("migrating", "degraded"),
        ("forking", "degraded"),
        ("degraded", "degraded"),
        ("error", "failing"),
        ("on-fire", "unknown"),
    ],
)
def test_the_status_of_a_cluster_says_how_it_is(status: str, word: str) -> None:
    cluster = {"id": "c-1", "name": "c", "engine": "pg", "status": status}
    assert {"digitalocean:database/c-1": word} == health(
        poll("monitoring", "databases", cloud([], [cluster]))
    )


def test_no_word_of_the_table_is_untested() -> None:
    tested = {"active", "new", "off", "archive", "online", "creating", "resizing", "migrating", "forking"}
    assert tested | {"degraded", "error"} == set(HEALTH)


def test_gpu_droplets_are_monitored_too() -> None:
    assert set(refs(1, 2)) == set(
        health(poll("monitoring", "droplets", cloud([droplet(1), droplet(2, **GPU)])))
    )


def test_what_cannot_be_listed_is_unknown_in_the_environment_that_it_had() -> None:
    known = poll("monitoring", "droplets", cloud([droplet(1, tags=["env:prod"]), droplet(2)])).keeps[0]
    done = poll("monitoring", "droplets", lambda _: reply({"id": "server_error"}, 503), known)

    assert dict.fromkeys(refs(1, 2), "unknown") == health(done)
    assert ["prod", "unknown"] == [event.env for event in done.says]
    assert ["http_503"] == [failure.reason for failure in done.failed] and not done.keeps


def test_what_was_destroyed_is_neither_well_nor_unknown() -> None:
    known = dict.fromkeys(refs(1, 2), "unknown")
    done = poll("monitoring", "droplets", cloud([droplet(2)]), known)

    assert {"digitalocean:droplet/2": "ok"} == health(done)
    assert [{"digitalocean:droplet/2": "unknown"}] == done.keeps


AT = int(NOW.timestamp()) - 60


def series(*values: tuple[float, str], **labels: str) -> dict[str, Any]:
    return {"metric": {"host_id": "1", **labels}, "values": [list(value) for value in values]}


FIGURES = {
    "memory_total": [series((AT - 120, "1000"), (AT, "1000"))],
    "memory_available": [series((AT - 120, "900"), (AT, "250"))],
    "filesystem_size": [
        series((AT, "200"), mountpoint="/", device="/dev/vda1"),
        series((AT, "10"), mountpoint="/snap/core", device="/dev/loop0"),
    ],
    "filesystem_free": [
        series((AT, "150"), mountpoint="/", device="/dev/vda1"),
        series((AT, "0"), mountpoint="/snap/core", device="/dev/loop0"),
    ],
    "load_1": [series((AT - 120, "3"), (AT, "0.25"))],
}


def test_figures_are_the_newest_ones_at_their_own_time() -> None:
    done = poll("monitoring", "droplets", cloud([droplet(1, tags=["env:prod"])], figures=FIGURES))

    at = datetime.fromtimestamp(AT, UTC)
    expected = {"memory_used_percent": 75.0, "filesystem_used_percent": 25.0, "load_1": 0.25}
    assert {metric: (value, at) for metric, value in expected.items()} == figures(done)
    said = {(each.source, each.ref, each.env) for each in done.says if isinstance(each, MetricRecorded)}
    assert {("digitalocean", *refs(1), "prod")} == said


def test_figures_are_asked_for_by_id_and_for_the_last_minutes() -> None:
    asked = poll("monitoring", "droplets", cloud([droplet(1)], figures=FIGURES)).asks[-1]
    at = int(NOW.timestamp())
    assert {"host_id": "1", "start": str(at - WINDOW_S), "end": str(at)} == asked.params


def test_a_share_is_of_one_moment_and_never_of_two() -> None:
    apart = {**FIGURES, "memory_available": [series((AT - 120, "900"))]}
    done = poll("monitoring", "droplets", cloud([droplet(1)], figures=apart))
    assert (10.0, datetime.fromtimestamp(AT - 120, UTC)) == figures(done)["memory_used_percent"]


def test_a_droplet_without_the_agent_has_no_figures_and_costs_one_request() -> None:
    done = poll("monitoring", "droplets", cloud([droplet(1)]))
    assert ({}, ["memory_total"]) == (figures(done), [each.path.rpartition("/")[2] for each in done.asks[2:]])


@pytest.mark.parametrize(
    "odd",
    [
        {"memory_total": [series((AT, "NaN"))]},
        {"memory_total": [series((AT, "0"))], "memory_available": [series((AT, "0"))]},
        {"memory_total": [series((AT, "1"))], "load_1": [series((AT, "+Inf"))]},
    ],
)
def test_what_is_no_figure_is_not_said(odd: Mapping[str, Any]) -> None:
    done = poll("monitoring", "droplets", cloud([droplet(1)], figures=odd))
    assert not figures(done) and not done.failed


@pytest.mark.parametrize(
    "broken", [{}, {"data": None}, {"data": {"result": [1]}}, [], {"data": {"result": [{}]}}]
)
def test_a_broken_series_fails_the_part_after_its_health_was_said(broken: Any) -> None:
    listed = cloud([droplet(1)])
    done = poll(
        "monitoring",
        "droplets",
        lambda asked: reply(broken) if "metrics" in asked.path else listed(asked),
    )
    assert ["shape_mismatch"] == [failure.reason for failure in done.failed] and refs(1) == list(health(done))


def test_a_droplet_that_is_destroyed_meanwhile_is_passed_over() -> None:
    listed = cloud([droplet(1), droplet(2)], figures=FIGURES)
    gone = {"host_id": "1"}
    done = poll(
        "monitoring",
        "droplets",
        lambda asked: reply({}, 404) if gone.items() <= dict(asked.params).items() else listed(asked),
    )
    assert set(refs(2)) == {event.ref for event in done.says if isinstance(event, MetricRecorded)}


def test_only_so_many_running_droplets_are_measured_and_it_is_said() -> None:
    many = [droplet(number) for number in range(MEASURED_MAX + 1)] + [droplet(999, status="off")]
    done = poll("monitoring", "droplets", cloud(many))

    assert MEASURED_MAX + 2 == len(health(done)) and MEASURED_MAX == len(done.asks) - 2
    assert ["many_droplets"] == [warn.reason for warn in done.warns]


@pytest.mark.parametrize("scope", ["databases", "monitoring"])
def test_no_password_of_a_cluster_is_shown_said_or_kept(scope: str) -> None:
    done = poll(scope, "databases", lambda _: reply(answer("database_clusters")))

    assert PASSWORD in answer("database_clusters").decode() and (done.shows or done.says)
    left = [item.body.decode() for show in done.shows for item in show.items]
    left += [event.model_dump_json() for event in done.says] + [json.dumps(kept) for kept in done.keeps]
    assert not [each for each in left if PASSWORD in each or "postgres://" in each]


LIMITS = {"ratelimit-limit": "5000", "ratelimit-remaining": "4816"}
RESET = {"ratelimit-reset": str(int(NOW.timestamp()) + 90)}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({**LIMITS, **RESET}, Allowance(4816, 5000, 90.0)),
        ({**LIMITS, "ratelimit-reset": "1"}, Allowance(4816, 5000, 0.0)),
        (LIMITS, None),
        ({**LIMITS, "ratelimit-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_the_allowance_is_renewed_at_a_time(headers: Mapping[str, str], expected: Allowance | None) -> None:
    assert expected == POLLING.allowance(headers, NOW)
