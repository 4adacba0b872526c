"""Pushes, repositories, installations and hooks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from contracts.audit import CodePushed, InstallationChanged, RepositoryChanged, WebhookPinged, WebhookRemoved
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.version import moment
from providers.github.builds import first_line
from providers.github.payloads import (
    HookPayload,
    InstallationPayload,
    MetaPayload,
    PingPayload,
    PushPayload,
    RepositoryPayload,
)
from providers.port import Ignored, Source

PUSH_COMMITS_MAX = 2048
"""GitHub lists no more commits than these in one push."""
REPOSITORIES_MAX = 200
"""Names of repositories that an event carries; the delivery has them all."""
PERMISSIONS_MAX = 200
"""Permissions that an event carries; GitHub knows about 60."""
BRANCHES = "refs/heads/"

FIRST, LATER, LAST = 0, 1, 2
DELETED = "deleted"
LIFE: Mapping[str, int] = {"created": FIRST, DELETED: LAST}
"""Which of two changes in one second is later in the life of a thing; all others are between."""
INSTALLATION_LIFE: Mapping[str, int] = {"created": FIRST, "unsuspend": 2, DELETED: 3}
"""The end of a suspension does not touch updated_at: it shows the time at which the suspension began."""


def push(payload: PushPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A branch or tag that moved. A push has no version but its chain of commits."""
    repository = payload.repository
    at = repository.pushed_at or delivery.received_at
    commits = len(payload.commits or [])
    rank = LAST if payload.deleted else FIRST if payload.created else LATER
    return [
        CodePushed(
            source=delivery.source,
            ref=f"github:{repository.full_name}@{payload.ref}",
            moment=moment(at, rank),
            fact=f"{payload.before}..{payload.after}",
            occurred_at=at,
            actor=payload.actor,
            env=source.environments.of(repository=repository.full_name, branch=_branch(payload.ref)),
            repository=repository.full_name,
            repository_id=repository.id,
            git_ref=payload.ref,
            before_sha=payload.before,
            after_sha=payload.after,
            created=payload.created,
            deleted=payload.deleted,
            forced=payload.forced,
            commits=commits,
            commits_capped=commits >= PUSH_COMMITS_MAX,
            head_message=first_line(payload.head_commit),
            url=payload.compare,
        )
    ]


def repository(payload: RepositoryPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A repository that was created, renamed, moved, archived, deleted …"""
    changed = payload.repository
    previous = _previous_name(payload)
    # A new name is not always a new updated_at, but it is never older than the last push.
    at = max(filter(None, (changed.updated_at, changed.pushed_at)), default=delivery.received_at)
    return [
        RepositoryChanged(
            source=delivery.source,
            ref=f"github:repository/{changed.id}",
            moment=moment(at, LIFE.get(payload.action, LATER)),
            fact=f"{payload.action}:{previous}" if previous else payload.action,
            occurred_at=_occurred_at(payload.action, at, delivery),
            actor=payload.actor,
            change=payload.action,
            repository=changed.full_name,
            repository_id=changed.id,
            previous_name=previous,
            private=changed.private,
            archived=changed.archived,
        )
    ]


def installation(payload: InstallationPayload, delivery: Delivery, source: Source) -> list[Event]:
    """An app that was installed, suspended, removed …"""
    installed = payload.installation
    account = installed.account
    at = installed.updated_at or delivery.received_at
    return [
        InstallationChanged(
            source=delivery.source,
            ref=f"github:installation/{installed.id}",
            moment=moment(at, INSTALLATION_LIFE.get(payload.action, LATER)),
            fact=payload.action,
            occurred_at=_occurred_at(payload.action, at, delivery),
            actor=payload.actor,
            change=payload.action,
            installation_id=installed.id,
            account=(account.login or account.slug) if account else None,
            app=installed.app_slug or None,
            repositories=[
                repository.full_name for repository in (payload.repositories or [])[:REPOSITORIES_MAX]
            ],
            permissions=_permissions(installed.permissions or {}),
            suspended_at=installed.suspended_at,
        )
    ]


def ping(payload: PingPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A hook that was tried. The body shows when the hook changed, not when it was tried."""
    hook = payload.hook
    return [
        WebhookPinged(
            source=delivery.source,
            ref=f"github:hook/{hook.id}",
            moment=moment(hook.updated_at or delivery.received_at, FIRST),
            # Nothing in the body tells two pings of one hook apart.
            fact=delivery.identity,
            occurred_at=delivery.received_at,
            actor=payload.actor,
            hook_id=hook.id,
            target=_target(payload),
            events=hook.events or [],
            active=hook.active,
        )
    ]


def meta(payload: MetaPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A hook that is gone: somebody has to know, since nothing else will come through it."""
    if payload.action != DELETED:
        raise Ignored("no_such_action")
    hook = payload.hook
    return [
        WebhookRemoved(
            source=delivery.source,
            ref=f"github:hook/{hook.id}",
            moment=moment(hook.updated_at or delivery.received_at, LAST),
            occurred_at=delivery.received_at,
            actor=payload.actor,
            hook_id=hook.id,
            target=_target(payload),
            events=hook.events or [],
        )
    ]


def _occurred_at(action: str, at: datetime, delivery: Delivery) -> datetime:
    """A removal does not touch updated_at, which may be years old: the time of receipt is nearer."""
    return delivery.received_at if action == DELETED else at


def _branch(git_ref: str) -> str | None:
    """The branch that a full git ref names; None for a tag."""
    return git_ref.removeprefix(BRANCHES) if git_ref.startswith(BRANCHES) else None


def _permissions(given: Mapping[str, Any]) -> dict[str, str]:
    """What an app may do, by name, in one order."""
    named = sorted((name, level) for name, level in given.items() if isinstance(level, str))
    return dict(named[:PERMISSIONS_MAX])


def _previous_name(payload: RepositoryPayload) -> str | None:
    """The full name before a rename or a transfer."""
    changes = payload.changes
    if changes is None:
        return None
    owner, _, name = payload.repository.full_name.partition("/")
    if changes.repository and changes.repository.name and changes.repository.name.former:
        return f"{owner}/{changes.repository.name.former}"
    if changes.owner and changes.owner.former:
        former = changes.owner.former.user or changes.owner.former.organization
        return f"{former.login}/{name}" if former and former.login else None
    return None


def _target(payload: HookPayload) -> str | None:
    if payload.repository:
        return payload.repository.full_name
    return payload.organization.login if payload.organization else None
