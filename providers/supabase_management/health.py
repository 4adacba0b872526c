"""How a project of Supabase fares: itself, its services and its preview branches."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from contracts.envelope import Env
from contracts.health import HealthcheckCompleted, HealthStatus
from providers.polling import Ask, Failed, Look, Say, Step, ask
from providers.supabase_management.payloads import Branch, Health, parsed
from providers.supabase_management.target import Target, remembered

PROJECT: Mapping[str, HealthStatus] = {
    "ACTIVE_HEALTHY": "ok",
    "COMING_UP": "degraded",
    "GOING_DOWN": "degraded",
    "PAUSING": "degraded",
    "RESIZING": "degraded",
    "RESTARTING": "degraded",
    "RESTORING": "degraded",
    "UPGRADING": "degraded",
    "ACTIVE_UNHEALTHY": "failing",
    "INACTIVE": "failing",
    "INIT_FAILED": "failing",
    "PAUSE_FAILED": "failing",
    "RESTORE_FAILED": "failing",
}
"""Paused (INACTIVE) is failing, by whomever it was paused: it answers nobody. A word that is not here is unknown."""
SERVICE: Mapping[str, HealthStatus] = {
    "ACTIVE_HEALTHY": "ok",
    "COMING_UP": "degraded",
    "UNHEALTHY": "failing",
}
BRANCH: Mapping[str, HealthStatus] = {
    "MIGRATIONS_PASSED": "ok",
    "FUNCTIONS_DEPLOYED": "ok",
    "CREATING_PROJECT": "degraded",
    "RUNNING_MIGRATIONS": "degraded",
    "MIGRATIONS_FAILED": "failing",
    "FUNCTIONS_FAILED": "failing",
}
SERVICES = ("auth", "db", "realtime", "rest", "storage")
"""What every project has. Poolers are optional."""
SERVICES_HEALTH = TypeAdapter(list[Health])
BRANCHES = TypeAdapter(list[Branch])


def project_health(look: Look, target: Target) -> Say:
    """How a project is as a whole."""
    return _say(look, target.env, target.name, "project", PROJECT, target.status, target.seen_at)


def services(
    look: Look, target: Target, before: Mapping[str, Any]
) -> Generator[Step, Any, Mapping[str, Any]]:
    """How each service is; unknown where that cannot be asked for, or is left out."""
    request = Ask(path=f"{target.path}/health", params={"services": ",".join(SERVICES)})
    try:
        reply = yield from ask(request)
        stated = {each.name: each.status for each in parsed(SERVICES_HEALTH, reply)}
    except Failed:
        for service in SERVICES:
            yield _say(look, target.env, target.name, service, SERVICE, None, look.started_at)
        raise
    for service in SERVICES:
        yield _say(look, target.env, target.name, service, SERVICE, stated.get(service), reply.fetched_at)
    return {}


def branches(
    look: Look, target: Target, before: Mapping[str, Any]
) -> Generator[Step, Any, Mapping[str, Any]]:
    """How each preview branch is, once it has changed or a day has passed."""
    reply = yield from ask(Ask(path=f"{target.path}/branches"))
    previews = [each for each in parsed(BRANCHES, reply) if not each.is_default]
    kept = remembered(look, before, [(branch.id, branch.status) for branch in previews])
    if kept is None:
        return before
    for branch in previews:
        env = look.source.environments.of(
            source=look.source.name, variable=f"preview_of={target.ref}", branch=branch.git_branch
        )
        yield _say(
            look,
            env,
            f"supabase:branch/{branch.id}",
            "branch",
            BRANCH,
            branch.status,
            reply.fetched_at,
            _described(branch, target),
        )
    return kept


def _described(branch: Branch, target: Target) -> str:
    of = f"of {target.name}"
    git = f", git branch {branch.git_branch}" if branch.git_branch else ""
    return f"{of}{git}, pull request {branch.pr_number}" if branch.pr_number else f"{of}{git}"


def _say(
    look: Look,
    env: Env,
    target: str,
    check_name: str,
    words: Mapping[str, HealthStatus],
    stated: str | None,
    at: datetime,
    detail: str | None = None,
) -> Say:
    return Say(
        HealthcheckCompleted(
            source=look.source.name,
            occurred_at=at,
            env=env,
            target=target,
            check_name=check_name,
            status=words.get(stated or "", "unknown"),
            stated_status=stated,
            detail=detail,
        )
    )
