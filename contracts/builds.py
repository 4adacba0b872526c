"""CI builds: one run attempt of a workflow, and its jobs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.envelope import RunEvent, Short
from contracts.version import Int64

BuildStatus = Literal[
    "queued", "action_required", "running", "success", "failed", "cancelled", "skipped", "neutral", "unknown"
]
"""Normalised states. `unknown`: it has ended, the provider did not say how. `neutral`: ended, no verdict."""


STEPS_COUNT_MAX = 100
"""Steps that an event of a job carries, so that it stays below the size limit of events."""
STEP_NAME_CHARS_MAX = 100
"""A step without a name is called by the first line of its script, which may be long."""


class BuildEvent(RunEvent):
    """A snapshot of one run attempt. `ref` is the attempt: `github:run/<run id>/<attempt>`."""

    service: ClassVar[str] = "ci"

    repository: str
    repository_id: Int64
    run_id: Int64
    run_attempt: Int64
    number: Int64 | None = None
    workflow: str | None = None
    title: str | None = None
    branch: str | None = None
    commit_sha: Short | None = None
    commit_message: str | None = None
    trigger: str | None = None
    """What started it, in the provider's words: push, pull_request, schedule …"""
    pull_request: Int64 | None = None
    status: BuildStatus
    provider_status: str | None = None
    provider_conclusion: str | None = None
    url: str | None = None
    created_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None

    @property
    def outcome(self) -> str:
        return self.status

    @property
    def correlation(self) -> str | None:
        return self.commit_sha

    @property
    def summary(self) -> str:
        number = f" #{self.number}" if self.number is not None else ""
        attempt = f" (attempt {self.run_attempt})" if self.run_attempt > 1 else ""
        return f"{self.repository}: {self.workflow or 'build'}{number}{attempt} {self.status}"


class BuildQueued(BuildEvent):
    """A run attempt exists and waits: for a runner, an approval or its turn."""

    type: ClassVar[str] = "build.queued"


class BuildStarted(BuildEvent):
    """A run attempt is being worked on."""

    type: ClassVar[str] = "build.started"


class BuildFinished(BuildEvent):
    """A run attempt has ended."""

    type: ClassVar[str] = "build.finished"


class BuildStep(BaseModel):
    """One step of a job, in the provider's words."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    number: Int64
    """Its place in the job. Numbers may be left out between two steps."""
    name: str
    """Cut to STEP_NAME_CHARS_MAX characters."""
    status: str | None = None
    conclusion: str | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None


class BuildJobEvent(RunEvent):
    """A snapshot of one job of a run attempt. `ref` is the job: `github:job/<job id>`."""

    service: ClassVar[str] = "ci"

    build_ref: str
    repository: str
    repository_id: Int64 | None = None
    """Null where a poll saw the job: an API's list of jobs does not show it."""
    run_id: Int64
    run_attempt: Int64
    job_id: Int64
    name: str
    workflow: str | None = None
    branch: str | None = None
    commit_sha: Short | None = None
    status: BuildStatus
    provider_status: str | None = None
    provider_conclusion: str | None = None
    runner: str | None = None
    runner_id: Int64 | None = None
    runner_group: str | None = None
    labels: list[str] = []
    """What a runner has to have."""
    steps: list[BuildStep] = Field(default=[], max_length=STEPS_COUNT_MAX)
    """By number. Where there are too many, those that failed or run stay, and the earliest of the others."""
    steps_shown: Int64 = 0
    """How many steps the provider showed; `steps` may hold fewer."""
    url: str | None = None
    created_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None

    @property
    def step(self) -> str:
        return self.name

    @property
    def outcome(self) -> str:
        return self.status

    @property
    def correlation(self) -> str | None:
        return self.commit_sha

    @property
    def summary(self) -> str:
        return f"{self.repository}: job {self.name} {self.status}"


class BuildJobQueued(BuildJobEvent):
    """A job waits for a runner or an approval."""

    type: ClassVar[str] = "build_job.queued"


class BuildJobStarted(BuildJobEvent):
    """A runner works on a job."""

    type: ClassVar[str] = "build_job.started"


class BuildJobFinished(BuildJobEvent):
    """A job has ended."""

    type: ClassVar[str] = "build_job.finished"
