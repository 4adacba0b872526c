"""Targets: which deployment serves a project's production.

A webhook tells of it in two cases, a promotion and a rollback. A deployment for production that is ready says nothing
of it: domains may not be assigned by themselves, and after a rollback they are not. A look at the project settles it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from contracts.delivery import Delivery
from contracts.deployments import DeploymentTargetChanged
from contracts.envelope import Env, Event
from contracts.version import micros, moment
from providers.port import Ignored, Source
from providers.vercel.deployments import (
    PRODUCTION,
    STATES,
    at,
    deployment_ref,
    sight_of,
    status_changed,
)
from providers.vercel.payloads import DeploymentWebhook, ObservedProject, RollbackWebhook

TOLD, SEEN = 0, 1
"""Ranks: what we have seen at the time of a message, we saw after it."""


def promoted(webhook: DeploymentWebhook, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment was promoted: it has gone as far as one can, and production serves it from now on.

    A deployment may be promoted again after a rollback, so here the time tells apart two facts.
    """
    sight, when = sight_of(webhook), at(webhook.created_at)
    state = STATES["promoted"]
    reached = status_changed(
        sight, "promoted", when, delivery, source, moment=(state.major, micros(when), state.rank)
    )
    if sight.project_id is None:
        return [reached]
    served = _changed(
        delivery,
        source,
        project_id=sight.project_id,
        target=PRODUCTION,
        deployment_id=sight.id,
        when=when,
        env=_env(source, PRODUCTION, sight.repository),
        project=sight.project,
        actor=sight.actor,
        change="promoted",
        confirmed=True,
        repository=sight.repository,
        git_ref=reached.git_ref,
        commit_sha=reached.commit_sha,
    )
    return [reached, served]


def rolled_back(webhook: RollbackWebhook, delivery: Delivery, source: Source) -> list[Event]:
    """A rollback was accepted. Nothing is sent when the traffic has moved, so it is not confirmed."""
    payload = webhook.payload
    previous = payload.from_deployment_id
    return [
        _changed(
            delivery,
            source,
            project_id=payload.project.id,
            target=PRODUCTION,
            deployment_id=payload.to_deployment_id,
            when=at(webhook.created_at),
            env=_env(source, PRODUCTION),
            previous_ref=None if previous is None else deployment_ref(previous),
            actor=payload.user.id if payload.user else None,
            change="rolled_back",
            confirmed=False,
        )
    ]


def observed(body: ObservedProject, delivery: Delivery, source: Source) -> list[Event]:
    """What each target of a project served when we looked."""
    project = body.item
    serving = {name: served.id for name, served in (project.targets or {}).items() if served is not None}
    if not serving:
        raise Ignored("no_target_serves_anything")
    return [
        _changed(
            delivery,
            source,
            project_id=project.id,
            target=target,
            deployment_id=deployment_id,
            when=delivery.received_at,
            rank=SEEN,
            env=_env(source, target),
            project=project.name or None,
            change="observed",
            confirmed=True,
        )
        for target, deployment_id in sorted(serving.items())
    ]


def _env(source: Source, target: str, repository: str | None = None) -> Env:
    """Our environment of a target. It does not follow the branch of what the target happens to serve."""
    return source.environments.of(repository=repository, target=target)


def _changed(
    delivery: Delivery,
    source: Source,
    *,
    project_id: str,
    target: str,
    deployment_id: str,
    when: datetime,
    rank: int = TOLD,
    **stated: Any,
) -> DeploymentTargetChanged:
    return DeploymentTargetChanged(
        source=delivery.source,
        ref=f"vercel:target/{project_id}/{target}",
        moment=moment(when, rank),
        fact=deployment_id,
        occurred_at=when,
        project_id=project_id,
        target=target,
        deployment_ref=deployment_ref(deployment_id),
        **stated,
    )
