"""Deployments: what never changes about them, and the states that they go through.

A state is reached once and never left for an earlier one, so the state itself says how late in life a statement is.
Its time stays out of the moment: a webhook gives the time of the message and the API that of the state, and both have
to give one event one id. Only a promotion may come again, so only its moment has a time: see targets.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from contracts.delivery import Delivery
from contracts.deployments import (
    DeploymentCreated,
    DeploymentEvent,
    DeploymentStatus,
    DeploymentStatusChanged,
)
from contracts.envelope import Env, Event
from contracts.version import Moment, from_micros
from providers.port import Source
from providers.vercel.payloads import (
    DeploymentWebhook,
    ListedDeployment,
    Meta,
    Millis,
    ObservedDeployment,
)

PREVIEW = "preview"
QUEUED = "queued"
PRODUCTION = "production"
UNTIMED = 0
NUMBER_DIGITS_COUNT_MAX = 18
"""So many fit into 64 bits for certain."""
_SCHEMES = ("https://", "http://")

E = TypeVar("E", bound=DeploymentEvent)


@dataclass(frozen=True, slots=True)
class State:
    """A state: `major` is how late in life it comes; `rank` decides between states that exclude each other.

    Of two ends that contradict each other, the worse one counts: a failure is never shown as a success.
    """

    major: int
    rank: int
    status: DeploymentStatus


STATES: Mapping[str, State] = {
    QUEUED: State(0, 0, "queued"),
    "initializing": State(0, 1, "queued"),
    "blocked": State(0, 2, "awaiting_authorization"),
    "build-requested": State(1, 0, "deploying"),
    "building": State(1, 1, "deploying"),
    "succeeded": State(2, 0, "success"),
    "canceled": State(2, 1, "cancelled"),
    "error": State(2, 2, "failed"),
    "ready": State(3, 0, "success"),
    "promoted": State(4, 0, "success"),
    "cleanup": State(5, 0, "inactive"),
}
"""By the word of the webhook's type or, in lower case, of the API's `readyState`."""
UNKNOWN = State(-1, 0, "unknown")
"""A word that we do not know says nothing against one that we know."""
TOLD = ("blocked", "build-requested", "succeeded", "canceled", "error", "ready", "cleanup")
"""The states that have a webhook each; a promotion is one of them and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a webhook or an answer of the API shows of a deployment, whatever state it is in."""

    id: str
    project_id: str | None
    project: str | None
    environment: str | None
    meta: Meta
    host: str | None
    log_url: str | None
    actor: str | None

    @property
    def ref(self) -> str:
        """The deployment's ref."""
        return deployment_ref(self.id)

    @property
    def repository(self) -> str | None:
        """The repository that the project is connected with; a fork's commit comes from another one."""
        if self.meta.github_org and self.meta.github_repo:
            return f"{self.meta.github_org}/{self.meta.github_repo}"
        return None

    def env(self, source: Source, target: str | None) -> Env:
        """Our environment of it where it belongs to `target`."""
        return source.environments.of(
            repository=self.repository, branch=self.meta.github_commit_ref, target=target
        )


def deployment_ref(deployment_id: str) -> str:
    """The ref of a deployment."""
    return f"vercel:{deployment_id}"


