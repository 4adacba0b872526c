"""Whether Plane still sends: it switches a webhook off that failed six times, and queues nothing for it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from contracts.health import HealthcheckCompleted, HealthStatus
from contracts.webhooks import WebhookFailing, WebhookMended
from providers.plane.answers import answer, workspace
from providers.plane.payloads import Hook, HookList, Hooks
from providers.polling import Ask, Keep, Look, Reply, Say, Step, Steps, Warn, ask

ENTITIES = ("issue", "issue_comment", "project")
"""What a webhook of the older format has to send. Which events one of the newer format sends is not looked at."""
HIDDEN = frozenset((402, 403, 404))
"""Answers to a key that may not see webhooks, and of a server whose API does not show them."""


def webhooks(look: Look) -> Steps:
    """Whether the webhook that posts to us is on. Alarm is given when that ends and when it is so again, once each."""
    reply, hooks = yield from _hooks(look)
    failing, hidden = look.state.get("failing"), look.state.get("hidden", False)
    if hooks is None:
        if not hidden:
            sentence = f"Plane does not show its webhooks to this key ({reply.status}): whether ours is on is not known"
            yield _checked(
                look, f"plane:hook/{look.source.options.workspace}", "unknown", sentence, reply.fetched_at
            )
            yield Warn("webhooks_hidden", sentence)
        yield Keep({"failing": failing, "hidden": True})
        return
    ref, problem = _judged(look, hooks)
    told: dict[str, Any] = {"source": look.source.name, "scope": look.scope, "occurred_at": reply.fetched_at}
    if problem and (failing is None or failing["problem"] != problem):
        yield Say(WebhookFailing(ref=ref, problem=problem, **told))
    if problem is None and failing is not None:
        yield Say(WebhookMended(ref=failing["ref"], **told))
    yield _checked(look, ref, "failing" if problem else "ok", problem, reply.fetched_at)
    yield Keep({"failing": {"ref": ref, "problem": problem} if problem else None})


def _hooks(look: Look) -> Generator[Step, Any, tuple[Reply, Sequence[Hook] | None]]:
    """The workspace's webhooks; None where neither version of the API shows them."""
    reply = yield from ask(Ask(path=f"{workspace(look)}/webhooks/", also=HIDDEN))
    if reply.status not in HIDDEN:
        return reply, answer(HookList, reply).root
    reply = yield from ask(
        Ask(path=f"{workspace(look, 'v2')}/webhooks/", params={"per_page": "200"}, also=HIDDEN)
    )
    return reply, None if reply.status in HIDDEN else answer(Hooks, reply).data


def _judged(look: Look, hooks: Sequence[Hook]) -> tuple[str, str | None]:
    """Our webhook and what is wrong with it. Where several post to us, the one that is best off counts."""
    endpoint = look.source.file.endpoint or ""
    ours = [hook for hook in hooks if urlsplit(hook.url).path.rstrip("/").endswith(endpoint)]
    if not ours:
        missing = f"no webhook of this workspace posts to {endpoint}: make one in its settings"
        return f"plane:hook/{look.source.options.workspace}", missing
    judged = [(f"plane:hook/{hook.id}", _problem(hook)) for hook in ours]
    return min(judged, key=lambda each: (each[1] is not None, each))


def _problem(hook: Hook) -> str | None:
    if not hook.is_active:
        return "it is switched off: mend what it failed for, then switch it on in the workspace's settings"
    unsent = [entity for entity in ENTITIES if not getattr(hook, entity)]
    return (
        f"it does not send {', '.join(unsent)}: choose these, too, in the workspace's settings"
        if unsent
        else None
    )


def _checked(look: Look, ref: str, status: HealthStatus, detail: str | None, at: datetime) -> Say:
    return Say(
        HealthcheckCompleted(
            source=look.source.name,
            check_name="webhook",
            target=ref,
            status=status,
            detail=detail,
            occurred_at=at,
        )
    )
