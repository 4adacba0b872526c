"""How GitHub is polled: what is asked for, when it stops, what is remembered, and what is said of the webhook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.health import HealthcheckCompleted
from contracts.webhooks import RedeliveryAsked, WebhookFailing
from providers.github import PROVIDER
from providers.github.answers import SeenDelivery
from providers.github.options import GithubOptions
from providers.github.poll_deployments import deployments
from providers.github.poll_home import at_home
from providers.github.poll_hooks import ATTEMPTS_MAX, REDELIVERIES_MAX, failed_deliveries, hook, redelivery
from providers.github.poll_items import MISSING_ASKED_MAX, all_issues, issues, pulls
from providers.github.poll_runs import JOBS_RUNS_MAX, OPEN_WORDS, runs
from providers.github.polling import POLLING, scopes
from providers.polling import Ask, Part, Reply
from tests.providers.driving import NOW, source_of
from tests.providers.github.deliveries import answer
from tests.providers.polled import Polled, look, polled, reply

REPOSITORY = "octocat/Hello-World"
SCOPE = f"repos/{REPOSITORY}"
LISTING = f"{SCOPE}/issues"
API = "https://api.github.com"
SOURCE = source_of(PROVIDER, options={"repositories": [REPOSITORY]}, events=["issues", "ping", "push"])
NOTHING = reply([])


def ago(**time: float) -> str:
    """A time before NOW in GitHub's way of writing."""
    return (NOW - timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")


def linked(page: Any, following: str) -> Reply:
    return reply(page, link=f'<{API}{following}>; rel="next", <{API}/x>; rel="last"')


def poll(
    part: Part, answers: Callable[[Ask], Reply] | Sequence[Reply], scope: str = SCOPE, **told: Any
) -> Polled:
    """What a part does; `answers` are given one after the other unless a function gives them."""
    known = {LISTING: frozenset(told.pop("known", ()))}
    answering = answers if callable(answers) else in_turn(answers)
    return polled(part, look(SOURCE, scope, **told), answering, known)


def in_turn(replies: Iterable[Reply]) -> Callable[[Ask], Reply]:
    given = iter(replies)
    return lambda asked: next(given)


def asked(done: Polled) -> list[str]:
    return [ask.path.removeprefix(API).removeprefix(f"/{SCOPE}") for ask in done.asks]


# What is polled.


def test_nothing_is_polled_where_no_repository_is_named() -> None:
    assert [] == scopes(source_of(PROVIDER))


def test_a_repository_has_a_scope_for_its_changes_and_a_daily_one_for_all_issues() -> None:
    changes, everything = scopes(SOURCE)

    # In the letters in which webhooks name their listing.
    assert (SCOPE.lower(), None) == (changes.name, changes.every_s)
    assert ["issues", "pulls", "runs", "deployments", "redelivery", "hook"] == list(changes.parts)
    assert (LISTING.lower(), 86_400, ["all_issues"]) == (
        everything.name,
        everything.every_s,
        [*everything.parts],
    )


def test_a_webhook_that_is_not_the_repositorys_own_is_left_alone() -> None:
    source = source_of(PROVIDER, options={"repositories": [REPOSITORY], "repository_webhooks": False})
    assert not {"redelivery", "hook"} & scopes(source)[0].parts.keys()


@pytest.mark.parametrize(
    "named", [["octocat"], ["a/b/c"], ["a/.."], ["https://github.com/a/b"], ["a/b", "A/B"], ["a/b?x"]]
)
def test_what_is_no_repository_is_refused(named: list[str]) -> None:
    with pytest.raises(ValidationError):
        GithubOptions(repositories=named)


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4999", "x-ratelimit-reset": "{+60}"}, 60),
        ({"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "{-60}"}, 0),
        ({"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4999"}, None),
        ({"x-ratelimit-limit": "many", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "1"}, None),
    ],
)
def test_the_allowance_ends_at_a_second_since_1970(headers: dict[str, str], left: int | None) -> None:
    stated = {
        name: str(int(NOW.timestamp()) + int(value.strip("{}"))) if "{" in value else value
        for name, value in headers.items()
    }
    found = POLLING.allowance(stated, NOW)
    assert left == (found and found.renewed_in_s)


# Issues and pull requests.


def item(number: int, updated_at: str, **more: Any) -> dict[str, Any]:
    return {
        **answer("issues.list-for-repo")[0],
        "number": number,
        "updated_at": updated_at,
        "repository_url": f"{API}/{SCOPE}",
        **more,
    }


def ref(number: int) -> str:
    return f"github:{REPOSITORY}#{number}"


def test_issues_are_asked_for_from_the_last_change_on_with_an_overlap() -> None:
    done = poll(issues, [reply([item(1, ago(minutes=1))])], state={"cursor": ago(hours=1)})

    [first] = done.asks
    assert (f"/{SCOPE}/issues", None) == (first.path, first.etag)
    assert {
        "state": "all",
        "sort": "updated",
        "direction": "asc",
        "since": ago(hours=1, seconds=2),
        "per_page": "100",
    } == first.params
    assert [ref(1)] == done.refs
    assert ago(minutes=1) == done.keeps[-1]["cursor"]
    assert b'"scope":"repos/octocat/Hello-World/issues"' in done.shows[0].items[0].body
    assert not done.listings


def test_the_first_poll_of_issues_begins_three_days_ago_and_an_operators_where_he_says() -> None:
    assert ago(days=3) == poll(issues, [NOTHING]).asks[0].params["since"]
    state = {"cursor": ago(hours=1), "etag": "e"}
    [first] = poll(issues, [NOTHING], since=NOW - timedelta(days=9), state=state).asks
    assert (ago(days=9), None) == (first.params["since"], first.etag)


def test_the_next_page_of_issues_is_what_changed_since_the_last_of_this_one() -> None:
    pages = [
        linked([item(1, ago(minutes=9)), item(2, ago(minutes=5))], "/repositories/1/issues?page=2"),
        reply([item(2, ago(minutes=5)), item(3, ago(minutes=2))]),
    ]
    done = poll(issues, pages)

    assert ["/issues", "/issues"] == asked(done)
    assert ago(minutes=5, seconds=2) == done.asks[1].params["since"]
    # What was read is not lost if the next page never comes.
    assert [ago(minutes=5), ago(minutes=2)] == [kept["cursor"] for kept in done.keeps]


def test_where_a_whole_page_changed_in_one_second_only_the_page_behind_it_leads_on() -> None:
    pages = [
        linked([item(1, ago(minutes=9)), item(2, ago(minutes=9))], "/repositories/1/issues?page=2"),
        reply([item(3, ago(minutes=9))]),
    ]
    done = poll(issues, pages)

    assert "/repositories/1/issues?page=2" == asked(done)[1]
    assert [ref(1), ref(2), ref(3)] == done.refs


def test_an_issue_that_changes_while_they_are_read_hides_no_other() -> None:
    """GitHub as it is: a list by change, of which pages of two are shown."""
    there = {n: NOW - timedelta(minutes=10 - n) for n in range(1, 6)}

    def github(asked: Ask) -> Reply:
        since = datetime.fromisoformat(asked.params["since"])
        rows = sorted((at, n) for n, at in there.items() if at >= since)
        page = [item(n, at.strftime("%Y-%m-%dT%H:%M:%SZ")) for at, n in rows[:2]]
        there[1] = NOW  # it moves to the end: all others move up
        return linked(page, "/?page=2") if len(rows) > 2 else reply(page)

    assert {ref(n) for n in range(1, 6)} == set(poll(issues, github).refs)


def test_an_unchanged_page_of_issues_costs_nothing() -> None:
    state = {"cursor": ago(hours=1)}
    first = poll(issues, [reply([item(1, ago(hours=1))], etag='W/"1"')], state=state)
    second = poll(issues, [reply(b"", status=304)], state=first.keeps[-1])

    assert ('W/"1"', frozenset((304,))) == (second.asks[0].etag, second.asks[0].also)
    assert first.asks[0].params == second.asks[0].params
    assert ([], [], []) == (second.shows, second.keeps, second.failed)


def test_the_etag_of_a_page_that_others_follow_says_nothing_about_them() -> None:
    page = [item(1, ago(minutes=9)), item(2, ago(minutes=9))]
    followed = reply(page, etag="e", link=f'<{API}/?page=2>; rel="next"')
    done = poll(issues, [followed, reply([item(3, ago(minutes=9))], etag="f")])
    assert [None, None] == [kept["etag"] for kept in done.keeps]


def pull(number: int, updated_at: str) -> dict[str, Any]:
    return {**answer("pulls.list")[0], "number": number, "updated_at": updated_at}


def test_pull_requests_are_read_back_to_those_that_were_read_before() -> None:
    pages = [
        linked([pull(3, ago(minutes=1)), pull(2, ago(minutes=9))], "/p2"),
        linked([pull(1, ago(hours=2))], "/p3"),
    ]
    done = poll(pulls, pages, state={"cursor": ago(hours=1), "etag": "e"})

    assert ["/pulls", "/p2"] == asked(done)
    assert ("desc", "updated", "all", "e") == (
        *(done.asks[0].params[name] for name in ("direction", "sort", "state")),
        done.asks[0].etag,
    )
    assert [{"cursor": ago(minutes=1), "etag": None}] == done.keeps


def test_what_was_read_of_pull_requests_counts_only_if_all_was_read() -> None:
    pages = [linked([pull(3, ago(minutes=1))], "/p2"), reply(None, status=500)]
    done = poll(pulls, pages, state={"cursor": ago(hours=1)})
    assert (["http_500"], []) == ([failure.reason for failure in done.failed], done.keeps)


def test_unchanged_pull_requests_leave_the_memory_as_it_is() -> None:
    done = poll(pulls, [reply(b"", status=304)], state={"cursor": ago(hours=1), "etag": "e"})
    assert ([], [], []) == (done.shows, done.keeps, done.failed)


def everything(numbers: Iterable[int]) -> Reply:
    return reply([item(n, ago(days=1)) for n in numbers])


def test_all_issues_are_read_in_an_order_that_no_change_disturbs_and_what_is_not_there_is_gone() -> None:
    pages = [linked([item(1, ago(days=1))], "/p2"), everything([2])]
    done = poll(all_issues, pages, scope=LISTING)

    assert ("created", "asc", "all") == tuple(
        done.asks[0].params[name] for name in ("sort", "direction", "state")
    )
    [listed] = done.listings
    assert (LISTING, {"issue": [ref(1), ref(2)]}, NOW) == (listed.scope, listed.shown, listed.began_at)


@pytest.mark.parametrize(
    ("found", "is_there"),
    [
        (reply(item(2, ago(days=1))), True),
        (reply(None, status=404), False),
        (reply(None, status=410), False),
        (reply(None, status=301), False),
        (reply(item(7, ago(days=1), repository_url=f"{API}/repos/octocat/elsewhere")), False),
    ],
)
def test_a_listing_is_not_believed_about_what_it_misses(found: Reply, is_there: bool) -> None:
    done = poll(all_issues, [everything([1]), found], scope=LISTING, known=[ref(1), ref(2)])

    assert ["/issues", "/issues/2"] == asked(done)
    assert [ref(1), *([ref(2)] if is_there else [])] == done.listings[0].shown["issue"] == done.refs


def test_what_has_the_name_before_a_rename_is_not_asked_for() -> None:
    done = poll(all_issues, [everything([1])], scope=LISTING, known=["github:octocat/Old#1"])
    assert (["/issues"], 1) == (asked(done), len(done.listings))


def test_of_very_many_missing_ones_none_counts_as_gone_before_all_were_asked_for() -> None:
    known = [ref(n) for n in range(1, MISSING_ASKED_MAX + 12)]

    def github(asked: Ask) -> Reply:
        return everything([1]) if asked.path.endswith("issues") else reply(None, status=404)

    first = poll(all_issues, github, scope=LISTING, known=known)
    assert ([], ["many_missing"]) == (first.listings, [warned.reason for warned in first.warns])
    second = poll(all_issues, github, scope=LISTING, known=known, state=first.keeps[-1])
    assert (MISSING_ASKED_MAX, 10) == (len(first.asks) - 1, len(second.asks) - 1)
    assert ([ref(1)], {}) == (second.listings[0].shown["issue"], second.keeps[-1])


def test_a_listing_that_breaks_off_says_of_nothing_that_it_is_gone() -> None:
    pages = [linked([item(1, ago(days=1))], "/p2"), reply(None, status=502)]
    done = poll(all_issues, pages, scope=LISTING, known=[ref(1), ref(2)])
    assert ([], ["http_502"]) == (done.listings, [failure.reason for failure in done.failed])


def test_a_page_that_is_none_fails_its_part_by_name() -> None:
    for page, reason in (
        (b"<html>", "not_json"),
        (b"{}", "not_a_page"),
        (b'[{"number": 1}]', "shape_mismatch"),
    ):
        assert [reason] == [failure.reason for failure in poll(issues, [reply(page)]).failed]


# Runs.


def run(number: int, status: str = "completed", attempt: int = 1, **more: Any) -> dict[str, Any]:
    conclusion = "success" if status == "completed" else None
    stated = {"id": number, "status": status, "conclusion": conclusion, "run_attempt": attempt}
    times = {"created_at": ago(hours=1), "updated_at": ago(minutes=30)}
    shown = answer("actions.list-workflow-runs-for-repo")["workflow_runs"][0]
    return {**shown, **stated, **times, **more}


class Actions:
    """GitHub's workflow runs, of which a few are created in the window."""

    def __init__(self, window: Iterable[Mapping[str, Any]], older: Iterable[Mapping[str, Any]] = ()) -> None:
        self.window = list(window)
        self.older = list(older)

    def __call__(self, asked: Ask) -> Reply:
        *_, last = path = asked.path.removeprefix(f"/{SCOPE}/actions/").split("/")
        every = [*self.window, *self.older]
        if "created" in asked.params:
            return reply({"workflow_runs": self.window})
        if "status" in asked.params:
            return reply(
                {"workflow_runs": [each for each in every if each["status"] == asked.params["status"]]}
            )
        if last == "jobs":
            return reply(
                {"jobs": [answer("actions.list-jobs-for-workflow-run")["jobs"][0] | {"id": int(path[1])}]}
            )
        if "attempts" in path:
            return reply(run(int(path[1]), attempt=int(last)))
        return next((reply(each) for each in every if str(each["id"]) == last), reply(None, status=404))


LISTS = 1 + len(OPEN_WORDS)


def test_runs_are_sought_in_the_window_and_among_those_that_github_calls_open() -> None:
    done = poll(runs, Actions([run(2)], [run(1, "waiting")]))

    sought = [dict(ask.params) for ask in done.asks[:LISTS]]
    assert {"created": f">={ago(days=3)}", "per_page": "100"} == sought[0]
    assert {"in_progress", "queued", "waiting", "requested", "pending", "action_required"} == {
        each["status"] for each in sought[1:]
    }
    assert {"github:run/1/1", "github:run/2/1", "github:job/1", "github:job/2"} == set(done.refs)


def test_jobs_are_read_only_of_runs_that_changed_or_go_on() -> None:
    github = Actions([run(1), run(2, "in_progress"), run(3)])
    state = poll(runs, github).keeps[-1]
    github.window[2] = run(3, updated_at=ago(minutes=1))
    done = poll(runs, github, state=state)

    assert {"/actions/runs/2/jobs", "/actions/runs/3/jobs"} == set(asked(done)[LISTS:])
    assert {"latest"} == {ask.params["filter"] for ask in done.asks[LISTS:]}


def test_a_run_that_was_open_is_asked_for_by_itself_once_no_list_shows_it() -> None:
    github = Actions([], [run(1, "in_progress")])
    state = poll(runs, github).keeps[-1]
    github.older = [run(1)]
    ended = poll(runs, github, state=state)
    after = poll(runs, github, state=ended.keeps[-1])

    assert ["/actions/runs/1", "/actions/runs/1/jobs"] == asked(ended)[LISTS:]
    assert ([], {"runs": {}}) == (asked(after)[LISTS:], after.keeps[-1])


def test_an_open_run_that_vanished_is_forgotten() -> None:
    state = poll(runs, Actions([run(1, "in_progress")])).keeps[-1]
    done = poll(runs, Actions([]), state=state)
    assert ([{"runs": {}}], []) == (done.keeps, done.failed)


@pytest.mark.parametrize(
    ("before", "attempts"),
    [
        (None, [1, 2]),
        (run(1, attempt=1), [2]),
        (run(1, attempt=2), []),
        (run(1, "in_progress", attempt=2), [2]),
        (run(1, "in_progress", attempt=1), [1, 2]),
    ],
)
def test_attempts_whose_end_nobody_saw_are_read_too(
    before: dict[str, Any] | None, attempts: list[int]
) -> None:
    state = poll(runs, Actions([before])).keeps[-1] if before else {}
    done = poll(runs, Actions([run(1, attempt=3)]), state=state)

    read = [path for path in asked(done) if "/attempts/" in path]
    assert [f"/actions/runs/1/attempts/{n}" for n in attempts] == read
    assert ("all" if attempts else "latest") == done.asks[-1].params["filter"]


def test_the_jobs_of_very_many_runs_are_read_over_several_polls() -> None:
    github = Actions([run(n) for n in range(1, JOBS_RUNS_MAX + 11)])
    first = poll(runs, github)
    second = poll(runs, github, state=first.keeps[-1])

    assert (JOBS_RUNS_MAX, 10) == (len(first.asks) - LISTS, len(second.asks) - LISTS)
    assert 1 < len(first.keeps)


def test_a_list_that_github_cut_off_is_gone_on_with_before_its_last_run() -> None:
    pages = {
        f">={ago(days=3)}": [run(n, created_at=ago(hours=1)) for n in range(1_000)],
        f"{ago(days=3)}..{ago(hours=1)}": [run(1, created_at=ago(hours=1)), run(5_000)],
    }

    def github(asked: Ask) -> Reply:
        rows = pages.get(asked.params.get("created", ""), [])
        return reply({"workflow_runs": rows} if asked.path.endswith("runs") else {"jobs": []})

    done = poll(runs, github)
    assert (list(pages), 1_001) == (
        [ask.params["created"] for ask in done.asks if "created" in ask.params],
        len({ref for ref in done.refs if ":run/" in ref}),
    )


def test_what_is_remembered_of_runs_is_small() -> None:
    github = Actions([run(10**11 + n) for n in range(1_500)])
    marks = {str(10**11 + n): [1, 1_700_000_000, 0] for n in range(1_500)}
    kept = poll(runs, github, state={"runs": marks}).keeps[-1]
    assert 1_500 == len(kept["runs"])
    assert len(json.dumps(kept)) < 64 * 1024


# Deployments.


def deployment(number: int, environment: str = "production", **more: Any) -> dict[str, Any]:
    times = {"created_at": ago(hours=1), "updated_at": ago(hours=1)}
    shown = answer("repos.list-deployments")[0]
    return {**shown, "id": number, "environment": environment, **times, **more}


class Deployments:
    """GitHub's deployments, the newest first, with the states of their statuses."""

    def __init__(self, *rows: Mapping[str, Any], **states: Sequence[str]) -> None:
        self.rows = list(rows)
        self.states = {name.lstrip("_"): list(stated) for name, stated in states.items()}

    def __call__(self, asked: Ask) -> Reply:
        if asked.path.endswith("/deployments"):
            return reply(self.rows)
        number = asked.path.split("/")[-2]
        status = answer("repos.list-deployment-statuses")[0]
        address = {"deployment_url": f"{API}/{SCOPE}/deployments/{number}"}
        stated = enumerate(self.states.get(number, []), 1)
        return reply([{**status, **address, "id": int(number) * 100 + n, "state": s} for n, s in stated])


def statuses_of(done: Polled) -> list[str]:
    return [path.split("/")[-2] for path in asked(done) if path.endswith("/statuses")]


def test_a_deployment_is_read_with_its_statuses() -> None:
    done = poll(deployments, Deployments(deployment(1), _1=["in_progress", "success"]))
    assert {"github:deployment/1", "github:deployment_status/101", "github:deployment_status/102"} == set(
        done.refs
    )


def test_statuses_are_read_again_while_a_deployment_is_open_or_once_it_changed() -> None:
    github = Deployments(
        deployment(3), deployment(2), deployment(1), _3=["queued"], _2=["failure"], _1=["failure"]
    )
    state = poll(deployments, github).keeps[-1]
    assert ["3"] == statuses_of(poll(deployments, github, state=state))
    github.rows[2] = deployment(1, updated_at=ago(minutes=1))
    assert ["3", "1"] == statuses_of(poll(deployments, github, state=state))


def test_what_was_live_is_read_again_once_another_is_deployed_to_its_environment() -> None:
    github = Deployments(deployment(2, "stage"), deployment(1), _2=["success"], _1=["success"])
    state = poll(deployments, github).keeps[-1]
    assert [] == statuses_of(poll(deployments, github, state=state))
    github.rows = [deployment(3)]  # the two others left the list
    done = poll(deployments, github, state=state)
    assert ["3", "1"] == statuses_of(done)
    assert {"3", "2", "1"} == done.keeps[-1]["deployments"].keys()


def test_deployments_are_read_back_to_the_window_and_the_newest_however_old() -> None:
    recent = [
        linked([deployment(9, created_at=ago(days=1)), deployment(8, created_at=ago(days=2))], "/p2"),
        linked([deployment(7, created_at=ago(days=2)), deployment(6, created_at=ago(days=9))], "/p3"),
    ]
    old = [linked([deployment(9, created_at=ago(days=99))], "/p2")]
    for listed, read in ((recent, ["9", "8", "7"]), (old, ["9"])):
        pages = in_turn(listed)

        def github(asked: Ask, pages: Callable[[Ask], Reply] = pages) -> Reply:
            return NOTHING if "statuses" in asked.path else pages(asked)

        done = poll(deployments, github)
        assert (read, []) == (statuses_of(done), done.failed)


# The webhook.

OURS = {
    **answer("repos.get-webhook"),
    "events": ["issues", "push"],
    "config": {"content_type": "json", "url": "https://ops.example.com/prefix/webhooks/github"},
}
OTHER = {
    **OURS,
    "id": 7,
    "config": {"content_type": "json", "url": "https://ops.example.com/webhooks/github/two"},
}


def attempt(
    number: int, guid: str, status: str = "OK", event: str = "issues", **when: float
) -> dict[str, Any]:
    code = 200 if status == "OK" else 0
    at = ago(**(when or {"minutes": number}))
    shown = answer("repos.list-webhook-deliveries")[0]
    return {
        **shown,
        "id": number,
        "guid": guid,
        "status": status,
        "status_code": code,
        "event": event,
        "delivered_at": at,
    }


FAILED = "failed to connect"


@pytest.mark.parametrize(
    ("attempts", "chosen"),
    [
        ([], []),
        ([attempt(5, "a")], []),
        ([attempt(5, "a", FAILED)], [5]),
        ([attempt(5, "a", "Service Unavailable"), attempt(6, "b", "timed out")], [6, 5]),
        # The newest attempt of several is what is sent again; one that was answered repairs all.
        ([attempt(5, "a", FAILED), attempt(9, "a", FAILED)], [5]),
        ([attempt(5, "a", FAILED), attempt(9, "a")], []),
        ([attempt(5, "a"), attempt(9, "a", FAILED)], []),
        ([{**attempt(5, "a", "Accepted"), "status_code": 202}], []),
        ([attempt(5, "a", FAILED, seconds=59)], []),
        ([attempt(5, "a", FAILED, seconds=61)], [5]),
        ([attempt(5, "a", FAILED, "ping")], []),
        ([attempt(5, "a", FAILED, days=2, hours=23)], [5]),
        ([attempt(5, "a", FAILED, days=3, hours=1)], []),
        ([attempt(n, "a", FAILED) for n in range(5, 5 + ATTEMPTS_MAX)], []),
    ],
)
def test_what_nobody_ever_answered_is_asked_for_again(
    attempts: list[dict[str, Any]], chosen: list[int]
) -> None:
    done = poll(redelivery, sweep(attempts))

    posts = [ask for ask in done.asks if ask.method == "POST"]
    assert [f"/{SCOPE}/hooks/{OURS['id']}/deliveries/{n}/attempts" for n in chosen] == [
        ask.path for ask in posts
    ]
    assert not done.failed


def sweep(attempts: Sequence[Mapping[str, Any]], status: int = 202) -> Callable[[Ask], Reply]:
    def github(asked: Ask) -> Reply:
        if asked.method == "POST":
            return reply({}, status=status)
        return reply(attempts if asked.path.endswith("/deliveries") else [OTHER, OURS])

    return github


def test_deliveries_are_read_back_for_three_days_by_the_cursor_of_the_link_header() -> None:
    pages = iter(
        [
            linked([attempt(3, "c", days=1)], f"/{SCOPE}/hooks/12345678/deliveries?cursor=x"),
            linked([attempt(2, "b", FAILED, days=2), attempt(1, "a", FAILED, days=4)], "/never"),
        ]
    )

    def github(asked: Ask) -> Reply:
        if asked.method == "POST":
            return reply({}, status=202)
        return next(pages) if "deliveries" in asked.path else reply([OURS])

    done = poll(redelivery, github)
    assert ["/hooks", "/hooks/12345678/deliveries", "/hooks/12345678/deliveries?cursor=x"] == asked(done)[:3]
    assert ["/hooks/12345678/deliveries/2/attempts"] == asked(done)[3:]


def test_only_so_many_deliveries_are_asked_for_in_one_poll_the_oldest_first() -> None:
    lost = [attempt(n, f"guid-{n}", FAILED) for n in range(2, REDELIVERIES_MAX + 10)]
    posts = [ask.path for ask in poll(redelivery, sweep(lost)).asks if ask.method == "POST"]
    assert REDELIVERIES_MAX == len(posts)
    assert posts[0].endswith(f"/{REDELIVERIES_MAX + 9}/attempts")


def test_a_delivery_that_fails_again_and_again_is_named() -> None:
    lost = [attempt(n, "a", FAILED) for n in range(5, 5 + ATTEMPTS_MAX)]
    assert ["deliveries_failed"] == [warned.reason for warned in poll(redelivery, sweep(lost)).warns]


def test_a_delivery_that_github_does_not_send_again_stops_no_other() -> None:
    done = poll(redelivery, sweep([attempt(5, "a", FAILED), attempt(6, "b", FAILED)], status=422))
    assert (2, []) == (sum(ask.method == "POST" for ask in done.asks), done.failed)


def test_what_was_asked_for_again_is_said_though_github_refuses_the_rest() -> None:
    answers = iter([202, 422, 202, 500, 202])

    def github(asked: Ask) -> Reply:
        if asked.method == "POST":
            return reply({}, status=next(answers))
        return sweep(lost)(asked)

    lost = [attempt(n, f"guid-{n}", FAILED, minutes=60 - n) for n in (1, 2, 3, 4, 5)]
    done = poll(redelivery, github)
    [said] = done.says
    assert isinstance(said, RedeliveryAsked)
    assert (["guid-1", "guid-3"], f"github:hook/{OURS['id']}") == (said.deliveries, said.ref)
    assert ["http_500"] == [failure.reason for failure in done.failed]


def test_nothing_is_said_where_nothing_was_lost() -> None:
    assert [] == poll(redelivery, sweep([attempt(5, "a")])).says


def test_things_say_their_repository_as_webhooks_do_and_its_id_is_asked_for_once() -> None:
    def github(asked: Ask) -> Reply:
        return (
            reply({"id": 77, "full_name": "x/y"})
            if asked.path == f"/{SCOPE}"
            else reply([item(1, ago(hours=1))])
        )

    first = poll(at_home(issues), github)
    second = poll(at_home(issues), [reply([item(1, ago(hours=1))])], state=first.keeps[-1])
    for done in (first, second):
        [shown] = [each for show in done.shows for each in show.items]
        assert 77 == json.loads(shown.body)["item"]["repository"]["id"]
        assert 77 == done.keeps[-1]["repository_id"]
    assert (2, 1) == (len(first.asks), len(second.asks))


def test_a_part_at_home_hears_of_failures_as_without() -> None:
    done = poll(at_home(issues), [reply({"id": 77}), reply({}, status=500)])
    assert ["http_500"] == [failure.reason for failure in done.failed]


def test_attempts_of_one_second_are_in_the_order_of_their_ids() -> None:
    same = [attempt(n, "a", FAILED, minutes=5) for n in (7, 9, 8)]
    [tries] = failed_deliveries([SeenDelivery.model_validate(each) for each in same], NOW)
    assert [7, 8, 9] == [each.id for each in tries]


BROKEN = {"last_response": {"code": 502, "status": "misconfigured", "message": "x"}}


@pytest.mark.parametrize(
    ("hooks", "problem"),
    [
        ([OURS], None),
        ([{**OURS, "events": ["*"]}], None),
        ([OTHER, {**OURS, "id": 1, "active": False}, OURS], None),
        ([{**OURS, "active": False}], "switched off"),
        ([{**OURS, "events": ["push"]}], "does not send issues"),
        ([{**OURS, "config": {**OURS["config"], "content_type": "form"}}], "JSON"),
        ([OTHER], "no webhook posts to /webhooks/github"),
        ([{**OURS, "config": {}}], "no webhook posts to /webhooks/github"),
    ],
)
def test_a_webhook_that_would_not_tell_us_everything_is_failing(
    hooks: list[Any], problem: str | None
) -> None:
    done = poll(hook, [reply(hooks)])

    checked, *alarms = done.says
    assert isinstance(checked, HealthcheckCompleted)
    assert ("webhook", SCOPE, "failing" if problem else "ok") == (
        checked.check_name,
        checked.target,
        checked.status,
    )
    assert [WebhookFailing] * bool(problem) == [type(said) for said in alarms]
    assert all(problem in said.problem for said in alarms if isinstance(said, WebhookFailing) and problem)
    assert {"github"} == {said.source for said in done.says}


def alarms(*answers: Reply) -> list[list[tuple[str, str]]]:
    """What is said, poll by poll, each with what the one before kept."""
    said: list[list[tuple[str, str]]] = []
    state: Mapping[str, Any] = {}
    for given in answers:
        done = poll(hook, [given], state=state)
        state = done.keeps[-1] if done.keeps else state
        said.append([(each.type, each.ref) for each in done.says[1:]])
    return said


def test_an_alarm_is_said_when_it_begins_when_it_changes_and_when_it_is_over() -> None:
    off, few = {**OURS, "active": False}, {**OURS, "events": []}
    failing, mended = ("webhook.failing", "github:hook/12345678"), ("webhook.mended", "github:hook/12345678")
    assert [[], [failing], [], [failing], [mended], []] == alarms(
        *(reply([each]) for each in (OURS, off, off, few, OURS, OURS))
    )


def test_a_webhook_that_is_made_ends_the_alarm_that_there_is_none() -> None:
    none = f"github:hook/{SCOPE}"
    assert [[("webhook.failing", none)], [("webhook.mended", none)]] == alarms(NOTHING, reply([OURS]))


def test_one_answer_of_ours_that_went_wrong_is_no_alarm_yet() -> None:
    bad, unused = reply([{**OURS, **BROKEN}]), reply([OURS])
    failing, mended = ("webhook.failing", "github:hook/12345678"), ("webhook.mended", "github:hook/12345678")
    assert [[], [], [], [failing], [mended]] == alarms(bad, unused, bad, bad, unused)
    assert "degraded" == poll(hook, [bad]).says[0].status  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [403, 404])
def test_a_token_that_may_not_read_webhooks_is_told_which_permission_it_lacks(status: int) -> None:
    state = {"ref": "github:hook/1", "problem": "it is switched off", "refused": False}
    done = poll(hook, [reply({"message": "Not Found"}, status=status)], state=state)

    assert [("webhooks_not_readable", True)] == [
        (warned.reason, "Webhooks: read and write" in warned.sentence) for warned in done.warns
    ]
    # Nothing is known: neither that it is well nor that it is not.
    assert ["unknown"] == [said.status for said in done.says]  # type: ignore[attr-defined]
    assert ([], []) == (done.keeps, done.failed)
    swept = poll(redelivery, [reply({}, status=status)])
    assert (1, [], []) == (len(swept.asks), swept.warns, swept.failed)
