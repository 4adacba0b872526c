"""Deployments, and the list of statuses that each of them grows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from contracts.delivery import Delivery
from contracts.deployments import DeploymentCreated, DeploymentStatus, DeploymentStatusChanged
from contracts.envelope import Event
from contracts.version import INT64_MAX, moment
from providers.github.builds import build_ref
from providers.github.payloads import (
    Account,
    Deployment,
    DeploymentItem,
    DeploymentPayload,
    DeploymentStatusItem,
    DeploymentStatusPayload,
    Home,
    RunId,
)
from providers.github.payloads import DeploymentStatus as Status
from providers.port import Ignored, Source, Unintelligible

STATES: Mapping[str, DeploymentStatus] = {
    "queued": "queued",
    "pending": "queued",
    "in_progress": "deploying",
    "success": "success",
    "failure": "failed",
    "error": "failed",
    "inactive": "inactive",
}
CREATED = "created"
"""The one action of either event: deployments and statuses never change, new ones are added."""

VERCEL = "vercel[bot]"
"""Vercel reports its own deployments to GitHub under this name."""
VERCEL_HOST = "vercel.com"
"""Its dashboard, which is no deployment: an address there would make all deployments one."""

DEPLOYMENT_ADDRESS = re.compile(r"/deployments/([0-9]{1,19})/*$")


def deployment(payload: DeploymentPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment that was asked for."""
    _require_created(payload.action)
    seen = payload.deployment
    return [
        _created(seen, payload.repository, delivery, source, payload.actor, _deploying(payload.workflow_run))
    ]


def deployment_status(payload: DeploymentStatusPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment's newest status."""
    _require_created(payload.action)
    seen, status = payload.deployment, payload.deployment_status
    facts = _facts(seen, payload.repository, source) | {"build_ref": _deploying(payload.workflow_run)}
    return [_changed(status, facts, delivery, payload.actor, _same_as(status, seen.creator, status.creator))]


def observed_deployment(seen: DeploymentItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment as a poll sees it."""
    actor = seen.creator.login if seen.creator else None
    return [_created(seen, home, delivery, source, actor)]


def observed_deployment_status(
    status: DeploymentStatusItem, home: Home, delivery: Delivery, source: Source
) -> list[Event]:
    """A status as a poll sees it, which shows little of its deployment: its address and its environment."""
    address = DEPLOYMENT_ADDRESS.search(status.deployment_url)
    if address is None or (number := int(address[1])) > INT64_MAX:
        raise Unintelligible(
            "shape_mismatch", "The item's deployment_url is not the address of a deployment."
        )
    facts = {
        "ref": deployment_ref(number),
        "repository": home.full_name,
        "repository_id": home.id,
        "deployment_id": number,
        "environment": status.environment,
        "env": source.environments.surely_of("branch", repository=home.full_name, target=status.environment),
    }
    actor = status.creator.login if status.creator else None
    return [_changed(status, facts, delivery, actor, _same_as(status, status.creator))]


def deployment_ref(number: int) -> str:
    """The ref of a deployment."""
    return f"github:deployment/{number}"


def _created(
    seen: Deployment,
    home: Home,
    delivery: Delivery,
    source: Source,
    actor: str | None,
    deploying: str | None = None,
) -> DeploymentCreated:
    at = seen.created_at or delivery.received_at
    return DeploymentCreated(
        source=delivery.source,
        moment=moment(at, 0),
        occurred_at=at,
        actor=actor,
        build_ref=deploying,
        **_facts(seen, home, source),
    )


def _changed(
    status: Status, facts: Mapping[str, Any], delivery: Delivery, actor: str | None, same_as: str | None
) -> DeploymentStatusChanged:
    """Ids grow, so they order the statuses of one second."""
    at = status.created_at or status.updated_at or delivery.received_at
    return DeploymentStatusChanged(
        source=delivery.source,
        moment=moment(at, status.id),
        occurred_at=at,
        actor=actor,
        same_as=same_as,
        status=STATES.get(status.state, "unknown"),
        provider_status=status.state,
        description=status.description or None,
        url=status.environment_url or status.target_url or None,
        log_url=status.log_url or None,
        **facts,
    )


def _facts(seen: Deployment, home: Home, source: Source) -> dict[str, Any]:
    """What never changes about a deployment."""
    return {
        "ref": deployment_ref(seen.id),
        "env": source.environments.of(
            repository=home.full_name, target=seen.environment, branch=_branch(seen.ref)
        ),
        "repository": home.full_name,
        "repository_id": home.id,
        "deployment_id": seen.id,
        "environment": seen.environment,
        "production": seen.production_environment,
        "git_ref": seen.ref,
        "commit_sha": seen.sha,
        "task": seen.task,
        "creator": seen.creator.login if seen.creator else None,
        "created_at": seen.created_at,
    }


def _branch(git_ref: str | None) -> str | None:
    """A deployment names a branch, a tag or a commit: the first is all that a rule can match."""
    return git_ref and git_ref.removeprefix("refs/heads/")


def _deploying(run: RunId | None) -> str | None:
    """The run attempt that deploys."""
    return build_ref(run) if run else None


def _same_as(status: Status, *accounts: Account | None) -> str | None:
    """What Vercel's own report of the same deployment is equal in: the host that it got."""
    if all(account is None or account.login != VERCEL for account in accounts):
        return None
    hosts = (_host(url) for url in (status.environment_url, status.target_url))
    host = next((host for host in hosts if host and host != VERCEL_HOST), None)
    return f"vercel:url/{host}" if host else None


def _host(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").hostname
    except ValueError:
        return None


def _require_created(action: str) -> None:
    if action != CREATED:
        raise Ignored("no_such_action")
