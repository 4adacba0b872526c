"""Events to tell, as the projector publishes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.builds import BuildFinished
from contracts.deployments import DeploymentStatusChanged
from contracts.version import moment
from contracts.webhooks import WebhookFailing, WebhookMended

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


def build(at: datetime | None = None, run: int = 421, **stated: Any) -> BuildFinished:
    """A run attempt that has ended at `at`, by default just now."""
    at = at or datetime.now(UTC)
    fields: dict[str, Any] = {
        "source": "github",
        "ref": f"github:run/{run}/1",
        "moment": moment(at, 0, major=2),
        "occurred_at": at,
        "actor": "octocat",
        "repository": "org/shop",
        "repository_id": 7,
        "run_id": run,
        "run_attempt": 1,
        "number": 12,
        "workflow": "test",
        "title": "Fix the cart",
        "branch": "main",
        "commit_sha": "3484a3fb816e0859fd6e1cea078d76385ff50625",
        "trigger": "push",
        "status": "success",
        "url": f"https://github.com/org/shop/actions/runs/{run}",
        "started_at": at - timedelta(minutes=3, seconds=4),
        "finished_at": at,
    }
    return BuildFinished(**{**fields, **stated})


def deployment(at: datetime | None = None, number: int = 99, **stated: Any) -> DeploymentStatusChanged:
    """A deployment that reached a state at `at`, by default just now."""
    at = at or datetime.now(UTC)
    fields: dict[str, Any] = {
        "source": "github",
        "ref": f"github:deployment/{number}",
        "moment": moment(at, 5),
        "occurred_at": at,
        "actor": "octocat",
        "repository": "org/shop",
        "repository_id": 7,
        "deployment_id": number,
        "environment": "live",
        "production": True,
        "git_ref": "main",
        "commit_sha": "f95f852bd8fca8fcc58a9a2d6c842781e32a215e",
        "creator": "release-bot",
        "created_at": at - timedelta(hours=1, minutes=2),
        "status": "success",
        "provider_status": "success",
        "url": "https://shop.example.com/",
    }
    return DeploymentStatusChanged(**{**fields, **stated})


HOST = "shop-5uckywc1y-example-org.vercel.app"
SAME_AS = f"vercel:url/{HOST}"


def by_vercel(at: datetime | None = None, **stated: Any) -> DeploymentStatusChanged:
    """Vercel's own report of one deployment, by default that it can be visited."""
    fields: dict[str, Any] = {
        "source": "vercel",
        "ref": "vercel:dpl_5uCWbCyVZhCPMvYSqgBwH3KjYm4n",
        "moment": (3, 0, 0),
        "fact": stated.get("provider_status", "ready"),
        "deployment_id": "dpl_5uCWbCyVZhCPMvYSqgBwH3KjYm4n",
        "project": "shop-web",
        "project_id": "prj_6yRbTn3kQ9wMx2vLz8hFcJ5dGs4p",
        "same_as": SAME_AS,
        "provider_status": "ready",
    }
    return deployment(at, **{**fields, **stated})


def by_github(at: datetime | None = None, **stated: Any) -> DeploymentStatusChanged:
    """GitHub's report of the same deployment."""
    return deployment(at, **{"same_as": SAME_AS, **stated})


HOOK = {"source": "github", "ref": "github:hook/7", "scope": "repos/org/shop"}


def webhook_failing(at: datetime | None = None, **stated: Any) -> WebhookFailing:
    """A webhook that was found switched off at `at`, by default just now."""
    fields = {**HOOK, "problem": "it is switched off: switch it on", "occurred_at": at or datetime.now(UTC)}
    return WebhookFailing(**{**fields, **stated})


def webhook_mended(at: datetime | None = None) -> WebhookMended:
    """The same webhook, switched on again."""
    return WebhookMended(**HOOK, occurred_at=at or datetime.now(UTC))
