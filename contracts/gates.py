"""Policy gates: deterministic checks of a subject, with what they saw and what they measured it by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from contracts.envelope import Level, Short
from contracts.own import OwnEvent, Slug, Vocabulary, own_ref, vocabulary

GateStatus = Literal["pass", "warn", "fail", "error", "skipped", "unknown"]
"""`error`: it could not judge. That is no verdict, and neither is a word that we do not know."""

SUBJECT_CHARS_MAX = 600
REASONS_MAX = 100

_LEVELS: Mapping[str, Level] = {"fail": "error", "error": "error", "warn": "warn", "unknown": "warn"}


class GateEvaluated(OwnEvent):
    """A gate judged a subject.

    `ref` is the question: `odooops:gate_run/<gate>/<gate version>/<input hash>/<subject>`. The same question has one
    answer however often it is asked.
    """

    type: ClassVar[str] = "gate.evaluated"
    service: ClassVar[str] = "gates"
    words: ClassVar[Mapping[str, Vocabulary]] = {
        "status": vocabulary(
            GateStatus,
            {
                "passed": "pass",
                "success": "pass",
                "ok": "pass",
                "warning": "warn",
                "failed": "fail",
                "failure": "fail",
                "skip": "skipped",
            },
        )
    }

    gate: Slug
    gate_version: Slug
    subject_ref: str = Field(min_length=1, max_length=SUBJECT_CHARS_MAX)
    """What it judged: the ref of a commit, a database, an environment."""
    input_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16,128}$")]
    """Hash of everything that it looked at, so that equal inputs are one question."""
    status: GateStatus
    stated_status: str | None = None
    """The gate's own word."""
    observed: dict[str, JsonValue] = {}
    threshold: dict[str, JsonValue] = {}
    reasons: list[str] = Field(default=[], max_length=REASONS_MAX)
    evidence_ref: str | None = None
    """Where the proof lies: the ref of an artifact."""
    url: str | None = None
    """Where a person can look at the run."""
    correlation_id: Short | None = None
    """What ties events of several things together: the commit, where there is one."""

    def named(self) -> str:
        return own_ref("gate_run", self.gate, self.gate_version, self.input_hash, self.subject_ref)

    def told(self) -> str:
        return self.status

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.status, "info")

    @property
    def correlation(self) -> str | None:
        return self.correlation_id

    @property
    def summary(self) -> str:
        return f"gate {self.gate} on {self.subject_ref}: {self.status}"
