"""Whether Plane still sends: it switches a webhook off that failed six times, and queues nothing for it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import urlsplit

from contracts.health import HealthcheckCompleted
from contracts.webhooks import WebhookFailing, WebhookMended
from providers.plane.answers import answer, workspace
from providers.plane.payloads import Hook, HookList, Hooks
from providers.polling import Ask, Keep, Look, Reply, Say, Step, Steps, Warn, ask

ENTITIES = ("issue", "issue_comment", "project")
"""What a webhook of the older format has to send. Which events one of the newer format sends is not looked at."""
HIDDEN = frozenset((402, 403, 404))
"""Answers to a key that may not see webhooks, and of a server whose API does not show them."""


def webhooks(look: Look) -> Steps:
    """Whether the webhook that posts to us is on. What is wrong with it is said once, and so is that it is over."""
    reply, hooks = yield from _hooks(look)
    said: dict[str, Any] = {"source": look.source.name, "occurred_at": reply.fetched_at}
    checked = {**said, "check_name": "webhook", "target": look.scope}
    if hooks is None:
        sentence = (
            f"Plane does not show webhooks to this key ({reply.status}): whether ours is on is not known"
        )
        yield Say(HealthcheckCompleted(**checked, status="unknown", detail=sentence))
        if not look.state.get("hidden"):
            yield Warn("webhooks_hidden", sentence)
        yield Keep({**look.state, "hidden": True})
        return
    ref, problem = _judged(look, hooks)
    yield Say(HealthcheckCompleted(**checked, status="failing" if problem else "ok", detail=problem))
    before, failing = look.state.get("ref"), look.state.get("problem")
    if failing and (problem is None or ref != before):
        yield Say(WebhookMended(**said, ref=before, scope=look.scope))
    if problem and (problem, ref) != (failing, before):
        yield Say(WebhookFailing(**said, ref=ref, scope=look.scope, problem=problem))
    yield Keep({"ref": ref, "problem": problem})


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
        return f"plane:hook/{look.scope}", missing
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
