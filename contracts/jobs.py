"""Jobs that wait in a queue, runs that do the work, and what runs leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, JsonValue

from contracts.envelope import Level
from contracts.own import (
    ASKED,
    RUNNING,
    STAGES,
    Concluded,
    Ended,
    Name,
    OwnEvent,
    OwnRun,
    Sentence,
    Sha256,
    Slug,
    Vocabulary,
    own_ref,
    vocabulary,
)
from contracts.version import INT64_MAX, Int64, Moment, moment

JobEnd = Literal["done", "failed", "dead", "cancelled", "unknown"]
"""`failed`: this attempt, and another follows at `run_after`. `dead`: no other follows."""

ATTEMPTS_MAX = 1_000_000
NotNegative = Annotated[Int64, Field(ge=0, le=INT64_MAX)]
Attempt = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)]


class JobEvent(OwnRun):
    """One entry of a queue. `ref` is it: `odooops:job/<job id>`. What is later in its life: attempt, then stage."""

    service: ClassVar[str] = "jobs"

    job_id: Name
    job_type: Slug
    requested_by: str | None = None
    attempt: Attempt = 1
    """Which attempt this is about: 1 is the first. A job that is queued again waits for the next."""

    def named(self) -> str:
        return own_ref("job", self.job_id)

    def placed(self) -> Moment:
        return moment(self.occurred_at, 0, major=self.attempt * STAGES + self.reached)

    @property
    def summary(self) -> str:
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return f"job {self.job_type}{again} {self.outcome}"


class JobQueued(JobEvent):
    """A job waits for its turn."""

    type: ClassVar[str] = "job.queued"
    stage: ClassVar[int] = ASKED
    state: ClassVar[str] = "queued"

    args: dict[str, JsonValue] = {}
    """What it is to do it with, without secrets."""
    max_attempts: NotNegative | None = None
    timeout_s: NotNegative | None = None
    """How many seconds an attempt may take."""
    run_after: AwareDatetime | None = None
    """Not before this time."""


class JobStarted(JobEvent):
    """Somebody took a job from the queue."""

    type: ClassVar[str] = "job.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class JobFinished(JobEvent, Ended):
    """An attempt at a job has ended; `status` says whether the job has."""

    type: ClassVar[str] = "job.finished"
    words: ClassVar[Mapping[str, Vocabulary]] = {
        "status": vocabulary(
            JobEnd,
            {
                "success": "done",
                "succeeded": "done",
                "completed": "done",
                "failure": "failed",
                "error": "failed",
                "timeout": "failed",
                "timed_out": "failed",
                "canceled": "cancelled",
            },
        )
    }

    status: JobEnd
    stated_status: str | None = None
    """The worker's own word."""
    run_after: AwareDatetime | None = None
    """When the next attempt is due."""

    @property
    def outcome(self) -> str:
        return self.status


class JobRunEvent(OwnRun):
    """One execution: of a job, a gate, a script. `ref` is it: `odooops:run/<run id>`."""

    service: ClassVar[str] = "jobs"

    run_id: Name
    kind: Slug
    """What sort of work it is: `backup`, `gate`."""
    name: str | None = None
    """What it is called, where one kind has several."""
    job_ref: str | None = None
    """The job that it works on."""
    triggered_by: str | None = None
    runner: str | None = None
    """Who executes it."""

    def named(self) -> str:
        return own_ref("run", self.run_id)

    @property
    def summary(self) -> str:
        return f"{self.name or self.kind} {self.outcome}"


class JobRunStarted(JobRunEvent):
    """A run began."""

    type: ClassVar[str] = "job_run.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class JobRunProgressed(JobRunEvent):
    """A run says what it does: one line of ops.run_events."""

    type: ClassVar[str] = "job_run.progressed"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"

    step_name: str | None = None
    """Which part of the run, `step` in ops.run_events."""
    log_level: Level = "info"
    """How much a person should care, `level` in ops.run_events."""
    message: Sentence
    number: NotNegative = 0
    """Counts a run's messages, so that two of one step and microsecond are told apart."""

    def told(self) -> str:
        return f"{self.number}:{self.step_name or ''}"

    @property
    def step(self) -> str | None:
        return self.step_name

    @property
    def level(self) -> Level:
        return self.log_level

    @property
    def summary(self) -> str:
        return self.message


class JobRunFinished(JobRunEvent, Concluded):
    """A run has ended."""

    type: ClassVar[str] = "job_run.finished"


class ArtifactStored(OwnEvent):
    """A run left something behind. `ref` is it: `odooops:artifact/<artifact id>`. It never changes."""

    type: ClassVar[str] = "artifact.stored"
    service: ClassVar[str] = "jobs"

    artifact_id: Name
    kind: Slug
    """`log`, `transcript`, `report`."""
    name: str
    sha256: Sha256
    size_bytes: NotNegative
    run_ref: str | None = None
    object_name: Name | None = None
    """Where its body lies in the bucket ARTIFACTS; null where it lies elsewhere."""
    content_type: str | None = None
    url: str | None = None
    """Where it lies, if not in the bucket."""

    def named(self) -> str:
        return own_ref("artifact", self.artifact_id)

    def told(self) -> str:
        return self.sha256

    @property
    def summary(self) -> str:
        return f"{self.kind} {self.name} stored, {self.size_bytes} bytes"
