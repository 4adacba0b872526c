"""Deployments, and the list of statuses that each of them grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from contracts.delivery import Delivery
from contracts.deployments import (
    DeploymentCreated,
    DeploymentEvent,
    DeploymentStatus,
    DeploymentStatusChanged,
)
from contracts.envelope import Event
from contracts.version import moment
from providers.github.builds import build_ref
from providers.github.payloads import DeploymentPayload, DeploymentStatusPayload
from providers.port import Ignored

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

E = TypeVar("E", bound=DeploymentEvent)


def deployment(payload: DeploymentPayload, delivery: Delivery) -> list[Event]:
    """A deployment that was asked for."""
    _require_created(payload.action)
    at = payload.deployment.created_at or delivery.received_at
    return [_sight(DeploymentCreated, payload, delivery, moment=moment(at, 0), occurred_at=at)]


def deployment_status(payload: DeploymentStatusPayload, delivery: Delivery) -> list[Event]:
    """A deployment's newest status. Ids grow, so they order the statuses of one second."""
    _require_created(payload.action)
    status = payload.deployment_status
    at = status.created_at or status.updated_at or delivery.received_at
    return [
        _sight(
            DeploymentStatusChanged,
            payload,
            delivery,
            moment=moment(at, status.id),
            occurred_at=at,
            status=STATES.get(status.state, "unknown"),
            provider_status=status.state,
            description=status.description or None,
            url=status.environment_url or status.target_url or None,
            log_url=status.log_url or None,
        )
    ]


def _sight(
    event: type[E], payload: DeploymentPayload | DeploymentStatusPayload, delivery: Delivery, **stated: Any
) -> E:
    """An event about the payload's deployment: what never changes about it, and what is `stated` besides."""
    seen = payload.deployment
    return event(
        source=delivery.source,
        ref=f"github:deployment/{seen.id}",
        actor=payload.actor,
        repository=payload.repository.full_name,
        repository_id=payload.repository.id,
        deployment_id=seen.id,
        environment=seen.environment,
        production=seen.production_environment,
        git_ref=seen.ref,
        commit_sha=seen.sha,
        task=seen.task,
        creator=seen.creator.login if seen.creator else None,
        build_ref=build_ref(payload.workflow_run) if payload.workflow_run else None,
        created_at=seen.created_at,
        **stated,
    )


def _require_created(action: str) -> None:
    if action != CREATED:
        raise Ignored("no_such_action")
