"""Deployments of a commit to an environment, and which of them an environment serves."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from contracts.envelope import Event, Level, RunEvent, Short, Word
from contracts.version import Int64

DeploymentStatus = Literal[
    "queued",
    "awaiting_authorization",
    "deploying",
    "success",
    "failed",
    "inactive",
    "cancelled",
    "unknown",
]
"""Normalised states. `inactive`: it was live and has been superseded or taken down. `cancelled` is no failure: a newer
commit of the branch ends the deployments before it. `awaiting_authorization`: somebody has to let it go on."""

TargetChange = Literal["promoted", "rolled_back", "observed"]
"""How we know what a target serves: a promotion, a rollback, or a look at the provider."""

_LEVELS: dict[str, Level] = {"failed": "error", "awaiting_authorization": "warn", "unknown": "warn"}


class DeploymentEvent(RunEvent):
    """What never changes about a deployment. `ref` is the deployment: `github:deployment/<id>`, `vercel:<id>`."""

    service: ClassVar[str] = "deploy"

    repository: str | None = None
    repository_id: Int64 | None = None
    project: str | None = None
    """What is deployed, where the provider has a name for it besides the repository."""
    project_id: Word | None = None
    """The provider's id of it, which outlives the name."""
    deployment_id: Int64 | str
    environment: Word | None = None
    """The provider's own name of the environment; `env` is ours. Null where the provider does not say it."""
    production: bool | None = None
    git_ref: Word | None = None
    commit_sha: Short | None = None
    pull_request: Int64 | None = None
    task: str | None = None
    creator: str | None = None
    build_ref: str | None = None
    """The run attempt that deploys, where the provider names it."""
    same_as: Short | None = None
    """Equal where two providers report one deployment: `vercel:url/<host>`. Tell people once."""
    created_at: AwareDatetime | None = None

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.outcome or "", "info")

    @property
    def correlation(self) -> str | None:
        return self.commit_sha

    @property
    def summary(self) -> str:
        what = self.project or self.repository or self.ref
        where = f" to {self.environment}" if self.environment else ""
        return f"{what}: deployment{where} {self.outcome or 'created'}"


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


class DeploymentTargetChanged(Event):
    """Another deployment serves a target of a project. `ref` is the target: `vercel:target/<project id>/<target>`."""

    type: ClassVar[str] = "deployment_target.changed"
    service: ClassVar[str] = "deploy"

    project_id: Word
    project: str | None = None
    target: str
    """The provider's own name of the environment: `production`."""
    deployment_ref: str
    """The deployment that serves it now."""
    previous_ref: str | None = None
    """The one that served it before, where the provider names it."""
    change: TargetChange
    confirmed: bool
    """False where the provider has accepted the change, and does not tell when it has taken effect."""
    repository: str | None = None
    git_ref: Word | None = None
    commit_sha: Short | None = None

    @property
    def level(self) -> Level:
        return "warn" if self.change == "rolled_back" else "info"

    @property
    def correlation(self) -> str | None:
        return self.commit_sha

    @property
    def summary(self) -> str:
        return (
            f"{self.project or self.project_id}: {self.target} serves {self.deployment_ref} ({self.change})"
        )
