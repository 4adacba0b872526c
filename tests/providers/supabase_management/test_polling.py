"""How Supabase's management API is polled: what is said of a project, when it is said again, and what never is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from contracts.advisor import AdvisorFindingFound, AdvisorRunFinished
from contracts.backups import BackupExpired, BackupFinished, BackupStarted
from contracts.envelope import Event
from contracts.health import HealthcheckCompleted, MetricRecorded
from contracts.registry import decode
from contracts.ssot import EnvironmentRule, Environments
from providers.polling import Allowance
from providers.port import Ignored
from providers.supabase_management import PROVIDER
from providers.supabase_management.backups import BACKUPS_MAX
from providers.supabase_management.health import BRANCH, PROJECT, SERVICE, SERVICES
from providers.supabase_management.polling import PARTS, POLLING, PROJECTS_MAX
from providers.supabase_management.target import AGAIN
from runtime.permissions import USERS
from tests.providers.driving import NOW, delivery_of, events_of, source_of
from tests.providers.polled import Polled, look, polled
from tests.providers.supabase_management.answers import (
    OTHER,
    REF,
    SECRET,
    Answers,
    answering,
    backup,
    backups,
    branch,
    lint,
    of_project,
    project,
    service,
)

RULES = Environments(
    (
        EnvironmentRule(env="prod", variable=[f"project={REF}"]),
        EnvironmentRule(env="stage", variable=[f"preview_of={REF}"]),
    )
)
SOURCE = source_of(PROVIDER, options={"projects": [REF]}, environments=RULES)
EVERY = source_of(PROVIDER, environments=RULES)
NAME = f"supabase:project/{REF}"
E = TypeVar("E", bound=Event)


def poll(
    part: str,
    answers: Answers | None = None,
    state: Mapping[str, Any] | None = None,
    every: bool = False,
    **more: Any,
) -> Polled:
    source = EVERY if every else SOURCE
    [scope] = POLLING.scopes(source)
    told = look(source, scope.name, state=state or {}, **more)
    return polled(scope.parts[part], told, answering(of_project() if answers is None else answers))


def said(done: Polled, kind: type[E]) -> list[E]:
    return [event for event in done.says if isinstance(event, kind)]


def health(done: Polled) -> dict[str, str]:
    return {event.check_name: event.status for event in said(done, HealthcheckCompleted)}


def account(*refs: str, **changed: Any) -> Answers:
    """What a token sees that may see these projects."""
    about = {path: answer for ref in refs for path, answer in of_project(ref, **changed).items()}
    return {**about, "/v1/projects": [project(ref) for ref in refs]}


def test_a_named_project_is_a_scope_and_without_names_there_is_one_for_all() -> None:
    two = source_of(PROVIDER, options={"projects": [REF, OTHER]})
    assert [f"projects/{REF}", f"projects/{OTHER}"] == [scope.name for scope in POLLING.scopes(two)]

    [scope] = POLLING.scopes(EVERY)
    assert ("projects", {"projects", *PARTS}) == (scope.name, set(scope.parts))


@pytest.mark.parametrize("ref", ["", "short", "../organizations/x-y-zz", REF.upper()])
def test_what_is_no_project_ref_is_refused(ref: str) -> None:
    with pytest.raises(ValidationError):
        PROVIDER.options.model_validate({"projects": [ref]})


def test_a_delivery_of_it_means_nothing() -> None:
    with pytest.raises(Ignored):
        events_of(SOURCE, delivery_of(SOURCE, "observed.project", b"{}"))


@pytest.mark.parametrize("part", ["projects", *PARTS])
def test_every_part_says_something_in_the_environment_that_the_project_or_its_previews_have(
    part: str,
) -> None:
    done = poll(part)

    assert done.says and not done.failed and not done.warns
    assert {("supabase_management", "stage" if part == "branches" else "prod")} == {
        (event.source, event.env) for event in done.says
    }


@pytest.mark.parametrize("part", ["projects", *PARTS])
def test_whatever_else_an_answer_holds_is_neither_said_nor_kept(part: str) -> None:
    done = poll(part)
    failed = poll(part, of_project(project=500, health=500, backups=500, disk=500))

    left = [event.model_dump_json() for event in (*done.says, *failed.says)] + [
        json.dumps(dict(k)) for k in done.keeps
    ]
    left += [str(failure) for failure in failed.failed]
    assert not [each for each in left if SECRET in each]


@pytest.mark.parametrize("part", ["projects", *PARTS])
def test_all_that_a_part_says_survives_the_wire_and_is_what_the_poller_may_say(part: str) -> None:
    allowed = USERS["poller"].publish
    for event in poll(part, of_project(backups=backups(backup(1), backup(2, "PENDING")))).says:
        assert event == decode(event.type, event.model_dump_json().encode())
        family, _, verb = event.type.partition(".")
        assert {f"deliveries.odooops.{family}.>", f"deliveries.odooops.{family}.{verb}"} & set(allowed)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("ACTIVE_HEALTHY", "ok"),
        ("COMING_UP", "degraded"),
        ("GOING_DOWN", "degraded"),
        ("PAUSING", "degraded"),
        ("RESIZING", "degraded"),
        ("RESTARTING", "degraded"),
        ("RESTORING", "degraded"),
        ("UPGRADING", "degraded"),
        ("ACTIVE_UNHEALTHY", "failing"),
        ("INACTIVE", "failing"),
        ("INIT_FAILED", "failing"),
        ("PAUSE_FAILED", "failing"),
        ("RESTORE_FAILED", "failing"),
        ("REMOVED", "unknown"),
        ("UNKNOWN", "unknown"),
        ("ON_FIRE", "unknown"),
    ],
)
def test_the_status_of_a_project_says_how_it_is(status: str, word: str) -> None:
    [event] = said(poll("projects", of_project(project=project(status=status))), HealthcheckCompleted)
    assert (NAME, "project", word, status) == (
        event.target,
        event.check_name,
        event.status,
        event.stated_status,
    )
    assert word == PROJECT.get(status, "unknown")


def test_projects_that_cannot_be_listed_are_unknown() -> None:
    [known] = poll("projects", account(REF, OTHER), every=True).keeps
    done = poll("projects", {"/v1/projects": 503}, known, every=True)

    events = said(done, HealthcheckCompleted)
    assert {NAME: ("unknown", "prod"), f"supabase:project/{OTHER}": ("unknown", "unknown")} == {
        event.target: (event.status, event.env) for event in events
    }
    assert ["http_503"] == [failure.reason for failure in done.failed]


def test_each_service_is_checked_and_one_that_is_left_out_is_unknown() -> None:
    answered = [service("auth"), service("db", "UNHEALTHY"), service("rest", "COMING_UP"), service("new")]
    done = poll("services", of_project(health=answered))

    expected = {
        "auth": "ok",
        "db": "failing",
        "rest": "degraded",
        "realtime": "unknown",
        "storage": "unknown",
    }
    assert expected == health(done) and {NAME} == {event.target for event in said(done, HealthcheckCompleted)}
    assert set(expected.values()) == {*SERVICE.values(), "unknown"}
    assert ",".join(SERVICES) == done.asks[-1].params["services"]


@pytest.mark.parametrize(
    "broken", [500, {"message": "?"}, [{"name": "db"}], [{"name": "db", "status": SECRET}]]
)
def test_services_that_cannot_be_asked_for_are_unknown(broken: Any) -> None:
    done = poll("services", of_project(health=broken))

    assert dict.fromkeys(SERVICES, "unknown") == health(done)
    assert len(done.failed) == 1 and SECRET not in str(done.failed[0])


def test_of_a_paused_project_only_that_it_is_paused_is_asked() -> None:
    paused = of_project(project=project(status="INACTIVE"))
    assert {"project": "failing"} == health(poll("projects", paused))
    for part in PARTS:
        done = poll(part, paused, {REF: {"kept": "as it was"}})
        assert ([], 1, [{REF: {"kept": "as it was"}}]) == (done.says, len(done.asks), done.keeps)


@pytest.mark.parametrize(("status", "word"), [*BRANCH.items(), ("ON_FIRE", "unknown")])
def test_a_preview_branch_is_as_its_migrations_and_functions_are(status: str, word: str) -> None:
    done = poll("branches", of_project(branches=[branch(7, status), branch(8, is_default=True)]))

    [event] = said(done, HealthcheckCompleted)
    assert (f"supabase:branch/{branch(7)['id']}", "branch", word, status) == (
        event.target,
        event.check_name,
        event.status,
        event.stated_status,
    )
    assert f"of {NAME}, git branch feature/7, pull request 7" == event.detail


LATER = NOW + timedelta(hours=1)
TOMORROW = NOW + AGAIN


@pytest.mark.parametrize("part", ["branches", "backups", "security"])
def test_what_has_not_changed_is_not_said_again(part: str) -> None:
    first = poll(part)
    assert first.says
    second = poll(part, state=first.keeps[0], started_at=LATER)
    assert ([], first.keeps) == (second.says, second.keeps)


@pytest.mark.parametrize("part", ["branches", "security"])
def test_a_state_is_said_again_after_a_day(part: str) -> None:
    first = poll(part)
    assert len(first.says) == len(poll(part, state=first.keeps[0], started_at=TOMORROW).says)


@pytest.mark.parametrize("part", ["branches", "backups", "security"])
def test_an_operator_who_asks_for_it_again_gets_it_again(part: str) -> None:
    first = poll(part)
    assert len(first.says) == len(poll(part, state=first.keeps[0], started_at=LATER, since=NOW).says)


def test_a_branch_that_changed_is_said_at_once() -> None:
    [kept] = poll("branches").keeps
    done = poll("branches", of_project(branches=[branch(1, "MIGRATIONS_FAILED")]), kept, started_at=LATER)
    assert {"branch": "failing"} == health(done)


def test_a_backup_is_told_with_its_own_time_and_name() -> None:
    [event] = said(poll("backups", of_project(backups=backups(backup(30)))), BackupFinished)

    at = datetime(2026, 10, 30, 2, tzinfo=UTC)
    assert (f"odooops:backup/supabase-{REF}-30", "success", "COMPLETED", NAME) == (
        event.ref,
        event.status,
        event.stated_status,
        event.database,
    )
    assert (at, at, "supabase") == (event.occurred_at, event.created_at, event.provider)


def test_the_same_backup_has_the_same_event_id_whenever_it_is_told() -> None:
    [first] = poll("backups", of_project(backups=backups(backup(30)))).says
    [again] = poll("backups", of_project(backups=backups(backup(30))), started_at=TOMORROW).says
    assert first.id == again.id


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        ("COMPLETED", BackupFinished, "success"),
        ("FAILED", BackupFinished, "failed"),
        ("CANCELLED", BackupFinished, "cancelled"),
        ("ARCHIVED", BackupFinished, "unknown"),
        ("ON_FIRE", BackupFinished, "unknown"),
        ("PENDING", BackupStarted, "running"),
        ("REMOVED", BackupExpired, "expired"),
    ],
)
def test_the_status_of_a_backup_says_what_became_of_it(
    status: str, kind: type[BackupFinished], outcome: str
) -> None:
    [event] = poll("backups", of_project(backups=backups(backup(30, status)))).says
    assert (kind, outcome) == (type(event), event.outcome)  # type: ignore[attr-defined]  # a backup's event


def test_only_a_new_or_changed_backup_is_told() -> None:
    [kept] = poll("backups", of_project(backups=backups(backup(29), backup(30, "PENDING")))).keeps
    done = poll("backups", of_project(backups=backups(backup(31), backup(30), backup(29))), kept)

    assert [30, 31] == [int(event.ref.rpartition("-")[2]) for event in done.says]


def test_a_backup_that_is_listed_no_more_has_expired_once() -> None:
    [kept] = poll("backups", of_project(backups=backups(backup(29), backup(30)))).keeps
    done = poll("backups", of_project(backups=backups(backup(30))), kept, started_at=LATER)

    [event] = said(done, BackupExpired)
    assert (f"odooops:backup/supabase-{REF}-29", LATER) == (event.ref, event.occurred_at)
    assert not poll("backups", of_project(backups=backups(backup(30))), done.keeps[0]).says


def test_a_backup_without_an_id_is_named_by_its_time() -> None:
    nameless = {key: value for key, value in backup(30).items() if key != "id"}
    [event] = poll("backups", of_project(backups=backups(nameless))).says
    assert f"odooops:backup/supabase-{REF}-2026-10-30T02:00:00+00:00" == event.ref


def test_only_the_newest_backups_are_told_and_those_before_them_do_not_expire() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    many = [backup(n, at=(start + timedelta(days=n)).isoformat()) for n in range(BACKUPS_MAX + 3)]
    first = poll("backups", of_project(backups=backups(*many[:-1])))
    done = poll("backups", of_project(backups=backups(*many)), first.keeps[0])

    assert BACKUPS_MAX == len(first.says)
    assert [BACKUPS_MAX + 2] == [int(event.ref.rpartition("-")[2]) for event in done.says]


def scan(done: Polled) -> tuple[AdvisorRunFinished, list[AdvisorFindingFound]]:
    [end] = said(done, AdvisorRunFinished)
    return end, said(done, AdvisorFindingFound)


def test_a_scan_is_complete_with_all_its_findings() -> None:
    end, found = scan(poll("security"))

    assert ("success", 2, NOW) == (end.status, end.finding_count, end.started_at)
    assert {(end.advisor, end.run_id)} == {(each.advisor, each.run_id) for each in found}
    assert [(f"{NAME}/public.a", "high", "ERROR"), (f"{NAME}/public.b", "medium", "WARN")] == [
        (each.resource_ref, each.severity, each.stated_severity) for each in found
    ]
    assert {("rls_disabled_in_public", "security")} == {(each.rule, each.pillar) for each in found}


def test_a_finding_has_one_ref_in_every_scan_and_one_that_is_mended_is_missing() -> None:
    first = poll("security")
    _, before = scan(first)
    mended = of_project(security={"lints": [lint("b", "WARN")]})
    end, after = scan(poll("security", mended, first.keeps[0], started_at=LATER))

    assert [before[1].ref] == [each.ref for each in after] and 1 == end.finding_count
    assert before[1].run_id != end.run_id


def test_a_scan_that_finds_nothing_any_more_resolves_all() -> None:
    [kept] = poll("security").keeps
    end, found = scan(poll("security", of_project(security={"lints": []}), kept, started_at=LATER))
    assert (0, []) == (end.finding_count, found)


def test_two_findings_about_one_table_are_two_and_one_twice_is_one() -> None:
    policy = {**lint("a"), "cache_key": "another policy"}
    end, found = scan(poll("security", of_project(security={"lints": [lint("a"), policy, lint("a")]})))
    assert (2, 2) == (end.finding_count, len({each.ref for each in found}))


def test_advisors_and_projects_are_scans_of_their_own() -> None:
    both = account(REF, OTHER, performance={"lints": [lint("a")]})
    ends = said(poll("security", both, every=True), AdvisorRunFinished)
    ends += said(poll("performance", both, every=True), AdvisorRunFinished)

    assert 4 == len({end.advisor for end in ends}) == len({end.run_id for end in ends})


@pytest.mark.parametrize("broken", [{}, {"lints": None}, {"lints": [{"name": "x"}]}, 404, 500])
def test_an_answer_that_is_no_scan_resolves_nothing(broken: Any) -> None:
    done = poll("security", of_project(security=broken))
    assert len(done.failed) == 1 and not done.says and not done.keeps


def test_figures_of_the_disk_are_of_its_own_time_and_those_of_requests_of_the_hour() -> None:
    figures = {
        event.metric: event
        for event in said(poll("disk"), MetricRecorded) + said(poll("requests"), MetricRecorded)
    }

    assert {
        "filesystem_used_percent": 31.25,
        "filesystem_used_bytes": 2_500,
        "auth_requests_per_hour": 2,
        "realtime_requests_per_hour": 0,
        "rest_requests_per_hour": 75,
        "storage_requests_per_hour": 4,
    } == {metric: event.value for metric, event in figures.items()}
    assert {NAME} == {event.ref for event in figures.values()}
    assert datetime(2026, 11, 1, 11, 58, tzinfo=UTC) == figures["filesystem_used_percent"].occurred_at


@pytest.mark.parametrize(
    "broken", [{"error": "?"}, {"result": None}, {"result": [{"total_rest_requests": -1}]}]
)
def test_an_answer_without_figures_is_no_figure(broken: Any) -> None:
    done = poll("requests", of_project(usage=broken))
    assert ["shape_mismatch"] == [failure.reason for failure in done.failed] and not done.says


def test_a_project_that_fails_does_not_stop_the_others_and_keeps_what_it_had() -> None:
    both = account(REF, OTHER)
    [kept] = poll("backups", both, every=True).keeps
    broken = {**both, f"/v1/projects/{REF}/database/backups": 403}
    done = poll(
        "backups", {**broken, f"/v1/projects/{OTHER}/database/backups": backups(backup(1))}, kept, every=True
    )

    assert [("http_403", REF)] == [(warn.reason, warn.sentence.partition(":")[0]) for warn in done.warns]
    assert {f"supabase:project/{OTHER}"} == {event.database for event in done.says}  # type: ignore[attr-defined]
    assert [{REF: kept[REF], OTHER: {"1": "COMPLETED"}}] == done.keeps


def test_only_so_many_projects_are_polled_and_it_is_said() -> None:
    refs = [f"{'a' * 19}{chr(97 + n)}" for n in range(PROJECTS_MAX + 1)]
    done = poll("projects", account(*refs), every=True)

    assert PROJECTS_MAX == len(done.says) and ["many_projects"] == [warn.reason for warn in done.warns]


def test_all_that_is_kept_of_many_projects_fits_into_one_place() -> None:
    refs = [f"{'a' * 19}{chr(97 + n)}" for n in range(PROJECTS_MAX)]
    many = [backup(10**9 + n, "CANCELLED", f"2026-10-01T00:{n:02}:00Z") for n in range(BACKUPS_MAX)]
    [kept] = poll("backups", account(*refs, backups=backups(*many)), every=True).keeps

    assert len(json.dumps(dict(kept))) < 64 * 1024


LIMITS = {"x-ratelimit-limit": "120", "x-ratelimit-remaining": "7"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({**LIMITS, "x-ratelimit-reset": "42"}, Allowance(7, 120, 42.0)),
        ({**LIMITS, "x-ratelimit-reset": "-1"}, None),
        (LIMITS, None),
        ({**LIMITS, "x-ratelimit-reset": "soon"}, None),
    ],
)
def test_the_allowance_is_renewed_in_seconds(headers: Mapping[str, str], expected: Allowance | None) -> None:
    assert expected == POLLING.allowance(headers, NOW)
