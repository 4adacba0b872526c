"""Deployments of a commit to an environment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from contracts.envelope import RunEvent
from contracts.version import Int64

DeploymentStatus = Literal["queued", "deploying", "success", "failed", "inactive", "cancelled", "unknown"]
"""Normalised states. `inactive`: it was live and has been superseded or taken down."""


class DeploymentEvent(RunEvent):
    """What never changes about a deployment. `ref` is the deployment: `github:deployment/<id>`, `vercel:<id>`."""

    service: ClassVar[str] = "deploy"

    repository: str | None = None
    repository_id: Int64 | None = None
    project: str | None = None
    """What is deployed, where the provider has a name for it besides the repository."""
    deployment_id: Int64 | str
    environment: str
    """The provider's own name of the environment; `env` is ours."""
    production: bool | None = None
    git_ref: str | None = None
    commit_sha: str | None = None
    task: str | None = None
    creator: str | None = None
    build_ref: str | None = None
    """The run attempt that deploys, where the provider names it."""
    same_as: str | None = None
    """Equal where two providers report one deployment: `vercel:url/<host>`. Tell people once."""
    created_at: AwareDatetime | None = None

    @property
    def correlation(self) -> str | None:
        return self.commit_sha

    @property
    def summary(self) -> str:
        what = self.project or self.repository or self.ref
        return f"{what}: deployment to {self.environment} {self.outcome or 'created'}"


class DeploymentCreated(DeploymentEvent):
    """A deployment was asked for."""

    type: ClassVar[str] = "deployment.created"

    @property
    def outcome(self) -> str | None:
        return "queued"


class DeploymentStatusChanged(DeploymentEvent):
    """The provider says which state a deployment is in now."""

    type: ClassVar[str] = "deployment.status_changed"

    status: DeploymentStatus
    provider_status: str
    description: str | None = None
    url: str | None = None
    """Where the deployed thing answers."""
    log_url: str | None = None

    @property
    def outcome(self) -> str:
        return self.status
