"""Runs of anything that is no build of ours: checks that other systems report."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from contracts.builds import BuildStatus
from contracts.envelope import RunEvent, Short
from contracts.version import Int64

RunKind = Literal["check_run", "check_suite"]


class ReportedRun(RunEvent):
    """A snapshot of one reported run. `ref` is the run: `github:check_run/<id>`."""

    service: ClassVar[str] = "ci"

    kind: RunKind
    name: str
    reporter: str | None = None
    """The application that reports it."""
    repository: str
    repository_id: Int64 | None = None
    """Null where a poll saw the run and the answer does not show it."""
    branch: str | None = None
    commit_sha: Short | None = None
    status: BuildStatus
    provider_status: str | None = None
    provider_conclusion: str | None = None
    url: str | None = None
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
        return f"{self.repository}: {self.kind.replace('_', ' ')} {self.name} {self.status}"


class RunQueued(ReportedRun):
    """A run was asked for and has not begun."""

    type: ClassVar[str] = "run.queued"


class RunStarted(ReportedRun):
    """A run is being worked on."""

    type: ClassVar[str] = "run.started"


class RunFinished(ReportedRun):
    """A run has ended."""

    type: ClassVar[str] = "run.finished"
