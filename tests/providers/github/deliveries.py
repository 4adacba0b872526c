"""The sample bodies as deliveries, and the written form of what a delivery must become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery, body_sha256
from contracts.envelope import Event
from contracts.observation import observed_body, observed_kind
from contracts.ssot import EnvironmentRule, Environments, ProviderFile
from providers.github import PROVIDER
from providers.github.options import GithubOptions
from providers.port import Ignored, Item, Source, Unintelligible

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")
SAMPLES = sorted(FIXTURES.glob("*/*.json"))
REST = Path(__file__).with_name("rest")
ANSWERS = sorted(REST.glob("answers/*.json"))
LISTED: Mapping[str, tuple[str, str]] = {
    "actions.list-jobs-for-workflow-run": ("jobs", "repos/octo-org/octo-repo/actions/runs/29679449/jobs"),
    "actions.list-workflow-runs-for-repo": ("runs", "repos/octocat/Hello-World/actions/runs"),
    "checks.list-for-ref": ("check_runs", "repos/github/hello-world/commits/say-hello/check-runs"),
    "checks.list-suites-for-ref": ("check_suites", "repos/octocat/Hello-World/commits/master/check-suites"),
    "issues.list-comments-for-repo": ("comments", "repos/octocat/Hello-World/issues/comments"),
    "issues.list-for-repo": ("issues", "repos/octocat/Hello-World/issues"),
    "pulls.list": ("pulls", "repos/octocat/Hello-World/pulls"),
    "rate-limit.get": ("rate_limit", "rate_limit"),
    "repos.get-webhook": ("hook", "repos/octocat/Hello-World/hooks/12345678"),
    "repos.get-webhook-delivery": ("hook_delivery", "repos/octocat/Hello-World/hooks/12345678/deliveries/1"),
    "repos.list-deployment-statuses": (
        "deployment_statuses",
        "repos/octocat/example/deployments/42/statuses",
    ),
    "repos.list-deployments": ("deployments", "repos/octocat/example/deployments"),
    "repos.list-webhook-deliveries": (
        "hook_deliveries",
        "repos/octocat/Hello-World/hooks/12345678/deliveries",
    ),
}
"""What a poll asks for, and in which scope, by the name of the answer."""

SOURCE = Source(
    name="github",
    provider=PROVIDER,
    file=ProviderFile(name="github", endpoint="/webhooks/github"),
    options=GithubOptions(),
    environments=Environments(
        (
            EnvironmentRule(env="prod", target=["production", "Production"]),
            EnvironmentRule(env="stage", target=["Preview"]),
            EnvironmentRule(env="prod", branch=["main", "master"]),
            EnvironmentRule(env="stage", branch=["staging-*"]),
        )
    ),
)
RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IDENTITY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
JSON_TYPE = "application/json"


def sample(name: str) -> dict[str, Any]:
    """The decoded body of a sample, free to be changed: `issues.pinned.19`."""
    path = FIXTURES / name.partition(".")[0] / f"{name}.json"
    body: dict[str, Any] = json.loads(path.read_bytes())
    return body


def delivery(
    event: str,
    body: Mapping[str, Any] | bytes,
    *,
    received_at: datetime = RECEIVED_AT,
    identity: str = IDENTITY,
    content_type: str = JSON_TYPE,
) -> Delivery:
    """A webhook delivery of `body` as ingest would store it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(
        source="github",
        identity=identity,
        kind=event,
        via="webhook",
        received_at=received_at,
        body=raw,
        body_sha256=body_sha256(raw),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": event, "content-type": content_type},
    )


def normalized(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> list[Event]:
    """The events that a delivery means."""
    return list(PROVIDER.normalize(delivery(event, body, **how), SOURCE))


def only(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> Any:
    """The one event that a delivery means."""
    [one] = normalized(event, body, **how)
    return one


def parked(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> Unintelligible:
    """Why a delivery is set aside."""
    with pytest.raises(Unintelligible) as caught:
        normalized(event, body, **how)
    return caught.value


def ignored(event: str, body: Mapping[str, Any] | bytes) -> str:
    """The reason for which a delivery means nothing to us."""
    with pytest.raises(Ignored) as caught:
        normalized(event, body)
    return caught.value.reason


def answer(name: str) -> Any:
    """The decoded body of an answer of the API, free to be changed: `issues.list-for-repo`."""
    return json.loads((REST / "answers" / f"{name}.json").read_bytes())


def cut(kind: str, scope: str, page: Any) -> list[Item]:
    """The items of a page."""
    assert PROVIDER.items is not None
    return PROVIDER.items(kind, scope, page if isinstance(page, bytes) else json.dumps(page).encode())


def listed(path: Path) -> list[Item]:
    """The items of a recorded answer."""
    return cut(*LISTED[path.stem], path.read_bytes())


def observation(kind: str, body: bytes, received_at: datetime = RECEIVED_AT, seq: int = 1) -> Delivery:
    """What a poll stores of an item."""
    return Delivery(
        source="github",
        identity=f"poll-{seq}",
        kind=observed_kind(kind),
        via="poll",
        received_at=received_at,
        body=body,
        body_sha256=body_sha256(body),
        seq=seq,
    )


def seen(
    kind: str,
    item: Any,
    scope: str = "repos/octocat/Hello-World",
    received_at: datetime = RECEIVED_AT,
    source: Source = SOURCE,
) -> list[Event]:
    """What an item means, as a poll found it."""
    return list(PROVIDER.normalize(observation(kind, observed_body(scope, item), received_at), source))


def only_seen(kind: str, item: Any, **how: Any) -> Any:
    """The one event that an item means."""
    [one] = seen(kind, item, **how)
    return one


def expected_path(path: Path) -> Path:
    """Where the outcome of a sample or an answer is written."""
    if path in ANSWERS:
        return REST / "expected" / f"{path.stem}.items.json"
    return EXPECTED / path.parent.name / f"{path.stem}.events.json"


def outcome(path: Path) -> dict[str, Any]:
    """What a sample becomes, as JSON: its events with their ids, or why it is ignored."""
    try:
        events = normalized(path.parent.name, path.read_bytes())
    except Ignored as nothing:
        return {"ignored": nothing.reason}
    return {"events": _written(events)}


def outcome_of_answer(path: Path) -> dict[str, Any]:
    """What an answer becomes, as JSON: its items, and what each of them means."""
    return {
        "items": [
            {
                "ref": item.ref,
                "kind": item.kind,
                "events": _written(PROVIDER.normalize(observation(item.kind, item.body), SOURCE)),
            }
            for item in listed(path)
        ]
    }


def _written(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [
        {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}
        for event in events
    ]