def created(webhook: DeploymentWebhook, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment was asked for; who asked is its creator where git names nobody.

    It waits from now on, which is a state, and the only news of it until it is built.
    """
    sight, born = sight_of(webhook), at(webhook.created_at)
    return [
        _created(sight, born, sight.actor, delivery, source),
        status_changed(sight, QUEUED, born, delivery, source),
    ]


def changed(webhook: DeploymentWebhook, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment has reached the state that the type names."""
    return [status_changed(sight_of(webhook), _word(delivery.kind), at(webhook.created_at), delivery, source)]


def observed(body: ObservedDeployment, delivery: Delivery, source: Source) -> list[Event]:
    """A deployment as the API shows it: that it was asked for, and the state that it was in.

    The API gives no time of a failure or a cancellation. The last time that it gives is taken instead and not the time
    of our look, by which a failure of last month would be news.
    """
    item = body.item
    sight = _sight_of_item(item)
    word = (item.ready_state or item.state or "").lower()
    born = _first(item.created, item.created_at)
    since = _first(item.ready if word == "ready" else None, item.building_at, born)
    return [
        _created(sight, delivery.received_at if born is None else at(born), sight.actor, delivery, source),
        status_changed(
            sight,
            word,
            delivery.received_at if since is None else at(since),
            delivery,
            source,
            description=item.error_message or None,
        ),
    ]


def at(millis: Millis) -> datetime:
    """The time that Vercel writes as milliseconds since 1970."""
    return from_micros(millis * 1_000)


def sight_of(webhook: DeploymentWebhook) -> Sight:
    """What a webhook shows of its deployment."""
    payload, seen = webhook.payload, webhook.payload.deployment
    part = seen if "target" in seen.model_fields_set else payload
    return Sight(
        id=seen.id,
        project_id=payload.project.id if payload.project else None,
        project=seen.name or payload.name or None,
        environment=_environment(part.target, seen.custom_environment_id or payload.custom_environment_id)
        if "target" in part.model_fields_set
        else None,
        meta=seen.meta or Meta(),
        host=_host(seen.url),
        log_url=(payload.links.deployment if payload.links else None) or seen.inspector_url or None,
        actor=payload.user.id if payload.user else None,
    )


def status_changed(
    sight: Sight,
    word: str,
    occurred_at: datetime,
    delivery: Delivery,
    source: Source,
    *,
    description: str | None = None,
    moment: Moment | None = None,
) -> DeploymentStatusChanged:
    """That a deployment has reached the state called `word`."""
    state = STATES.get(word, UNKNOWN)
    return _event(
        DeploymentStatusChanged,
        sight,
        delivery,
        source,
        moment=moment or (state.major, UNTIMED, state.rank),
        fact=word,
        occurred_at=occurred_at,
        status=state.status,
        provider_status=word,
        description=description,
        url=f"https://{sight.host}" if sight.host else None,
        log_url=sight.log_url,
        creator=sight.meta.github_commit_author_login or None,
    )


def _created(
    sight: Sight, occurred_at: datetime, creator: str | None, delivery: Delivery, source: Source
) -> DeploymentCreated:
    return _event(
        DeploymentCreated,
        sight,
        delivery,
        source,
        moment=(0, UNTIMED, 0),
        occurred_at=occurred_at,
        created_at=occurred_at,
        creator=sight.meta.github_commit_author_login or creator,
    )


def _event(event: type[E], sight: Sight, delivery: Delivery, source: Source, **stated: Any) -> E:
    """An event about a deployment: what never changes about it, and what is `stated` besides."""
    meta = sight.meta
    return event(
        source=delivery.source,
        ref=sight.ref,
        actor=sight.actor,
        env=sight.env(source, sight.environment),
        repository=sight.repository,
        repository_id=_number(meta.github_repo_id),
        project=sight.project,
        project_id=sight.project_id,
        deployment_id=sight.id,
        environment=sight.environment,
        production=None if sight.environment is None else sight.environment == PRODUCTION,
        git_ref=meta.github_commit_ref or None,
        commit_sha=meta.github_commit_sha or None,
        pull_request=_number(meta.github_pr_id),
        same_as=f"vercel:url/{sight.host}" if sight.host else None,
        **stated,
    )


def _sight_of_item(item: ListedDeployment) -> Sight:
    return Sight(
        id=item.uid,
        project_id=item.project_id,
        project=item.name or None,
        environment=_environment(
            item.target, item.custom_environment.id if item.custom_environment else None
        ),
        meta=item.meta or Meta(),
        host=_host(item.url),
        log_url=item.inspector_url or None,
        actor=(item.creator.uid if item.creator else None) or None,
    )


def _first(*times: Millis | None) -> Millis | None:
    return next((time for time in times if time is not None), None)


def _word(kind: str) -> str:
    """The state in a type: `ready` in `deployment.ready` and in the older `deployment-ready`."""
    word = kind.removeprefix("deployment")[1:]
    return "succeeded" if word == "prepared" else word


def _environment(target: str | None, custom: str | None) -> str:
    return target or custom or PREVIEW


def _host(url: str | None) -> str | None:
    """The host of a deployment's address, which Vercel writes without a scheme."""
    host = (url or "").lower()
    for scheme in _SCHEMES:
        host = host.removeprefix(scheme)
    return host.partition("/")[0] or None


def _number(text: str | int | None) -> int | None:
    """The number that Vercel writes as text; None where it is no number."""
    digits = str(text)
    usable = digits.isascii() and digits.isdigit() and len(digits) <= NUMBER_DIGITS_COUNT_MAX
    return int(digits) if usable else None
